"""Keeps the copy on disk in step with what is held, without anybody waiting for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Final, Protocol, TypeVar

from clef_agent.artifact.model import RollbackMark
from clef_agent.clock import Instant
from clef_agent.errors import DiskCopyUnusable
from clef_agent.lane import Lane, LaneBlocked

if TYPE_CHECKING:
    from clef_agent.cache.disk import DiskCache, DiskCopy

#: A disk that takes longer counts as hung, in seconds.
_DISK_DEADLINE_S: Final = 5.0

T = TypeVar("T")


class CopyKeeper(Protocol):
    """The copy of the last good artifact. ``keep``, ``confirm`` and ``purge`` never block."""

    #: Whether copies are kept at all.
    enabled: bool

    def keep(self, data: bytes, digest: str, at: Instant, mark: RollbackMark | None) -> None:
        """An artifact was accepted at ``at``; ``digest`` is the hex SHA-256 of ``data``."""
        ...

    def adopt(self, digest: str) -> None:
        """What is held now came from the copy itself."""
        ...

    def confirm(self, at: Instant, mark: RollbackMark | None) -> None:
        """The source still has what was kept last."""
        ...

    def purge(self, mark: RollbackMark | None) -> None:
        """Nothing may be kept but the rollback mark."""
        ...

    async def load(self, now: Instant) -> DiskCopy | None:
        """The copy, or None where there is none.

        Raises:
            DiskCopyUnusable: it cannot be read in time, or not be believed.
        """
        ...

    async def load_mark(self) -> RollbackMark | None:
        """The rollback mark, or None. Raises as ``load`` does."""
        ...

    async def settle(self, deadline_s: float) -> None:
        """Waits until the disk has what was last asked for, or the deadline passes."""
        ...


class NoCopy:
    """Where no copies are kept: the source is a file, or no directory is configured."""

    enabled = False

    def keep(self, data: bytes, digest: str, at: Instant, mark: RollbackMark | None) -> None:
        """Nothing."""

    def adopt(self, digest: str) -> None:
        """Nothing."""

    def confirm(self, at: Instant, mark: RollbackMark | None) -> None:
        """Nothing."""

    def purge(self, mark: RollbackMark | None) -> None:
        """Nothing."""

    async def load(self, now: Instant) -> DiskCopy | None:  # noqa: ARG002  # the protocol's
        """None."""
        return None

    async def load_mark(self) -> RollbackMark | None:
        """None."""
        return None

    async def settle(self, deadline_s: float) -> None:
        """Nothing."""


@dataclass(frozen=True, slots=True)
class _Wanted:
    """What the disk should hold. ``data`` is None once it is there; ``digest`` None: nothing."""

    digest: str | None
    mark: RollbackMark | None
    at: Instant | None = None
    data: bytes | None = field(default=None, repr=False)


class BackgroundKeeper:
    """Writes through a lane of its own; while one write is under way, only the newest wish counts.

    ``warn`` is told of a failure in words, once until a write succeeds again. ``deadline_s`` is
    after how long a disk counts as hung, in seconds.
    """

    enabled = True

    def __init__(
        self,
        disk: DiskCache,
        warn: Callable[[str], None],
        *,
        deadline_s: float = _DISK_DEADLINE_S,
    ) -> None:
        self._disk = disk
        self._warn = warn
        self._deadline_s = deadline_s
        self._lane = Lane("disk")
        self._wanted = _Wanted(None, None)
        self._writing: asyncio.Task[None] | None = None
        self._has_warned = False

    def keep(self, data: bytes, digest: str, at: Instant, mark: RollbackMark | None) -> None:
        """See CopyKeeper."""
        self._want(_Wanted(digest, mark, at, data))

    def adopt(self, digest: str) -> None:
        """See CopyKeeper."""
        self._wanted = _Wanted(digest, None)

    def confirm(self, at: Instant, mark: RollbackMark | None) -> None:
        """See CopyKeeper."""
        self._want(replace(self._wanted, at=at, mark=mark))

    def purge(self, mark: RollbackMark | None) -> None:
        """See CopyKeeper."""
        self._want(_Wanted(None, mark))

    @property
    def has_failed(self) -> bool:
        """Whether the disk lacks what was last asked for."""
        return self._has_warned

    async def load(self, now: Instant) -> DiskCopy | None:
        """See CopyKeeper."""
        return await self._read(lambda: self._disk.load(now))

    async def load_mark(self) -> RollbackMark | None:
        """See CopyKeeper."""
        return await self._read(self._disk.load_mark)

    async def settle(self, deadline_s: float) -> None:
        """See CopyKeeper."""
        if self._writing is not None:
            await asyncio.wait([self._writing], timeout=deadline_s)

    async def _read(self, call: Callable[[], T]) -> T:
        try:
            return await self._lane.run(call, deadline_s=self._deadline_s)
        except OSError as exc:  # LaneBlocked is one, by way of TimeoutError
            raise DiskCopyUnusable(f"it cannot be read: {_why(exc)}") from None

    def _want(self, wanted: _Wanted) -> None:
        self._wanted = wanted
        if self._writing is None or self._writing.done():
            self._writing = asyncio.get_running_loop().create_task(self._write_until_settled())

    async def _write_until_settled(self) -> None:
        written: _Wanted | None = None
        while written is not self._wanted:
            written = self._wanted
            try:
                await self._lane.run(lambda w=written: self._write(w), deadline_s=self._deadline_s)  # type: ignore[misc]  # mypy cannot infer a lambda's default
            except OSError as exc:
                if not self._has_warned:
                    self._has_warned = True
                    self._warn(f"the copy on disk could not be written: {_why(exc)}")
            else:
                self._has_warned = False
                if self._wanted is written:
                    # Not the bytes: they are on disk now, and up to 32 MiB here.
                    self._wanted = written = replace(written, data=None)
                elif self._wanted.digest == written.digest:
                    self._wanted = replace(self._wanted, data=None)

    def _write(self, wanted: _Wanted) -> None:
        if wanted.digest is None:
            self._disk.purge(wanted.mark)
        elif wanted.at is None:
            pass  # it came from there, and the source has not confirmed it yet
        elif wanted.data is not None:
            self._disk.store(wanted.data, wanted.digest, wanted.at, wanted.mark)
        else:
            self._disk.confirm(wanted.digest, wanted.at, wanted.mark)


class MarkKeeper:
    """Keeps the rollback mark alone: what is in a file needs no copy, but must not go back."""

    enabled = False

    def __init__(self, keeper: BackgroundKeeper) -> None:
        self._keeper = keeper
        self._kept: RollbackMark | None = None

    def keep(self, data: bytes, digest: str, at: Instant, mark: RollbackMark | None) -> None:  # noqa: ARG002  # the protocol's
        """Keeps ``mark``."""
        self.purge(mark)

    def adopt(self, digest: str) -> None:
        """Nothing: no copy is ever loaded."""

    def confirm(self, at: Instant, mark: RollbackMark | None) -> None:  # noqa: ARG002  # the protocol's
        """Keeps ``mark``."""
        self.purge(mark)

    def purge(self, mark: RollbackMark | None) -> None:
        """Keeps ``mark``, if it is news: a file is looked at every second."""
        if mark != self._kept or self._keeper.has_failed:
            self._kept = mark
            self._keeper.purge(mark)

    async def load(self, now: Instant) -> DiskCopy | None:  # noqa: ARG002  # the protocol's
        """None."""
        return None

    async def load_mark(self) -> RollbackMark | None:
        """See CopyKeeper."""
        return await self._keeper.load_mark()

    async def settle(self, deadline_s: float) -> None:
        """See CopyKeeper."""
        await self._keeper.settle(deadline_s)


def _why(exc: OSError) -> str:
    if isinstance(exc, LaneBlocked):
        return str(exc)
    return exc.strerror or type(exc).__name__
