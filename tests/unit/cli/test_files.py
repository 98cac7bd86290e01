"""Files that commands write."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from clef_agent.cli.failure import Failure
from clef_agent.cli.files import create_secret_file, read_file, replace_file


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_new_artifact_can_be_read_by_everybody(tmp_path: Path) -> None:
    replace_file(tmp_path / "new", b"data")

    assert read_file(tmp_path / "new") == b"data"
    assert mode_of(tmp_path / "new") == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["new"]


def test_a_replaced_file_keeps_its_mode(tmp_path: Path) -> None:
    (tmp_path / "old").write_bytes(b"old")
    (tmp_path / "old").chmod(0o640)

    replace_file(tmp_path / "old", b"new")

    assert (read_file(tmp_path / "old"), mode_of(tmp_path / "old")) == (b"new", 0o640)


def test_a_symbolic_link_keeps_pointing_where_it_did(tmp_path: Path) -> None:
    (tmp_path / "target").write_bytes(b"old")
    (tmp_path / "link").symlink_to("target")

    replace_file(tmp_path / "link", b"new")

    assert (tmp_path / "link").is_symlink()
    assert read_file(tmp_path / "target") == b"new"


def test_what_is_no_file_is_written_to_and_never_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    reader = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK)
    try:
        replace_file(fifo, b"data")

        assert os.read(reader, 100) == b"data"
    finally:
        os.close(reader)
    assert fifo.is_fifo()


def test_a_secret_file_can_be_read_by_its_owner_only(tmp_path: Path) -> None:
    create_secret_file(tmp_path / "key", b"secret")

    assert (read_file(tmp_path / "key"), mode_of(tmp_path / "key")) == (b"secret", 0o600)


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_a_secret_file_is_never_written_over_another(tmp_path: Path, kind: str) -> None:
    path = tmp_path / "key"
    if kind == "file":
        path.write_bytes(b"old")
    else:
        path.symlink_to(tmp_path / "elsewhere")

    with pytest.raises(Failure, match="exists already"):
        create_secret_file(path, b"new")
    assert not (tmp_path / "elsewhere").exists()


def test_what_cannot_be_read_or_written_is_a_failure_that_names_it(tmp_path: Path) -> None:
    path = tmp_path / "absent" / "file"

    with pytest.raises(Failure, match=f"{path} cannot be read"):
        read_file(path)
    with pytest.raises(Failure, match=f"{path} cannot be written"):
        replace_file(path, b"")
    with pytest.raises(Failure, match=f"{path} cannot be written"):
        create_secret_file(path, b"")
