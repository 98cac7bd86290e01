"""SIGTERM and SIGINT, from the first to the last."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Final

from clef_agent.log import LOGGER

_NUMBERS: Final = (signal.SIGTERM, signal.SIGINT)


class StopSignals:
    """The first signal asks the process to leave; a second one ends it at once."""

    def __init__(self) -> None:
        self._asked = asyncio.Event()

    def catch(self) -> None:
        """From now on signals are heeded."""
        loop = asyncio.get_running_loop()
        for number in _NUMBERS:
            loop.add_signal_handler(number, self._heed)

    @property
    def have_come(self) -> bool:
        """Whether the process has been asked to leave."""
        return self._asked.is_set()

    async def wait(self) -> None:
        """Returns after the first signal."""
        await self._asked.wait()

    def leave_to_exit(self, code: int) -> None:
        """The loop is about to end: any signal from now on ends the process with ``code``."""
        loop = asyncio.get_running_loop()
        for number in _NUMBERS:
            # The loop would leave the default behind: to die by the signal, or as PID 1 to go on.
            loop.remove_signal_handler(number)
            signal.signal(number, lambda *_: os._exit(code))

    def _heed(self) -> None:
        if self._asked.is_set():
            # Asked twice: whoever waits for us has no more patience. Nothing is half-written that
            # a rename does not make whole.
            os._exit(0)
        LOGGER.info("stopping")
        self._asked.set()
