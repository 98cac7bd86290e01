"""Events as log records of OpenTelemetry, in plain values: what each is called, and what it says.

Source: https://opentelemetry.io/docs/specs/otel/logs/data-model/
and, for names and attributes, the events of @clef-sh/agent, which this one replaces.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal, TypeAlias

from clef_agent import __version__
from clef_agent.log import one_line
from clef_agent.telemetry import events

Severity: TypeAlias = Literal["INFO", "WARN", "ERROR"]
Value: TypeAlias = str | int | bool

#: Before every name of ours, so that it collides with nobody's.
PREFIX: Final = "clef."


@dataclass(frozen=True, slots=True)
class Record:
    """One event. ``name`` and the names of ``attributes`` are without ``PREFIX``."""

    name: str
    severity: Severity
    attributes: Mapping[str, Value]


@dataclass(frozen=True, slots=True)
class Origin:
    """Who sends, and whose artifact was held by then; "unknown" before the first one."""

    agent_id: str
    source_type: str
    identity: str = "unknown"
    environment: str = "unknown"

    def attributes(self) -> dict[str, str]:
        """The resource of OpenTelemetry."""
        return {
            "service.name": "clef-agent",
            "service.version": __version__,
            "clef.agent.id": one_line(self.agent_id),
            "clef.identity": one_line(self.identity),
            "clef.environment": one_line(self.environment),
            "clef.source.type": self.source_type,
        }


def record_of(event: events.Event) -> Record | None:
    """The record of ``event``, or None for what is not news to a fleet."""
    match event:
        case events.AgentStarted():
            return _record("agent.started", "INFO", version=event.version)
        case events.AgentStopped():
            uptime_s = round(event.uptime_s)
            return _record("agent.stopped", "INFO", reason=event.reason, uptimeSeconds=uptime_s)
        case events.ArtifactRefreshed():
            return _record(
                "artifact.refreshed",
                "INFO",
                revision=event.revision,
                keyCount=event.key_count,
                kmsEnvelope=event.kms_envelope,
            )
        case events.ArtifactRevoked():
            return _record("artifact.revoked", "WARN", revokedAt=event.revoked_at)
        case events.ArtifactExpired():
            return _record("artifact.expired", "WARN", expiresAt=event.expires_at)
        case events.FetchFailed():
            has_copy = event.disk_copy_available
            return _record("fetch.failed", "WARN", error=event.error, diskCacheAvailable=has_copy)
        case events.CacheExpired():
            return _record(
                "cache.expired",
                "ERROR",
                cacheTtlSeconds=round(event.cache_ttl_s),
                diskCachePurged=event.disk_copy_purged,
            )
        case events.ArtifactInvalid():
            return _record("artifact.invalid", "ERROR", reason=event.reason, error=event.error)
    return None


def _record(name: str, severity: Severity, **attributes: Value) -> Record:
    return Record(name, severity, {key: _bounded(value) for key, value in attributes.items()})


def _bounded(value: Value) -> Value:
    # A half of a surrogate pair, as a path may have it, would keep a whole batch from being sent.
    return one_line(value) if isinstance(value, str) else value
