"""Two clocks that disagree usefully: wall time, and time since boot that suspends count in.

Source: clock_gettime(2), https://man7.org/linux/man-pages/man2/clock_gettime.2.html
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import NamedTuple, Protocol


class Instant(NamedTuple):
    """One moment on both clocks, in seconds: ``wall`` since 1970 UTC, ``boot`` since boot."""

    wall: float
    boot: float

    def age_s(self, now: Instant) -> float:
        """Seconds from this moment to ``now``, the larger of what both clocks say.

        A clock set back cannot make a thing younger, because the boot clock ran on; a frozen or
        suspended process cannot either, because the wall clock did.
        """
        return max(now.boot - self.boot, now.wall - self.wall)


class Pause(NamedTuple):
    """``length_s`` seconds from ``since`` on, over as soon as either clock says so.

    By the boot clock alone, a pause that a frozen sandbox sleeps through would only begin then.
    """

    since: Instant
    length_s: float

    def left_s(self, now: Instant) -> float:
        """Seconds that are left of it at ``now``; 0 or less when it is over."""
        return self.length_s - self.since.age_s(now)


class Clock(Protocol):
    """Where the time comes from; tests pass one of their own."""

    def now(self) -> Instant:
        """The present moment on both clocks."""
        ...


class SystemClock:
    """The machine's clocks; CLOCK_MONOTONIC stands in where CLOCK_BOOTTIME is missing (macOS)."""

    def __init__(self) -> None:
        self._boot_clock: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)

    def now(self) -> Instant:
        """The present moment on both clocks."""
        return Instant(time.time(), time.clock_gettime(self._boot_clock))


def boot_id() -> str:
    """A word that changes with each boot, or "" where the system has none.

    Source: random(4), /proc/sys/kernel/random/boot_id
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    except OSError:
        return ""
