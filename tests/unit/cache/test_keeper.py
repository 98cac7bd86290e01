from __future__ import annotations

import asyncio
import hashlib
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from clef_agent.artifact.model import RollbackMark
from clef_agent.cache.disk import DiskCache, DiskCopy
from clef_agent.cache.keeper import BackgroundKeeper, MarkKeeper, NoCopy
from clef_agent.clock import Instant
from clef_agent.errors import DiskCopyUnusable

A, B = b"first artifact", b"second artifact"
AT = Instant(1_800_000_000, 1_000)
LATER = Instant(1_800_000_010, 1_010)
MARK = RollbackMark(5.0)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


class SlowDisk(DiskCache):
    """A disk that hangs while ``free`` is not set, and fails while ``failure`` is."""

    def __init__(self, directory: Path) -> None:
        super().__init__(str(directory), key="agent", boot_id="boot")
        self.free = threading.Event()
        self.free.set()
        self.failure: OSError | None = None
        self.calls: list[str] = []

    def _hang(self, call: str) -> None:
        self.calls.append(call)
        assert self.free.wait(60)
        if self.failure is not None:
            raise self.failure

    def store(
        self, data: bytes, digest: str, confirmed: Instant, mark: RollbackMark | None
    ) -> None:
        self._hang("store " + data.decode())
        super().store(data, digest, confirmed, mark)

    def confirm(self, digest: str, confirmed: Instant, mark: RollbackMark | None) -> None:
        self._hang("confirm")
        super().confirm(digest, confirmed, mark)

    def purge(self, mark: RollbackMark | None) -> None:
        self._hang("purge")
        super().purge(mark)

    def load(self, now: Instant) -> DiskCopy | None:
        self._hang("load")
        return super().load(now)


@pytest.fixture
def disk(tmp_path: Path) -> SlowDisk:
    return SlowDisk(tmp_path / "cache")


@pytest.fixture
def warnings() -> list[str]:
    return []


@pytest.fixture
def keeper(disk: SlowDisk, warnings: list[str]) -> BackgroundKeeper:
    return BackgroundKeeper(disk, warnings.append)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # a thread's doing, which sets no asyncio.Event
            await asyncio.sleep(0.001)


def stored(disk: DiskCache) -> tuple[bytes, float] | None:
    copy = disk.load(LATER)
    return None if copy is None else (copy.data, copy.age_s)


def test_what_is_kept_can_be_loaded(keeper: BackgroundKeeper) -> None:
    async def scenario() -> None:
        assert await keeper.load(AT) is None
        keeper.keep(A, digest(A), AT, MARK)
        await keeper.settle(30)
        copy = await keeper.load(LATER)
        assert copy is not None
        assert (copy.data, copy.age_s) == (A, 10)
        assert await keeper.load_mark() == MARK

    asyncio.run(scenario())


def test_mere_success_writes_the_record_alone(keeper: BackgroundKeeper, disk: SlowDisk) -> None:
    async def scenario() -> None:
        keeper.keep(A, digest(A), AT, None)
        await keeper.settle(30)
        keeper.confirm(LATER, None)
        await keeper.settle(30)

    asyncio.run(scenario())
    assert disk.calls == ["store first artifact", "confirm"]
    assert stored(disk) == (A, 0)


def test_bytes_are_let_go_once_they_are_on_disk(keeper: BackgroundKeeper) -> None:
    async def scenario() -> None:
        keeper.keep(A, digest(A), AT, None)
        await keeper.settle(30)

    asyncio.run(scenario())
    assert keeper._wanted.data is None


def test_purge_removes_the_copy(keeper: BackgroundKeeper, disk: SlowDisk) -> None:
    async def scenario() -> None:
        keeper.keep(A, digest(A), AT, MARK)
        await keeper.settle(30)
        keeper.purge(MARK)
        await keeper.settle(30)
        assert await keeper.load_mark() == MARK

    asyncio.run(scenario())
    assert stored(disk) is None


def test_adopted_copy_is_confirmed_in_place(keeper: BackgroundKeeper, disk: SlowDisk) -> None:
    disk.store(A, digest(A), AT, None)
    disk.calls.clear()

    async def scenario() -> None:
        keeper.adopt(digest(A))
        keeper.confirm(LATER, None)
        await keeper.settle(30)

    asyncio.run(scenario())
    assert disk.calls == ["confirm"]
    assert stored(disk) == (A, 0)


def test_adopting_while_a_write_is_under_way_removes_nothing(
    keeper: BackgroundKeeper, disk: SlowDisk
) -> None:
    async def scenario() -> None:
        disk.free.clear()
        keeper.keep(A, digest(A), AT, None)
        await until(lambda: disk.calls != [])
        keeper.adopt(digest(A))
        disk.free.set()
        await keeper.settle(30)

    asyncio.run(scenario())
    assert stored(disk) == (A, 10)


def test_only_the_newest_wish_is_written_after_a_slow_write(
    keeper: BackgroundKeeper, disk: SlowDisk
) -> None:
    async def scenario() -> None:
        disk.free.clear()
        keeper.keep(A, digest(A), AT, None)
        await until(lambda: disk.calls != [])
        keeper.purge(None)
        keeper.keep(A, digest(A), AT, None)
        keeper.keep(B, digest(B), LATER, None)
        disk.free.set()
        await keeper.settle(30)

    asyncio.run(scenario())
    assert disk.calls == ["store first artifact", "store second artifact"]
    assert stored(disk) == (B, 0)


def test_success_during_a_slow_write_does_not_write_the_bytes_again(
    keeper: BackgroundKeeper, disk: SlowDisk
) -> None:
    async def scenario() -> None:
        disk.free.clear()
        keeper.keep(A, digest(A), AT, None)
        await until(lambda: disk.calls != [])
        keeper.confirm(LATER, None)
        disk.free.set()
        await keeper.settle(30)

    asyncio.run(scenario())
    assert disk.calls == ["store first artifact", "confirm"]
    assert stored(disk) == (A, 0)


def test_failure_is_warned_of_once_until_a_write_succeeds(
    keeper: BackgroundKeeper, disk: SlowDisk, warnings: list[str]
) -> None:  # case 12
    async def write() -> None:
        keeper.confirm(LATER, None)
        await keeper.settle(30)

    async def scenario() -> None:
        disk.failure = OSError(28, "No space left on device")
        keeper.keep(A, digest(A), AT, None)
        await keeper.settle(30)
        await write()
        assert warnings == ["the copy on disk could not be written: No space left on device"]
        disk.failure = None
        await write()
        disk.failure = OSError("without words")
        await write()
        assert warnings[1:] == ["the copy on disk could not be written: OSError"]

    asyncio.run(scenario())


def test_bytes_that_could_not_be_written_are_written_at_the_next_success(
    keeper: BackgroundKeeper, disk: SlowDisk
) -> None:
    async def scenario() -> None:
        disk.failure = OSError(28, "No space left on device")
        keeper.keep(A, digest(A), AT, None)
        await keeper.settle(30)
        disk.failure = None
        keeper.confirm(LATER, None)
        await keeper.settle(30)

    asyncio.run(scenario())
    assert stored(disk) == (A, 0)


def test_directory_that_cannot_be_made_is_a_warning(
    tmp_path: Path, warnings: list[str]
) -> None:  # case 12
    (tmp_path / "cache").write_text("a file")
    keeper = BackgroundKeeper(SlowDisk(tmp_path / "cache"), warnings.append)

    async def scenario() -> None:
        keeper.keep(A, digest(A), AT, None)
        await keeper.settle(30)
        with pytest.raises(DiskCopyUnusable):
            await keeper.load(AT)

    asyncio.run(scenario())
    assert len(warnings) == 1


def test_hung_disk_delays_nobody(disk: SlowDisk, warnings: list[str]) -> None:
    keeper = BackgroundKeeper(disk, warnings.append, deadline_s=0.05)

    async def scenario() -> None:
        loop = asyncio.get_running_loop()
        disk.free.clear()
        started = loop.time()
        keeper.keep(A, digest(A), AT, None)
        keeper.confirm(LATER, None)
        keeper.purge(None)
        assert loop.time() - started < 1
        await until(lambda: disk.calls != [])
        await until(lambda: warnings != [])
        with pytest.raises(DiskCopyUnusable) as caught:
            await keeper.load(AT)
        assert "still hangs" in str(caught.value)
        keeper.keep(B, digest(B), AT, None)
        await keeper.settle(30)
        # Whatever the disk does when it comes back, the next wish is done.
        disk.free.set()
        async with asyncio.timeout(30):
            while stored(disk) != (B, 0):
                keeper.confirm(LATER, None)
                await keeper.settle(30)
                await asyncio.sleep(0.001)
        assert len(warnings) == 1

    asyncio.run(scenario())


def test_reading_from_a_hung_disk_ends(disk: SlowDisk) -> None:
    keeper = BackgroundKeeper(disk, print, deadline_s=0.05)

    async def scenario() -> None:
        disk.free.clear()
        with pytest.raises(DiskCopyUnusable) as caught:
            await keeper.load(AT)
        assert "took over" in str(caught.value)
        disk.free.set()

    asyncio.run(scenario())


def test_settling_does_not_wait_beyond_its_deadline(
    keeper: BackgroundKeeper, disk: SlowDisk
) -> None:
    async def scenario() -> None:
        await keeper.settle(30)
        disk.free.clear()
        keeper.keep(A, digest(A), AT, None)
        async with asyncio.timeout(30):
            await keeper.settle(0.01)
        disk.free.set()
        await keeper.settle(30)

    asyncio.run(scenario())
    assert stored(disk) == (A, 10)


def test_agent_without_copies_keeps_none() -> None:
    none = NoCopy()
    none.keep(A, digest(A), AT, MARK)
    none.adopt(digest(A))
    none.confirm(AT, MARK)
    none.purge(MARK)

    async def scenario() -> None:
        assert await none.load(AT) is None
        assert await none.load_mark() is None
        await none.settle(1)

    asyncio.run(scenario())
    assert not none.enabled


def test_keeper_of_marks_keeps_the_mark_and_no_copy(
    keeper: BackgroundKeeper, disk: SlowDisk
) -> None:
    async def main() -> None:
        marks = MarkKeeper(keeper)
        marks.keep(A, digest(A), AT, MARK)
        await marks.settle(5)
        for _ in range(3):
            marks.confirm(LATER, MARK)
        marks.adopt(digest(A))
        await marks.settle(5)
        assert await marks.load_mark() == MARK
        assert await marks.load(LATER) is None

    asyncio.run(main())
    assert disk.load(LATER) is None
    assert disk.calls.count("purge") == 1


def test_mark_that_could_not_be_written_is_written_at_the_next_success(
    keeper: BackgroundKeeper, disk: SlowDisk
) -> None:
    async def main() -> None:
        marks = MarkKeeper(keeper)
        disk.failure = OSError(28, "No space left on device")
        marks.keep(A, digest(A), AT, MARK)
        await marks.settle(5)
        disk.failure = None
        marks.confirm(LATER, MARK)
        await marks.settle(5)

    asyncio.run(main())
    assert disk.load_mark() == MARK


def test_bytes_do_not_print(keeper: BackgroundKeeper) -> None:
    async def scenario() -> None:
        keeper.keep(A, digest(A), AT, None)
        assert "first artifact" not in repr(keeper._wanted)
        await keeper.settle(30)

    asyncio.run(scenario())
