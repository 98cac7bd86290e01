"""Telemetry as the rest of the agent knows it: it listens to events, and can be flushed.

What sends is in :mod:`clef_agent.telemetry.sending`, and is loaded only where a collector is
configured.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Protocol

if TYPE_CHECKING:
    from clef_agent.telemetry import events
    from clef_agent.telemetry.credentials import Lookup

#: A shutdown waits no longer for the collector than this, in seconds.
CLOSE_S: Final = 0.9
#: Why records are dropped: the labels of the metric.
DROP_REASONS: Final = ("queue_full", "undelivered", "rejected")


@dataclass(frozen=True, slots=True)
class Counts:
    """What has become of records until now; ``dropped`` is by ``DROP_REASONS``."""

    exported: int
    dropped: Mapping[str, int]


NOTHING_SENT: Final = Counts(0, dict.fromkeys(DROP_REASONS, 0))


class Telemetry(Protocol):
    """Where events go that a fleet wants to know of. Nothing but ``flush`` and ``close`` waits."""

    @property
    def counts(self) -> Counts:
        """What has become of the events until now."""
        ...

    def __call__(self, event: events.Event) -> None:
        """Takes an event; it is sent later."""
        ...

    def adopt(self, lookup: Lookup) -> None:
        """Takes the collector's credentials from an artifact just accepted."""
        ...

    def begin(self) -> None:
        """The first secrets can be served: from now on events are sent."""
        ...

    def hurry(self) -> None:
        """Sends what there is without waiting for more."""
        ...

    async def flush(self, timeout_s: float) -> None:
        """Waits until all that has happened is told, ``timeout_s`` at most."""
        ...

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """As ``flush``; nothing is sent afterwards."""
        ...


class NoTelemetry:
    """Where none is configured."""

    counts = NOTHING_SENT

    def __call__(self, event: events.Event) -> None:
        """Nothing."""

    def adopt(self, lookup: Lookup) -> None:
        """Nothing."""

    def begin(self) -> None:
        """Nothing."""

    def hurry(self) -> None:
        """Nothing."""

    async def flush(self, timeout_s: float) -> None:
        """Nothing."""

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """Nothing."""
