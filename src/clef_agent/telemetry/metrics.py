"""Counts, ages and durations, in plain numbers until somebody asks for them.

prometheus_client is loaded at the first request for metrics: an agent that nobody scrapes pays
nothing for it. No label holds a key's name or anything else that came from an artifact.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from clef_agent import __version__
from clef_agent.telemetry import events
from clef_agent.telemetry.base import NOTHING_SENT, Counts

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric

#: Source: the text exposition format of Prometheus, version 0.0.4
CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"

_RESULTS: Final = {
    events.ArtifactRefreshed: "changed",
    events.ArtifactConfirmed: "unchanged",
    events.ArtifactInvalid: "rejected",
    events.ArtifactRevoked: "revoked",
    events.ArtifactExpired: "expired",
    events.FetchFailed: "fetch_failed",
}


@dataclass(frozen=True, slots=True)
class Gauges:
    """What is read at the moment of asking. Ages in seconds, moments in seconds since 1970."""

    mode: str
    ready: bool
    last_success_age_s: float | None
    telemetry: Counts = NOTHING_SENT


@dataclass(slots=True)
class _Duration:
    count: int = 0
    sum_s: float = 0.0

    def add(self, seconds: float) -> None:
        self.count += 1
        self.sum_s += seconds


class Metrics:
    """Listens to events and requests."""

    def __init__(self) -> None:
        self.requests: Counter[tuple[str, int]] = Counter()
        self._refreshes: Counter[str] = Counter(dict.fromkeys(_RESULTS.values(), 0))
        self._disk_loads = 0
        self._cache_expirations = 0
        self._disk_failures = 0
        self._fetch = _Duration()
        self._decrypt = _Duration()
        self._expires_at: float | None = None
        self._key_count = 0

    def __call__(self, event: events.Event) -> None:
        """Counts one event."""
        result = _RESULTS.get(type(event))
        match event:
            case events.ArtifactRefreshed():
                self._expires_at, self._key_count = event.expires_at, event.key_count
                if event.from_disk:
                    # The refresh behind it has failed, and been counted as that.
                    self._disk_loads += 1
                    return
                self._fetch.add(event.fetch_s)
                self._decrypt.add(event.decrypt_s)
            case events.ArtifactConfirmed():
                self._fetch.add(event.fetch_s)
            case events.CacheExpired():
                self._cache_expirations += 1
                self._expires_at, self._key_count = None, 0
            case events.ArtifactRevoked() | events.ArtifactExpired():
                self._expires_at, self._key_count = None, 0
            case events.DiskCopyFailed():
                self._disk_failures += 1
        if result is not None:
            self._refreshes[result] += 1

    def decrypted(self, seconds: float) -> None:
        """Counts a decryption for one request, in just-in-time mode."""
        self._decrypt.add(seconds)

    def render(self, gauges: Gauges) -> bytes:
        """Everything in Prometheus' text format."""
        from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Once(list(self._families(gauges))))
        ProcessCollector(registry=registry)
        return generate_latest(registry)

    def _families(self, gauges: Gauges) -> Iterator[Metric]:
        from prometheus_client.metrics_core import (
            CounterMetricFamily,
            GaugeMetricFamily,
            InfoMetricFamily,
            SummaryMetricFamily,
        )

        yield InfoMetricFamily(
            "clef_agent", "Version and mode.", {"version": __version__, "mode": gauges.mode}
        )
        yield GaugeMetricFamily(
            "clef_agent_ready", "1 while secrets may be served.", float(gauges.ready)
        )
        yield GaugeMetricFamily(
            "clef_agent_secrets", "Secrets in the artifact held.", self._key_count
        )
        if gauges.last_success_age_s is not None:
            yield GaugeMetricFamily(
                "clef_agent_last_success_age_seconds",
                "Since the source last confirmed the artifact.",
                gauges.last_success_age_s,
            )
        if self._expires_at is not None:
            yield GaugeMetricFamily(
                "clef_agent_artifact_expiry_timestamp_seconds",
                "expiresAt of the artifact held.",
                self._expires_at,
            )
        refreshes = CounterMetricFamily(
            "clef_agent_refreshes", "Refreshes by what came of them.", labels=["result"]
        )
        for result, count in sorted(self._refreshes.items()):
            refreshes.add_metric([result], count)
        yield refreshes
        requests = CounterMetricFamily(
            "clef_agent_requests", "Requests by route and status.", labels=["route", "status"]
        )
        for (route, status), count in sorted(self.requests.items()):
            requests.add_metric([route, str(status)], count)
        yield requests
        yield CounterMetricFamily(
            "clef_agent_cache_expirations",
            "Times that the cache's TTL passed without a success.",
            self._cache_expirations,
        )
        yield CounterMetricFamily(
            "clef_agent_disk_copy_loads", "Times that the copy on disk was taken.", self._disk_loads
        )
        yield CounterMetricFamily(
            "clef_agent_disk_copy_failures", "Faults of the copy on disk.", self._disk_failures
        )
        for name, what, duration in (
            ("fetch", "Fetching from the source.", self._fetch),
            ("decrypt", "Decrypting, and proving a new artifact before.", self._decrypt),
        ):
            yield SummaryMetricFamily(
                f"clef_agent_{name}_duration_seconds", what, duration.count, duration.sum_s
            )
        yield CounterMetricFamily(
            "clef_agent_telemetry_exported",
            "Events that the collector took.",
            gauges.telemetry.exported,
        )
        dropped = CounterMetricFamily(
            "clef_agent_telemetry_dropped", "Events that were not sent.", labels=["reason"]
        )
        for reason, count in sorted(gauges.telemetry.dropped.items()):
            dropped.add_metric([reason], count)
        yield dropped


class _Once:
    """A collector of families that are made already."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families
