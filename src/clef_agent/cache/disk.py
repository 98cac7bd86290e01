"""The last good artifact on disk, as ciphertext, for a start while the source is away.

Two files: the artifact's bytes as fetched, under a name that holds their hash, and a small record
that says which bytes are meant, when they were last confirmed, and the rollback mark. The record
is replaced atomically after the bytes are safe, so that a crash between any two steps leaves
either the old pair or the new one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import hashlib
import json
import os
import secrets
import stat
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from clef_agent.artifact import strict_json
from clef_agent.artifact.model import MAX_ARTIFACT_BYTES, RollbackMark, newest
from clef_agent.clock import Instant
from clef_agent.errors import DiskCopyUnusable

#: A record from further ahead is no clock drift, in seconds.
MAX_AHEAD_S: Final = 60.0
_MAX_RECORD_BYTES: Final = 64 * 1024
_PRIVATE_DIRECTORY: Final = 0o700
_PREFIX: Final = "clef-"
#: How long another agent's lock is waited for, in seconds.
_LOCK_PATIENCE_S: Final = 1.0
_LOCK_RETRY_S: Final = 0.01
#: Reading takes no lock, which might hang: another agent may have replaced the pair half-way.
_READS: Final = 3


@dataclass(frozen=True, slots=True)
class DiskCopy:
    """A copy that was read: ``data`` as once fetched, ``age_s`` since the source confirmed it."""

    data: bytes = field(repr=False)
    age_s: float


class DiskCache:
    """One agent's copy in a directory that agents may share.

    Every method blocks, and may raise OSError: callers run them in a lane of their own, and treat
    a failure as a warning.
    """

    def __init__(self, directory: str, *, key: str, boot_id: str) -> None:
        """``key`` is whatever tells this agent's artifact from others: source, identity,
        environment. ``boot_id`` tells whether a stored boot time can be compared with ours.
        """
        self._directory = Path(directory)
        self._name = _PREFIX + hashlib.sha256(key.encode()).hexdigest()[:32]
        self._boot_id = boot_id

    def store(
        self, data: bytes, digest: str, confirmed: Instant, mark: RollbackMark | None
    ) -> None:
        """Keeps ``data``, confirmed at ``confirmed``; ``digest`` is its hex SHA-256."""
        with self._locked():
            target = self._data_path(digest)
            self._replace(target, data)
            self._write_record(digest, confirmed, mark)
            self._remove_data(keep=target)

    def confirm(self, digest: str, confirmed: Instant, mark: RollbackMark | None) -> None:
        """Notes that the source still has the artifact with ``digest``.

        Raises:
            FileNotFoundError: somebody removed the copy; a record without it would be of no use.
        """
        with self._locked():
            target = self._data_path(digest)
            target.lstat()
            self._write_record(digest, confirmed, mark)
            self._remove_data(keep=target)  # what a crash may have left

    def purge(self, mark: RollbackMark | None) -> None:
        """Removes the artifact; of the record stays the rollback mark, if there is one."""
        if mark is None and not self._directory.is_dir():
            return
        # First of all, and without the lock: nobody who holds it, and no full disk, may keep alive
        # what must not be served any more.
        self._remove_data(keep=None)
        with self._locked():
            self._remove_data(keep=None)
            self._write_record(None, None, mark)

    def load(self, now: Instant) -> DiskCopy | None:
        """The copy, or None where there is none.

        Raises:
            DiskCopyUnusable: there is one, but cut, altered, from the future, or not our own.
        """
        for _ in range(_READS):
            record = self._read_record()
            if record is None or record.digest is None or record.confirmed is None:
                return None
            data = self._read(self._data_path(record.digest), MAX_ARTIFACT_BYTES)
            if data is not None and hashlib.sha256(data).hexdigest() == record.digest:
                return DiskCopy(data, record.age_s(now, self._boot_id))
        raise DiskCopyUnusable("its bytes are not those that its record names")

    def load_mark(self) -> RollbackMark | None:
        """The rollback mark, which outlives the artifact.

        Raises:
            DiskCopyUnusable: there is a record that cannot be read.
        """
        record = self._read_record()
        return None if record is None else record.mark

    # --- files ----------------------------------------------------------------------------------

    def _data_path(self, digest: str) -> Path:
        return self._directory / f"{self._name}-{digest[:16]}.artifact.json"

    def _record_path(self) -> Path:
        return self._directory / f"{self._name}.record.json"

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """The directory, made if need be, with no other agent writing in it.

        Whoever may open the directory may hold the lock, or hang with it: it is waited for a
        little, and then done without. All that it prevents is one agent tidying up behind another.
        """
        self._directory.mkdir(mode=_PRIVATE_DIRECTORY, parents=True, exist_ok=True)
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            self._make_private(descriptor)
            _lock(descriptor)
            yield
            os.fsync(descriptor)  # the removals
        finally:
            os.close(descriptor)

    def _make_private(self, descriptor: int) -> None:
        """Takes the directory from others, if it is ours and holds nothing but copies.

        One that holds more has another purpose; /tmp and its like are sticky.
        """
        found = os.fstat(descriptor)
        mode = stat.S_IMODE(found.st_mode)
        if mode == _PRIVATE_DIRECTORY or found.st_uid != os.geteuid() or mode & stat.S_ISVTX:
            return
        if all(name.startswith(_PREFIX) for name in os.listdir(descriptor)):
            os.fchmod(descriptor, _PRIVATE_DIRECTORY)

    def _write_record(
        self, digest: str | None, confirmed: Instant | None, mark: RollbackMark | None
    ) -> None:
        # A mark never goes back, not even by an agent that shares the directory and lags behind.
        mark = newest(mark, self._known_mark())
        if digest is None and mark is None:
            self._record_path().unlink(missing_ok=True)
            return
        record = _Record(digest, confirmed, self._boot_id, mark)
        self._replace(self._record_path(), record.to_json())

    def _known_mark(self) -> RollbackMark | None:
        try:
            return self.load_mark()
        except DiskCopyUnusable:
            return None  # it is about to be replaced by one that can be read

    def _replace(self, target: Path, data: bytes) -> None:
        """Writes ``target`` so that it is there whole or not at all, whenever the power goes."""
        temporary = target.with_name(f"{target.name}.{secrets.token_hex(8)}.tmp")
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(temporary, flags, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(target)
            self._sync_directory()  # the rename itself, before anything that builds on it
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise

    def _sync_directory(self) -> None:
        descriptor = os.open(self._directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _remove_data(self, keep: Path | None) -> None:
        # Also what a crash left half-written. Nobody else writes these names: we hold the lock.
        for path in self._directory.glob(f"{self._name}*"):
            if path != keep and path != self._record_path():
                path.unlink(missing_ok=True)

    def _read(self, path: Path, max_bytes: int) -> bytes | None:
        try:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(path, flags)
        except FileNotFoundError:
            return None
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise DiskCopyUnusable("it is a symbolic link") from None
            raise
        try:
            found = os.fstat(descriptor)
            if not stat.S_ISREG(found.st_mode) or found.st_uid != os.geteuid():
                # Its times would be believed: whoever could plant a file would set the clock.
                raise DiskCopyUnusable("it is not a regular file of our own")
            with open(descriptor, "rb", closefd=False) as file:
                data = file.read(max_bytes + 1)
        finally:
            os.close(descriptor)
        if len(data) > max_bytes:
            raise DiskCopyUnusable("it is larger than any that we write")
        return data

    def _read_record(self) -> _Record | None:
        data = self._read(self._record_path(), _MAX_RECORD_BYTES)
        return None if data is None else _Record.from_json(data)


@dataclass(frozen=True, slots=True)
class _Record:
    """What stands beside the artifact's bytes. ``digest`` None: only the mark is left."""

    digest: str | None
    confirmed: Instant | None
    boot_id: str
    mark: RollbackMark | None

    def to_json(self) -> bytes:
        document: dict[str, object] = {}
        if self.digest is not None and self.confirmed is not None:
            document["sha256"] = self.digest
            document["lastSuccess"] = {
                "wall": self.confirmed.wall,
                "boot": self.confirmed.boot,
                "bootId": self.boot_id,
            }
        if self.mark is not None:
            document["rollback"] = {
                "packedAt": self.mark.packed_at,
                "revoked": self.mark.revoked,
            }
        return json.dumps(document, indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes) -> _Record:
        try:
            document = strict_json.loads(data)
        except ValueError:
            raise DiskCopyUnusable("its record is broken") from None
        if not isinstance(document, dict):
            raise DiskCopyUnusable("its record is broken")
        mark: RollbackMark | None = None
        match document:
            case {"rollback": {"packedAt": int() | float() as packed_at, "revoked": bool(revoked)}}:
                mark = RollbackMark(packed_at, revoked)
            case {"rollback": _}:
                raise DiskCopyUnusable("its record is broken")
        match document:
            case {
                "sha256": str(digest),
                "lastSuccess": {
                    "wall": int() | float() as wall,
                    "boot": int() | float() as boot,
                    "bootId": str(boot_id),
                },
            }:
                return cls(digest, Instant(wall, boot), boot_id, mark)
            case {"sha256": _} | {"lastSuccess": _}:
                raise DiskCopyUnusable("its record is broken")
        return cls(None, None, "", mark)

    def age_s(self, now: Instant, boot_id: str) -> float:
        """Since the last success, the larger of what both clocks say.

        The boot clock counts only within the same boot.
        """
        assert self.confirmed is not None
        if self.confirmed.wall > now.wall + MAX_AHEAD_S:
            raise DiskCopyUnusable("its time lies in the future")
        age_s = max(now.wall - self.confirmed.wall, 0.0)
        if boot_id and boot_id == self.boot_id:
            age_s = max(age_s, now.boot - self.confirmed.boot)
        return age_s


def _lock(descriptor: int) -> None:
    deadline = time.monotonic() + _LOCK_PATIENCE_S
    while time.monotonic() < deadline:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(_LOCK_RETRY_S)
        else:
            return
