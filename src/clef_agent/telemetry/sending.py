"""Telemetry that is sent to a collector, from a thread of its own."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Final

from clef_agent.clock import Clock
from clef_agent.lane import Lane, LaneBlocked
from clef_agent.telemetry import events
from clef_agent.telemetry.base import CLOSE_S, Counts
from clef_agent.telemetry.collector import Collector
from clef_agent.telemetry.credentials import Credentials, Lookup
from clef_agent.telemetry.outbox import Outbox, Outcome, Outgoing
from clef_agent.telemetry.records import Origin, record_of

if TYPE_CHECKING:  # the SDK is loaded by the outbox's thread
    from clef_agent.telemetry.otlp import OtlpExporter

#: For a thread to come back whose time is up, in seconds.
_MARGIN_S: Final = 0.05


class OtlpTelemetry:
    """Sends events to a collector, from a thread of its own.

    The SDK is loaded there at the first batch, so that no start waits for it. ``origin`` is who
    sends, and for whom as far as that is known before the first artifact.
    """

    def __init__(self, collector: Collector, origin: Origin, clock: Clock) -> None:
        self._collector = collector
        self._origin = origin
        self._clock = clock
        self._credentials = Credentials(collector)
        self._exporter: OtlpExporter | None = None
        self._outbox = Outbox(self._export, str(collector))
        # Two, because a flush that was given up may still be at it when the end comes.
        self._lane = Lane("telemetry", width=2)

    @property
    def counts(self) -> Counts:
        """See Telemetry."""
        return self._outbox.counts

    def __call__(self, event: events.Event) -> None:
        """See Telemetry."""
        if isinstance(event, events.ArtifactRefreshed):
            self._origin = replace(
                self._origin, identity=event.identity, environment=event.environment
            )
        record = record_of(event)
        if record is not None:
            self._outbox.put(Outgoing(record, self._clock.now().wall, self._origin))
        if isinstance(event, events.FetchFailed | events.ArtifactInvalid):
            # There may be nothing to serve, and soon nobody to tell of it.
            self.begin()

    def adopt(self, lookup: Lookup) -> None:
        """See Telemetry."""
        self._credentials.take(lookup)

    def begin(self) -> None:
        """See Telemetry."""
        self._outbox.begin()

    def hurry(self) -> None:
        """See Telemetry."""
        self._outbox.hurry()

    async def flush(self, timeout_s: float) -> None:
        """See Telemetry."""
        if self._outbox.is_empty:
            return
        with contextlib.suppress(LaneBlocked):
            drain = partial(self._outbox.drain, timeout_s)
            await self._lane.run(drain, deadline_s=timeout_s + _MARGIN_S)

    async def close(self, timeout_s: float = CLOSE_S) -> None:
        """See Telemetry."""
        await self.flush(timeout_s)
        self._outbox.close()

    def _export(self, batch: Sequence[Outgoing]) -> Outcome:
        if self._exporter is None:
            from clef_agent.telemetry.otlp import OtlpExporter

            self._exporter = OtlpExporter(self._collector, self._credentials)
        return self._exporter.export(batch)
