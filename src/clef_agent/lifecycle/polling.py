"""Looks for a new artifact, again and again, and never lets one outstay its time."""

from __future__ import annotations

import asyncio
import contextlib
import math
from typing import Final

from clef_agent.cache.memory import Memory
from clef_agent.clock import Clock
from clef_agent.refresh import Outcome, Refresher

#: So that a timer that fires a hair early does not find the moment still ahead, in seconds.
_MARGIN_S: Final = 0.005


class Polling:
    """The timer of an agent that runs by itself.

    It goes by each refresh that ends, whoever asked for it: a failure that a request met is
    followed up as soon as one of its own. While a refresh is under way it goes on wiping what
    passes its time, for a source may take long to say nothing.
    """

    def __init__(self, refresher: Refresher, memory: Memory, clock: Clock) -> None:
        self._refresher = refresher
        self._memory = memory
        self._clock = clock
        self._stirred = asyncio.Event()
        self._due = math.inf
        self._asking: asyncio.Task[Outcome] | None = None  # held, or it might be collected

    def wake(self) -> None:
        """Looks now, whatever the schedule says."""
        self._due = -math.inf
        self._stirred.set()

    @property
    def is_awaited(self) -> bool:
        """Whether somebody has asked for a look that has not begun yet."""
        return self._due == -math.inf

    async def run(self) -> None:
        """Polls until cancelled."""
        loop = asyncio.get_running_loop()
        self._due = min(self._due, loop.time() + self._refresher.delay_s(first=True))
        self._refresher.when_landed(self._plan)
        while True:
            self._stirred.clear()
            self._refresher.enforce()
            left_s = self._due - loop.time()
            if self._refresher.is_under_way:
                left_s = math.inf  # one at a time: the next is planned when this one has landed
            elif left_s <= 0:
                self._due = left_s = math.inf
                self._asking = loop.create_task(self._refresher.refresh())
            await self._pause(left_s)

    def _plan(self) -> None:
        """Sets the next look by the refresh that has just ended."""
        if not self.is_awaited:
            self._due = asyncio.get_running_loop().time() + self._refresher.delay_s()
        self._stirred.set()

    async def _pause(self, left_s: float) -> None:
        """Waits until something stirs, a look is due, or what is held passes its time."""
        trusted_s = self._memory.seconds_left(self._clock.now())
        if trusted_s is not None:
            left_s = min(left_s, trusted_s + _MARGIN_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s if left_s < math.inf else None):
                await self._stirred.wait()
