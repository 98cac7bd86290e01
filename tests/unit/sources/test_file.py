from __future__ import annotations

import asyncio
import os
import socket
import threading
import time
from pathlib import Path

import pytest

from clef_agent.clock import Instant
from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.sources.base import Fetched, NotModified, Source, Validator
from clef_agent.sources.file import FileSource
from unprivileged import without_rights


class LaterClock:
    """Real time, moved on so far that each file's times have settled; or not moved."""

    def __init__(self, ahead_s: float = 60.0) -> None:
        self.ahead_s = ahead_s

    def now(self) -> Instant:
        return Instant(wall=time.time() + self.ahead_s, boot=0.0)


def source_of(path: Path, *, ahead_s: float = 60.0, max_bytes: int = 1000) -> FileSource:
    return FileSource(str(path), clock=LaterClock(ahead_s), max_bytes=max_bytes)


def fetch(source: Source, previous: Validator | None = None) -> Fetched | NotModified:
    return asyncio.run(source.fetch(previous))


def fetched(source: Source, previous: Validator | None = None) -> Fetched:
    result = fetch(source, previous)
    assert isinstance(result, Fetched)
    return result


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact.json"
    path.write_bytes(b"one")
    return path


def test_a_file_is_read_whole_and_then_not_again(artifact: Path) -> None:
    source = source_of(artifact)
    first = fetched(source)
    assert first.data == b"one"
    assert first.validator is not None
    assert fetch(source, first.validator) == NotModified()


def test_without_a_validator_the_file_is_always_read(artifact: Path) -> None:
    source = source_of(artifact)
    assert fetched(source).data == fetched(source).data == b"one"


def test_a_file_of_many_chunks_is_read_whole(tmp_path: Path) -> None:
    data = os.urandom(3 * 1024 * 1024 + 17)
    path = tmp_path / "large"
    path.write_bytes(data)
    assert fetched(source_of(path, max_bytes=len(data))).data == data


def test_an_empty_file_is_handed_out_for_the_parser_to_refuse(tmp_path: Path) -> None:
    path = tmp_path / "empty"
    path.touch()
    assert fetched(source_of(path)).data == b""


def test_a_source_says_what_it_is(artifact: Path) -> None:
    source = source_of(artifact)
    assert source.type == "file"
    assert not source.is_remote
    assert source.describe() == str(artifact)
    asyncio.run(source.aclose())


def test_a_file_replaced_by_a_rename_is_read_again(artifact: Path) -> None:
    source = source_of(artifact)
    first = fetched(source)
    successor = artifact.with_suffix(".new")
    successor.write_bytes(b"two")
    old = artifact.stat()
    os.utime(successor, ns=(old.st_atime_ns, old.st_mtime_ns))
    successor.replace(artifact)
    assert fetched(source, first.validator).data == b"two"


def test_a_rewrite_that_keeps_size_and_modification_time_is_noticed(artifact: Path) -> None:
    source = source_of(artifact)
    first = fetched(source)
    old = artifact.stat()
    deadline = time.monotonic() + 5
    # The kernel's tick: the change time moves on within some milliseconds.
    while artifact.stat().st_ctime_ns == old.st_ctime_ns and time.monotonic() < deadline:
        artifact.write_bytes(b"two")
        os.utime(artifact, ns=(old.st_atime_ns, old.st_mtime_ns))
    assert fetched(source, first.validator).data == b"two"


def test_a_mounted_secret_is_followed_through_its_symlinks(tmp_path: Path) -> None:
    # As the kubelet does it: artifact.json -> ..data/artifact.json, ..data -> ..2026_01.
    for name, data in (("..2026_01", b"one"), ("..2026_02", b"two")):
        (tmp_path / name).mkdir()
        (tmp_path / name / "artifact.json").write_bytes(data)
    (tmp_path / "..data").symlink_to("..2026_01")
    path = tmp_path / "artifact.json"
    path.symlink_to("..data/artifact.json")
    source = source_of(path)
    first = fetched(source)
    (tmp_path / "..data_tmp").symlink_to("..2026_02")
    (tmp_path / "..data_tmp").replace(tmp_path / "..data")
    assert (first.data, fetched(source, first.validator).data) == (b"one", b"two")


# --- times that have not settled ------------------------------------------------------------------


def stamp_ahead_of_a_change(source: FileSource, path: Path) -> Validator:
    """The validator of what was there before ``path`` was rewritten within one tick."""
    before = fetched(source).validator
    assert before is not None
    digest = before.token.rpartition(" ")[2]
    path.write_bytes(b"two")
    after = fetched(source).validator
    assert after is not None
    return Validator(after.token.rpartition(" ")[0] + " " + digest)


def test_a_second_change_within_the_same_tick_is_noticed(artifact: Path) -> None:
    source = source_of(artifact, ahead_s=0)
    assert fetched(source, stamp_ahead_of_a_change(source, artifact)).data == b"two"


def test_a_file_just_written_is_not_modified_while_its_content_stays(artifact: Path) -> None:
    source = source_of(artifact, ahead_s=0)
    assert fetch(source, fetched(source).validator) == NotModified()


def test_once_its_times_have_settled_a_file_gets_a_validator_that_saves_reading(
    artifact: Path,
) -> None:
    fresh = fetched(source_of(artifact, ahead_s=0))
    settled = fetched(source_of(artifact), fresh.validator)
    assert settled.data == b"one"
    assert settled.validator != fresh.validator
    assert fetch(source_of(artifact), settled.validator) == NotModified()


def test_a_validator_of_another_making_means_nothing(artifact: Path) -> None:
    assert fetched(source_of(artifact), Validator("something else")).data == b"one"


# --- refusals -------------------------------------------------------------------------------------


def refused(source: Source) -> SourceError:
    with pytest.raises(SourceError) as caught:
        fetch(source)
    assert source.describe() in str(caught.value)
    return caught.value


def test_a_missing_file_may_still_come(tmp_path: Path) -> None:
    failure = refused(source_of(tmp_path / "later.json"))
    assert type(failure) is SourceMissing
    assert failure.transient


def test_a_dangling_symlink_is_a_missing_file(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to("nowhere")
    assert type(refused(source_of(tmp_path / "link"))) is SourceMissing


def test_a_missing_directory_is_final_and_named(tmp_path: Path) -> None:
    failure = refused(source_of(tmp_path / "none" / "artifact.json"))
    assert type(failure) is SourceUnusable
    assert not failure.transient
    assert failure.hint
    assert f"no directory {tmp_path / 'none'}" in str(failure)


def test_a_path_through_a_file_is_final(artifact: Path) -> None:
    assert type(refused(source_of(artifact / "artifact.json"))) is SourceUnusable


def test_a_path_with_nul_is_final() -> None:
    assert type(refused(FileSource("/tmp/a\0b"))) is SourceUnusable


def test_a_symlink_to_itself_is_final(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert type(refused(source_of(tmp_path / "loop"))) is SourceUnusable


def test_a_directory_is_named_as_one(tmp_path: Path) -> None:
    failure = refused(source_of(tmp_path))
    assert type(failure) is SourceUnusable
    assert "directory" in str(failure)


def test_a_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    failure = refused(FileSource(str(tmp_path / "pipe"), deadline_s=5))
    assert type(failure) is SourceUnusable


def test_a_socket_and_a_device_are_refused(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "socket"))
        assert type(refused(source_of(tmp_path / "socket"))) is SourceUnusable
    assert type(refused(FileSource("/dev/zero"))) is SourceUnusable


def test_a_file_without_permission_is_denied_by_the_file_system(artifact: Path) -> None:
    artifact.chmod(0)
    with without_rights():
        assert type(refused(source_of(artifact))) is SourceDenied


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (PermissionError(13, "Permission denied"), SourceDenied),
        (OSError(5, "Input/output error"), SourceUnreachable),
        (OSError("no number"), SourceUnreachable),
    ],
)
def test_what_the_system_says_is_translated(
    artifact: Path, monkeypatch: pytest.MonkeyPatch, failure: OSError, kind: type[SourceError]
) -> None:
    def broken(*_args: object) -> int:
        raise failure

    monkeypatch.setattr(os, "open", broken)
    assert type(refused(source_of(artifact))) is kind


def test_a_file_of_exactly_the_cap_is_read_and_one_byte_more_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "large"
    path.write_bytes(b"x" * 1000)
    assert len(fetched(source_of(path, max_bytes=1000)).data) == 1000
    assert type(refused(source_of(path, max_bytes=999))) is SourceTooLarge


# --- changes while it is read ---------------------------------------------------------------------


def test_a_file_rewritten_while_it_is_read_is_read_again(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_read, reads = os.read, []

    def read(fd: int, size: int) -> bytes:
        reads.append(fd)
        chunk = real_read(fd, 2 if len(reads) == 1 else size)
        if len(reads) == 1:
            artifact.write_bytes(b"TWO!")
        return chunk

    monkeypatch.setattr(os, "read", read)
    assert fetched(source_of(artifact)).data == b"TWO!"


def test_a_file_that_never_stands_still_is_given_up_for_now(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_read, reads = os.read, []

    def read(fd: int, size: int) -> bytes:
        reads.append(fd)
        with artifact.open("ab") as file:
            file.write(b"x")
        return real_read(fd, size) if len(reads) % 2 else b""

    monkeypatch.setattr(os, "read", read)
    failure = refused(source_of(artifact))
    assert type(failure) is SourceBusy
    assert failure.transient


def test_a_pipe_that_takes_the_files_place_does_not_hang(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real_open = os.open

    def swapped(path: str, flags: int) -> int:
        artifact.unlink()
        os.mkfifo(artifact)
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", swapped)
    failure = refused(FileSource(str(artifact), deadline_s=5))
    assert type(failure) is SourceUnusable


def test_no_descriptor_is_left_open(artifact: Path, tmp_path: Path) -> None:
    def descriptors() -> int:
        return len(list(Path("/dev/fd").iterdir()))

    source, too_large = source_of(artifact), source_of(artifact, max_bytes=1)

    async def use() -> tuple[int, int]:
        await source.fetch(None)
        before = descriptors()
        for _ in range(20):
            await source.fetch(None)
            with pytest.raises(SourceTooLarge):
                await too_large.fetch(None)
        return before, descriptors()

    before, after = asyncio.run(use())
    assert after == before


# --- a file system that hangs ---------------------------------------------------------------------


def test_a_hung_file_system_holds_neither_the_loop_nor_more_than_one_thread(
    artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()
    real_open = os.open

    def hung(path: str, flags: int) -> int:
        release.wait(timeout=30)
        return real_open(path, flags)

    monkeypatch.setattr(os, "open", hung)
    source = FileSource(str(artifact), deadline_s=0.05)

    async def poll() -> None:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                ticks += 1
                await asyncio.sleep(0)

        ticker = asyncio.create_task(tick())
        before = set(threading.enumerate())
        for _ in range(20):
            with pytest.raises(SourceUnreachable, match=r"artifact\.json"):
                await source.fetch(None)
        assert len(set(threading.enumerate()) - before) == 1
        assert ticks > 20
        ticker.cancel()
        release.set()
        deadline = time.monotonic() + 5
        while time.monotonic() < deadline:
            try:
                assert isinstance(await source.fetch(None), Fetched)
            except SourceUnreachable:
                await asyncio.sleep(0.01)
            else:
                return
        raise AssertionError("the source did not come back")

    asyncio.run(poll())


def test_fetches_at_the_same_time_take_turns(artifact: Path) -> None:
    source = source_of(artifact)

    async def both() -> list[Fetched | NotModified]:
        return list(await asyncio.gather(source.fetch(None), source.fetch(None)))

    assert all(isinstance(result, Fetched) for result in asyncio.run(both()))
