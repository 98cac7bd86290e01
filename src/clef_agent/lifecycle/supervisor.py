"""Whoever started the process, and wants to hear how it fares."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from clef_agent.errors import ClefError
from clef_agent.provider import Status


class Supervisor(Protocol):
    """What a lifecycle tells whoever supervises the process.

    Telling waits for nobody and never raises: the agent serves as well when nobody listens.
    """

    def retrying(self, in_s: float) -> None:
        """The first load failed, and is tried again in ``in_s`` seconds."""
        ...

    def serving(self, status: Status) -> None:
        """The first load, or a refresh, has ended, and ``status`` is what came of it.

        The first one, and the first one after ``reloading``, say that the agent is ready.
        """
        ...

    def reloading(self) -> None:
        """What was configured is read anew; ``serving`` follows."""
        ...

    def stopping(self, because: ClefError | None = None) -> None:
        """The process is about to end, ``because`` serving is pointless, or else by request."""
        ...

    async def watch(self, is_healthy: Callable[[], bool]) -> None:
        """Gives a sign of life again and again while ``is_healthy``, until cancelled."""
        ...


class Unsupervised:
    """Nobody wants to hear anything."""

    def retrying(self, in_s: float) -> None:
        """Nothing."""

    def serving(self, status: Status) -> None:
        """Nothing."""

    def reloading(self) -> None:
        """Nothing."""

    def stopping(self, because: ClefError | None = None) -> None:
        """Nothing."""

    async def watch(self, is_healthy: Callable[[], bool]) -> None:
        """Nothing."""


UNSUPERVISED: Final = Unsupervised()
