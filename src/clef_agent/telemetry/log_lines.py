"""Events as log lines for a person who reads them at night."""

from __future__ import annotations

import logging
from typing import Final

from clef_agent.clock import Clock
from clef_agent.log import LOGGER
from clef_agent.telemetry import events

#: The same trouble is not told of more often, in seconds. A file source is looked at every second.
_REPEAT_AFTER_S: Final = 60.0


class LogLines:
    """Listens to events and writes a line for each that is news."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._last_trouble: events.Event | None = None
        self._last_at = float("-inf")

    def __call__(self, event: events.Event) -> None:
        """Writes one event."""
        level, line = _line(event)
        now = self._clock.now().boot
        if level < logging.WARNING:
            self._last_trouble = None  # after a success the same trouble is news again
        elif event == self._last_trouble and now - self._last_at < _REPEAT_AFTER_S:
            return
        else:
            self._last_trouble, self._last_at = event, now
        LOGGER.log(level, "%s", line)


def _line(event: events.Event) -> tuple[int, str]:
    match event:
        case events.AgentStarted():
            return logging.DEBUG, f"started: version={event.version}"
        case events.AgentStopped():
            return logging.DEBUG, f"stopped: reason={event.reason} after {event.uptime_s:.0f} s"
        case events.ArtifactRefreshed():
            origin = " from the copy on disk" if event.from_disk else ""
            keys = "1 secret" if event.key_count == 1 else f"{event.key_count} secrets"
            return logging.WARNING if event.from_disk else logging.INFO, (
                f"artifact loaded{origin}: revision={event.revision} with {keys}"
                f" for {event.identity}/{event.environment}"
            )
        case events.ArtifactConfirmed():
            return logging.DEBUG, f"artifact unchanged: revision={event.revision}"
        case events.ArtifactRevoked():
            return logging.ERROR, (
                f"artifact revoked: reason=revoked revokedAt={event.revoked_at};"
                " what was held is wiped, and nothing is served until a new one comes"
            )
        case events.ArtifactExpired():
            return logging.ERROR, (
                f"artifact expired: reason=expired expiresAt={event.expires_at};"
                " what was held is wiped, and nothing is served until a new one comes"
            )
        case events.ArtifactInvalid():
            line = f"artifact rejected: reason={event.reason}: {event.error}. {event.hint}"
            return logging.ERROR, line
        case events.FetchFailed():
            return logging.ERROR, f"fetch failed: reason=fetch_failed: {event.error}. {event.hint}"
        case events.CacheExpired():
            return logging.ERROR, (
                f"cache expired: no successful refresh for {event.cache_ttl_s:g} s;"
                " what was held is wiped, and nothing is served until the source answers"
            )
    return logging.WARNING, event.error
