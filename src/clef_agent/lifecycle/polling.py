"""Looks for a new artifact, again and again, and never lets one outstay its time."""

from __future__ import annotations

import asyncio
from typing import Final

from clef_agent.cache.memory import Memory
from clef_agent.clock import Clock
from clef_agent.refresh import Refresher

#: So that a timer that fires a hair early does not find the moment still ahead, in seconds.
_MARGIN_S: Final = 0.005


class Polling:
    """The timer of an agent that runs by itself."""

    def __init__(self, refresher: Refresher, memory: Memory, clock: Clock) -> None:
        self._refresher = refresher
        self._memory = memory
        self._clock = clock
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """Looks now, whatever the schedule says."""
        self._woken.set()

    async def run(self) -> None:
        """Polls until cancelled."""
        delay_s = self._refresher.delay_s(first=True)
        while True:
            woken = await self._pause(delay_s)
            # A request may have failed since, and earned the source some peace.
            backoff_s = self._refresher.backoff_left_s()
            if backoff_s > 0 and not woken:
                delay_s = backoff_s
                continue
            await self._refresher.refresh()
            delay_s = self._refresher.delay_s()

    async def _pause(self, delay_s: float) -> bool:
        """Waits, wiping on the way what passes its time; returns whether it was woken."""
        loop = asyncio.get_running_loop()
        due = loop.time() + delay_s
        while not self._woken.is_set():
            self._refresher.enforce()
            left_s = due - loop.time()
            if left_s <= 0:
                return False
            trusted_s = self._memory.seconds_left(self._clock.now())
            if trusted_s is not None:
                left_s = min(left_s, trusted_s + _MARGIN_S)
            try:
                async with asyncio.timeout(left_s):
                    await self._woken.wait()
            except TimeoutError:
                continue
        self._woken.clear()
        return True
