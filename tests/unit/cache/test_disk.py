from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import resource
import shutil
import signal
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clef_agent.artifact.model import MAX_ARTIFACT_BYTES, RollbackMark
from clef_agent.cache.disk import DiskCache
from clef_agent.clock import Instant
from clef_agent.errors import DiskCopyUnusable

OLD, NEW = b'{"revision": "old"}', b'{"revision": "new"}'
AT = Instant(wall=1_800_000_000, boot=1_000)
MARK = RollbackMark(1_799_999_999.5)


def digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def make(directory: Path, *, key: str = "agent", boot_id: str = "boot-1") -> DiskCache:
    return DiskCache(str(directory), key=key, boot_id=boot_id)


def store(disk: DiskCache, data: bytes = OLD, at: Instant = AT) -> None:
    disk.store(data, digest(data), at, MARK)


def record_of(directory: Path) -> Path:
    (record,) = directory.glob("*.record.json")
    return record


def data_of(directory: Path) -> Path:
    (data,) = directory.glob("*.artifact.json")
    return data


def rewrite(directory: Path, **last_success: object) -> None:
    record = record_of(directory)
    document = json.loads(record.read_text())
    document["lastSuccess"].update(last_success)
    record.write_text(json.dumps(document))


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def disk(directory: Path) -> DiskCache:
    return make(directory)


# --- what is kept -----------------------------------------------------------------------------


def test_nothing_is_there_at_first(disk: DiskCache, directory: Path) -> None:
    assert disk.load(AT) is None
    assert disk.load_mark() is None
    assert not directory.exists()


def test_stored_copy_is_loaded_with_its_age(disk: DiskCache) -> None:
    store(disk)
    copy = disk.load(Instant(AT.wall + 7, AT.boot + 7))
    assert copy is not None
    assert (copy.data, copy.age_s) == (OLD, 7)


def test_new_copy_replaces_the_old_one_and_its_file(disk: DiskCache, directory: Path) -> None:
    store(disk)
    store(disk, NEW)
    copy = disk.load(AT)
    assert copy is not None
    assert copy.data == NEW
    assert len(list(directory.iterdir())) == 2


def test_confirmation_makes_the_copy_younger_and_writes_the_record_alone(
    disk: DiskCache, directory: Path
) -> None:
    store(disk)
    before = data_of(directory).stat()
    disk.confirm(digest(OLD), Instant(AT.wall + 100, AT.boot + 100), MARK)
    copy = disk.load(Instant(AT.wall + 110, AT.boot + 110))
    assert copy is not None
    assert copy.age_s == 10
    assert data_of(directory).stat().st_ino == before.st_ino


def test_confirmation_of_a_copy_that_is_gone_fails_and_changes_nothing(
    disk: DiskCache, directory: Path
) -> None:
    store(disk)
    with pytest.raises(FileNotFoundError):
        disk.confirm(digest(NEW), AT, MARK)
    copy = disk.load(AT)
    assert copy is not None
    assert copy.data == OLD


def test_purge_leaves_the_mark_alone(disk: DiskCache, directory: Path) -> None:
    store(disk)
    disk.purge(RollbackMark(MARK.packed_at, revoked=True))
    assert disk.load(AT) is None
    assert disk.load_mark() == RollbackMark(MARK.packed_at, revoked=True)
    assert [path.name for path in directory.iterdir()] == [record_of(directory).name]


def test_purge_without_a_mark_leaves_nothing(disk: DiskCache, directory: Path) -> None:
    disk.store(OLD, digest(OLD), AT, None)
    disk.purge(None)
    assert list(directory.iterdir()) == []


def test_purge_makes_a_directory_only_for_a_mark(disk: DiskCache, directory: Path) -> None:
    disk.purge(None)
    assert not directory.exists()
    disk.purge(MARK)
    assert disk.load_mark() == MARK


def test_confirmation_removes_what_a_crash_left(disk: DiskCache, directory: Path) -> None:
    store(disk)
    kept = {path.name for path in directory.iterdir()}
    half = directory / f"{data_of(directory).name}.0123.tmp"
    half.write_bytes(b"half")
    disk.confirm(digest(OLD), AT, None)
    assert {path.name for path in directory.iterdir()} == kept


def test_purge_removes_what_a_crash_left_half_written(disk: DiskCache, directory: Path) -> None:
    store(disk)
    half = directory / f"{data_of(directory).name}.0123.tmp"
    half.write_bytes(b"half")
    disk.purge(None)
    assert not half.exists()


@pytest.mark.parametrize(
    "lagging", [None, RollbackMark(1.0), RollbackMark(1.0, revoked=True)], ids=str
)
def test_mark_never_goes_back(disk: DiskCache, lagging: RollbackMark | None) -> None:
    store(disk)
    disk.store(NEW, digest(NEW), AT, lagging)
    assert disk.load_mark() == MARK
    disk.confirm(digest(NEW), AT, lagging)
    assert disk.load_mark() == MARK
    disk.purge(lagging)
    assert disk.load_mark() == MARK


def test_files_are_for_their_owner_alone_whatever_the_umask(
    disk: DiskCache, directory: Path
) -> None:
    before = os.umask(0)
    try:
        store(disk)
    finally:
        os.umask(before)
    assert directory.stat().st_mode & 0o777 == 0o700
    assert {path.stat().st_mode & 0o777 for path in directory.iterdir()} == {0o600}


def test_directory_that_others_can_enter_is_closed(disk: DiskCache, directory: Path) -> None:
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    store(disk)
    assert directory.stat().st_mode & 0o777 == 0o700


def test_sticky_directory_is_left_open(disk: DiskCache, directory: Path) -> None:
    directory.mkdir()
    directory.chmod(0o1777)
    store(disk)
    assert directory.stat().st_mode & 0o7777 == 0o1777
    assert disk.load(AT) is not None


def test_agents_share_a_directory_without_touching_each_other(directory: Path) -> None:
    first, second = make(directory, key="first"), make(directory, key="second")
    store(first)
    store(second, NEW)
    store(first)
    second.purge(None)
    copy = first.load(AT)
    assert copy is not None
    assert copy.data == OLD
    assert second.load(AT) is None


def test_two_agents_with_one_artifact_that_write_at_once_leave_a_sound_copy(
    directory: Path,
) -> None:
    agents = [make(directory), make(directory)]
    seen: list[bytes] = []

    def write(disk: DiskCache, data: bytes) -> None:
        for _ in range(20):
            store(disk, data)

    threads = [
        threading.Thread(target=write, args=pair) for pair in zip(agents, (OLD, NEW), strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    copy = make(directory).load(AT)
    assert copy is not None
    seen.append(copy.data)
    assert seen[0] in (OLD, NEW)
    assert len(list(directory.iterdir())) == 2


def test_copy_that_is_replaced_while_it_is_read_is_read_again(directory: Path) -> None:
    class Overtaken(DiskCache):
        def _read(self, path: Path, max_bytes: int) -> bytes | None:
            if path.name.endswith(".artifact.json") and path.exists():
                store(make(directory), NEW)
            return super()._read(path, max_bytes)

    store(make(directory))
    copy = Overtaken(str(directory), key="agent", boot_id="boot-1").load(AT)
    assert copy is not None
    assert copy.data == NEW


# --- how old it is ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("now", "boot_id", "expected_s"),
    [
        (Instant(AT.wall + 5, AT.boot + 50), "boot-1", 50),
        (Instant(AT.wall + 50, AT.boot + 5), "boot-1", 50),
        (Instant(AT.wall - 50, AT.boot + 5), "boot-1", 5),
        (Instant(AT.wall + 5, AT.boot + 50), "boot-2", 5),
        (Instant(AT.wall + 5, 1.0), "boot-2", 5),
        (Instant(AT.wall - 60, 1.0), "boot-2", 0),
        (Instant(AT.wall + 5, AT.boot + 50), "", 5),
    ],
)
def test_age_is_the_larger_of_both_clocks_the_boot_clock_within_one_boot(
    directory: Path, now: Instant, boot_id: str, expected_s: float
) -> None:
    store(make(directory))
    copy = make(directory, boot_id=boot_id).load(now)
    assert copy is not None
    assert copy.age_s == expected_s


def test_boot_clock_does_not_count_where_no_boot_has_a_name(directory: Path) -> None:
    nameless = make(directory, boot_id="")
    store(nameless)
    copy = nameless.load(Instant(AT.wall + 5, AT.boot + 50))
    assert copy is not None
    assert copy.age_s == 5


def test_copy_from_over_a_minute_ahead_is_unusable(disk: DiskCache) -> None:
    store(disk)
    assert disk.load(Instant(AT.wall - 60, AT.boot)) is not None
    with pytest.raises(DiskCopyUnusable):
        disk.load(Instant(AT.wall - 60.1, AT.boot))


# --- what is not believed ---------------------------------------------------------------------


def test_copy_cut_at_any_byte_is_unusable(disk: DiskCache, directory: Path) -> None:
    store(disk)
    path = data_of(directory)
    whole = path.read_bytes()
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(DiskCopyUnusable):
            disk.load(AT)
        assert disk.load_mark() == MARK


def test_record_cut_at_any_byte_is_unusable(disk: DiskCache, directory: Path) -> None:
    store(disk)
    path = record_of(directory)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):  # the last byte is a line feed, and says nothing
        path.write_bytes(whole[:length])
        with pytest.raises(DiskCopyUnusable):
            disk.load(AT)
        with pytest.raises(DiskCopyUnusable):
            disk.load_mark()


def test_copy_with_any_byte_changed_is_unusable(disk: DiskCache, directory: Path) -> None:
    store(disk)
    path = data_of(directory)
    whole = path.read_bytes()
    for position in range(len(whole)):
        altered = bytearray(whole)
        altered[position] ^= 1
        path.write_bytes(altered)
        with pytest.raises(DiskCopyUnusable):
            disk.load(AT)


@pytest.mark.parametrize(
    "text",
    [
        "[]",
        "null",
        "1",
        '{"sha256": 5}',
        '{"sha256": "00"}',
        '{"lastSuccess": {}}',
        '{"sha256": "00", "lastSuccess": {"wall": "1", "boot": 1, "bootId": ""}}',
        '{"sha256": "00", "lastSuccess": {"wall": NaN, "boot": 1, "bootId": ""}}',
        '{"rollback": {"packedAt": 1}}',
        '{"rollback": {"packedAt": "1", "revoked": false}}',
        '{"rollback": null}',
    ],
)
def test_record_of_another_shape_is_unusable(disk: DiskCache, directory: Path, text: str) -> None:
    store(disk)
    record_of(directory).write_text(text)
    with pytest.raises(DiskCopyUnusable):
        disk.load(AT)


def test_record_that_knows_nothing_is_no_copy(disk: DiskCache, directory: Path) -> None:
    store(disk)
    record_of(directory).write_text("{}")
    assert disk.load(AT) is None
    assert disk.load_mark() is None


def test_record_without_its_copy_is_unusable(disk: DiskCache, directory: Path) -> None:
    store(disk)
    data_of(directory).unlink()
    with pytest.raises(DiskCopyUnusable):
        disk.load(AT)


def test_time_in_the_record_that_is_older_makes_the_copy_older(
    disk: DiskCache, directory: Path
) -> None:
    store(disk)
    rewrite(directory, wall=AT.wall - 1e6)
    copy = disk.load(AT)
    assert copy is not None
    assert copy.age_s == 1e6


def open_descriptors() -> int:
    return sum(1 for _ in Path("/dev/fd").iterdir())


def plant_symlink(path: Path) -> None:
    elsewhere = path.with_name("elsewhere")
    path.replace(elsewhere)
    path.symlink_to(elsewhere)


def plant_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path, 0o600)


def plant_directory(path: Path) -> None:
    path.unlink()
    path.mkdir()


def give_away(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file to another user")
    os.chown(path, 12_345, 12_345)


@pytest.mark.parametrize("find", [data_of, record_of])
@pytest.mark.parametrize("plant", [plant_symlink, plant_fifo, plant_directory, give_away])
def test_what_is_not_a_regular_file_of_our_own_is_unusable(
    disk: DiskCache, directory: Path, find: Callable[[Path], Path], plant: Callable[[Path], None]
) -> None:
    store(disk)
    plant(find(directory))
    before = open_descriptors()
    with pytest.raises(DiskCopyUnusable):
        disk.load(AT)
    assert open_descriptors() == before


@pytest.mark.parametrize("find", [data_of, record_of])
@pytest.mark.parametrize("plant", [plant_symlink, plant_fifo, give_away])
def test_what_was_planted_is_replaced_by_the_next_copy(
    disk: DiskCache, directory: Path, find: Callable[[Path], Path], plant: Callable[[Path], None]
) -> None:
    store(disk)
    plant(find(directory))
    store(disk)
    copy = disk.load(AT)
    assert copy is not None
    assert copy.data == OLD


def test_damaged_copy_is_replaced_by_the_next_of_the_same_bytes(
    disk: DiskCache, directory: Path
) -> None:
    store(disk)
    data_of(directory).write_bytes(b"damaged")
    store(disk)
    copy = disk.load(AT)
    assert copy is not None
    assert copy.data == OLD


def test_copy_larger_than_an_artifact_can_be_is_not_read(disk: DiskCache, directory: Path) -> None:
    store(disk)
    os.truncate(data_of(directory), MAX_ARTIFACT_BYTES + 1)
    with pytest.raises(DiskCopyUnusable):
        disk.load(AT)


# --- what cannot be written -------------------------------------------------------------------


def test_file_in_place_of_the_directory_is_an_os_error(directory: Path) -> None:  # case 12
    directory.write_text("not a directory")
    disk = make(directory)
    with pytest.raises(FileExistsError):
        store(disk)
    with pytest.raises(NotADirectoryError):
        disk.load(AT)
    with pytest.raises(FileExistsError):
        disk.purge(MARK)
    disk.purge(None)
    assert directory.read_text() == "not a directory"


@contextlib.contextmanager
def files_of_at_most(max_bytes: int) -> Iterator[None]:
    """Longer writes fail with EFBIG, which root is not exempt from."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (max_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)


def test_write_that_breaks_off_leaves_the_old_copy_and_no_litter(
    disk: DiskCache, directory: Path
) -> None:
    store(disk)
    with files_of_at_most(100), pytest.raises(OSError, match="File too large"):
        disk.store(b"x" * 1000, digest(b"x" * 1000), AT, MARK)
    copy = disk.load(AT)
    assert copy is not None
    assert copy.data == OLD
    assert len(list(directory.iterdir())) == 2


def test_purge_removes_the_copy_even_where_the_record_cannot_be_written(
    disk: DiskCache, directory: Path
) -> None:
    store(disk)
    with files_of_at_most(1), pytest.raises(OSError, match="File too large"):
        disk.purge(RollbackMark(MARK.packed_at, revoked=True))
    assert list(directory.glob("*.artifact.json")) == []
    assert disk.load_mark() == MARK


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("only root can mount a disk of 64 KiB")
    mount = tmp_path / "small"
    mount.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(mount)]
    try:
        made = subprocess.run(command, capture_output=True, check=False)
    except FileNotFoundError:
        pytest.skip("there is no mount command")
    if made.returncode != 0:
        pytest.skip("this container may not mount a disk of 64 KiB")
    try:
        yield mount
    finally:
        subprocess.run(["umount", str(mount)], check=True)


def test_full_disk_leaves_the_old_copy_and_lets_itself_be_purged(small_disk: Path) -> None:
    disk = make(small_disk / "cache")
    store(disk)
    large = os.urandom(1_000_000)
    with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)):
        disk.store(large, digest(large), AT, MARK)
    copy = disk.load(AT)
    assert copy is not None
    assert copy.data == OLD
    disk.purge(MARK)
    assert disk.load(AT) is None


# --- crashes ----------------------------------------------------------------------------------


class PowerCut(BaseException):
    """The process is gone: nothing may happen after this."""


class Saboteur:
    """Ends the "process" before the file operation with number ``dies_at`` under ``directory``.

    It sits in Python's audit events, which announce each operation before it is done. From then on
    it forbids every other one, as there is no tidying up after a crash.
    """

    OPERATIONS = frozenset({"open", "os.mkdir", "os.rename", "os.remove", "os.chmod", "os.scandir"})

    def __init__(self, directory: Path, dies_at: int) -> None:
        self.directory = str(directory)
        self.dies_at = dies_at
        self.log: list[str] = []
        self.is_at_work = False
        sys.addaudithook(self.hear)

    def hear(self, operation: str, arguments: tuple[object, ...]) -> None:
        if not self.is_at_work or operation not in self.OPERATIONS:
            return
        if isinstance(arguments[0], int) or str(arguments[0]).startswith(self.directory):
            self.log.append(operation)
            if len(self.log) > self.dies_at:
                raise PowerCut

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """What runs in here may not survive."""
        self.is_at_work = True
        try:
            with contextlib.suppress(PowerCut):
                yield
        finally:
            self.is_at_work = False


def crashes(work: Callable[[DiskCache], None], directory: Path) -> Iterator[None]:
    """Yields after each crash of ``work``, then after it came to its end."""
    for dies_at in range(100):
        shutil.rmtree(directory, ignore_errors=True)
        store(make(directory))
        saboteur = Saboteur(directory, dies_at)
        with saboteur():
            work(make(directory))
        yield
        if len(saboteur.log) <= dies_at:
            assert dies_at > 4, "there is more to a write than that"
            return
    raise AssertionError("it never came to its end")


def test_crash_at_any_point_of_a_store_leaves_the_old_copy_or_the_new(directory: Path) -> None:
    later = Instant(AT.wall + 10, AT.boot + 10)
    seen = []
    for _ in crashes(lambda disk: store(disk, NEW, later), directory):
        copy = make(directory).load(Instant(AT.wall + 15, AT.boot + 15))
        assert copy is not None
        assert (copy.data, copy.age_s) in ((OLD, 15), (NEW, 5))
        assert make(directory).load_mark() == MARK
        seen.append(copy.data)
    assert seen == sorted(seen, reverse=True)
    assert set(seen) == {OLD, NEW}


def test_crash_at_any_point_of_a_store_leaves_room_for_the_next(directory: Path) -> None:
    for _ in crashes(lambda disk: store(disk, NEW), directory):
        store(make(directory), NEW)
        copy = make(directory).load(AT)
        assert copy is not None
        assert copy.data == NEW
        assert len(list(directory.iterdir())) == 2


def test_crash_at_any_point_of_a_confirmation_leaves_the_old_time_or_the_new(
    directory: Path,
) -> None:
    later = Instant(AT.wall + 10, AT.boot + 10)
    newer = RollbackMark(MARK.packed_at + 1)
    ages = set()
    for _ in crashes(lambda disk: disk.confirm(digest(OLD), later, newer), directory):
        copy = make(directory).load(Instant(AT.wall + 15, AT.boot + 15))
        assert copy is not None
        assert copy.data == OLD
        assert make(directory).load_mark() == (MARK if copy.age_s == 15 else newer)
        ages.add(copy.age_s)
    assert ages == {15, 5}


def test_crash_at_any_point_of_a_purge_leaves_the_mark(directory: Path) -> None:
    outcomes = set()
    for _ in crashes(lambda disk: disk.purge(MARK), directory):
        try:
            copy = make(directory).load(AT)
        except DiskCopyUnusable:
            outcomes.add("unusable")
        else:
            assert copy is None or copy.data == OLD
            outcomes.add("kept" if copy else "gone")
        assert make(directory).load_mark() == MARK
    assert outcomes == {"kept", "unusable", "gone"}


def test_each_rename_is_safe_before_the_next_step_builds_on_it(directory: Path) -> None:
    store(make(directory))
    saboteur = Saboteur(directory, dies_at=1000)

    class Logged(DiskCache):
        def _sync_directory(self) -> None:
            super()._sync_directory()
            saboteur.log.append("sync")

    with saboteur():
        store(Logged(str(directory), key="agent", boot_id="boot-1"), NEW)
    steps = [step for step in saboteur.log if step in ("os.rename", "sync", "os.remove")]
    assert steps == ["os.rename", "sync", "os.rename", "sync", "os.remove"]


def test_copy_is_removed_even_while_somebody_holds_the_lock(
    disk: DiskCache, directory: Path
) -> None:
    store(disk)
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        disk.purge(MARK)
    finally:
        os.close(descriptor)
    assert disk.load(AT) is None
    assert disk.load_mark() == MARK


def test_directory_that_holds_other_things_keeps_its_mode(directory: Path) -> None:
    directory.mkdir(mode=0o755)
    directory.chmod(0o755)
    (directory / "of others").touch()
    store(make(directory))
    assert stat.S_IMODE(directory.stat().st_mode) == 0o755
