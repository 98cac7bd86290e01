"""An artifact in a local file, such as a mounted Secret or what another process writes."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from clef_agent.clock import Clock, SystemClock
from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.lane import Lane, LaneBlocked
from clef_agent.sources.base import (
    FETCH_DEADLINE_S,
    MAX_FETCH_BYTES,
    Fetched,
    NotModified,
    SourceType,
    Validator,
)

_CHUNK_BYTES = 1024 * 1024

#: How often a file that changes under our hands is read again, and the pause before that.
_ATTEMPTS = 5
_PAUSE_S = 0.02

#: File times are as coarse as this (FAT; the kernel's own tick is some milliseconds): what was
#: changed more recently can change once more without a trace in its times.
#: Source: https://git-scm.com/docs/racy-git
_TIMES_SETTLE_S = 2.0


#: What waiting does not mend: a part of the path is a file, or it is no path at all.
_FINAL = frozenset({errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG, errno.EISDIR, errno.ENXIO})


class _NotRegular(ValueError):
    """The path names a directory, a pipe, a socket or a device."""


class FileSource:
    """One file, by its path. Replacing it by a rename is safe, and the right way to do it."""

    type: SourceType = "file"
    is_remote = False

    def __init__(
        self,
        path: str,
        *,
        deadline_s: float = FETCH_DEADLINE_S,
        max_bytes: int = MAX_FETCH_BYTES,
        clock: Clock | None = None,
    ) -> None:
        self._path = path
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        # A file system can hang: the loop must not, nor may each poll leave a thread behind.
        self._lane = Lane("source")
        self._turn = asyncio.Lock()

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        """The file's content, unless its stat is still that of ``previous``.

        Raises:
            SourceMissing: no such file, in a directory that is there.
            SourceDenied: it may not be read.
            SourceTooLarge: it exceeds the size cap.
            SourceBusy: it was changed each time while it was read.
            SourceUnreachable: the file system does not answer, or fails.
            SourceUnusable: its directory is missing, or it is no regular file.
        """
        read = partial(self._fetch, previous, self._clock.now().wall)
        try:
            async with self._turn:
                return await self._lane.run(read, deadline_s=self._deadline_s)
        except LaneBlocked as exc:
            raise SourceUnreachable(f"{self._path}: {exc}") from exc

    def describe(self) -> str:
        """The path."""
        return self._path

    def warm_up(self) -> None:
        """Nothing has to be loaded."""

    async def aclose(self) -> None:
        """Nothing is held open."""

    def _fetch(self, previous: Validator | None, wall: float) -> Fetched | NotModified:
        try:
            known = _Stamp.of(previous)
            is_same = known is not None and known.times == _regular(Path(self._path).stat())
            if known is not None and is_same and known.digest is None:
                return NotModified()
            data, status = self._read()
        except (OSError, ValueError) as exc:
            raise self._failure(exc) from exc
        stamp = _Stamp.made(data, status, wall)
        # When the times have settled, it is handed out once more, with a stamp that from then on
        # saves the reading.
        return NotModified() if is_same and stamp == known else Fetched(data, stamp.validator())

    def _read(self) -> tuple[bytes, os.stat_result]:
        """The content, and the stat that it had from the first byte to the last."""
        for attempt in range(_ATTEMPTS):
            if attempt:
                time.sleep(_PAUSE_S)
            # Before it is opened, too: opening a device can have effects.
            _regular(Path(self._path).stat())
            # Nothing that took the file's place meanwhile can make opening wait.
            fd = os.open(self._path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
            try:
                before = os.fstat(fd)
                times = _regular(before)
                data = self._read_all(fd)
                if _regular(os.fstat(fd)) == times:
                    return data, before
            finally:
                os.close(fd)
        raise SourceBusy(f"{self._path} was changed each time while it was read")

    def _read_all(self, fd: int) -> bytes:
        data = bytearray()
        while len(data) <= self._max_bytes:
            chunk = os.read(fd, min(_CHUNK_BYTES, self._max_bytes + 1 - len(data)))
            if not chunk:
                return bytes(data)
            data += chunk
        raise SourceTooLarge(f"{self._path} is larger than {self._max_bytes} bytes")

    def _failure(self, exc: OSError | ValueError) -> SourceError:
        why = exc.strerror if isinstance(exc, OSError) else None
        message = f"{self._path}: {why or exc}"
        if isinstance(exc, FileNotFoundError):
            directory = Path(self._path).parent
            if not directory.exists():
                return SourceUnusable(f"{self._path}: there is no directory {directory}")
            return SourceMissing(message)
        if isinstance(exc, PermissionError):
            return SourceDenied(message)
        if isinstance(exc, OSError) and exc.errno not in _FINAL:
            return SourceUnreachable(message)
        return SourceUnusable(message)


@dataclass(frozen=True, slots=True)
class _Stamp:
    """What a file is recognised by: device, inode, size, and the times of its last changes.

    While its times have not settled, the digest of what was read belongs to it.
    """

    times: str
    digest: str | None

    @classmethod
    def made(cls, data: bytes, status: os.stat_result, wall: float) -> _Stamp:
        # The change time: no rsync and no cp -p can set it to the past.
        has_settled = wall - status.st_ctime >= _TIMES_SETTLE_S
        return cls(_regular(status), None if has_settled else hashlib.sha256(data).hexdigest())

    @classmethod
    def of(cls, validator: Validator | None) -> _Stamp | None:
        if validator is None:
            return None
        times, _, digest = validator.token.partition(" ")
        return cls(times, digest or None)

    def validator(self) -> Validator:
        return Validator(f"{self.times} {self.digest or ''}")


def _regular(status: os.stat_result) -> str:
    """The stat as text, for comparing.

    Raises:
        _NotRegular: it is no regular file. A pipe or a device could block, or never end.
    """
    if not stat.S_ISREG(status.st_mode):
        raise _NotRegular(
            "it is a directory" if stat.S_ISDIR(status.st_mode) else "it is no regular file"
        )
    parts = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return "-".join(map(str, parts))
