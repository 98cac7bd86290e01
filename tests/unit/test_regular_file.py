from __future__ import annotations

import os
from pathlib import Path

import pytest

from clef_agent.regular_file import read_regular_file


def test_a_file_is_read_whole_also_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"key")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    assert read_regular_file(str(tmp_path / "link")) == b"key"


def test_a_pipe_in_its_place_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(OSError, match="not a regular file"):
        read_regular_file(str(tmp_path / "pipe"))


@pytest.mark.parametrize("path", ["/dev/zero", "/"])
def test_a_device_and_a_directory_are_refused(path: str) -> None:
    with pytest.raises(OSError, match=r"regular file|directory"):
        read_regular_file(path)


def test_a_file_without_end_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(101))
    assert len(read_regular_file(str(tmp_path / "file"), 101)) == 101
    with pytest.raises(OSError, match="more than 100 bytes"):
        read_regular_file(str(tmp_path / "file"), 100)
