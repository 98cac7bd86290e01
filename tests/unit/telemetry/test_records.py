from __future__ import annotations

import pytest

from clef_agent import __version__
from clef_agent.telemetry import events
from clef_agent.telemetry.records import Origin, Record, record_of

REFRESHED = events.ArtifactRefreshed(
    identity="api-gateway",
    environment="production",
    revision="r1",
    key_count=3,
    kms_envelope=True,
    from_disk=False,
    fetch_s=0.25,
    decrypt_s=0.5,
    expires_at=None,
)


@pytest.mark.parametrize(
    ("event", "record"),
    [
        (
            events.AgentStarted("1.2.3"),
            Record("agent.started", "INFO", {"version": "1.2.3"}),
        ),
        (
            events.AgentStopped("signal", 61.7),
            Record("agent.stopped", "INFO", {"reason": "signal", "uptimeSeconds": 62}),
        ),
        (
            REFRESHED,
            Record(
                "artifact.refreshed", "INFO", {"revision": "r1", "keyCount": 3, "kmsEnvelope": True}
            ),
        ),
        (
            events.ArtifactRevoked("2027-01-15"),
            Record("artifact.revoked", "WARN", {"revokedAt": "2027-01-15"}),
        ),
        (
            events.ArtifactExpired("2027-01-15"),
            Record("artifact.expired", "WARN", {"expiresAt": "2027-01-15"}),
        ),
        (
            events.FetchFailed("no route", "Check it.", disk_copy_available=True),
            Record("fetch.failed", "WARN", {"error": "no route", "diskCacheAvailable": True}),
        ),
        (
            events.CacheExpired(300.0, disk_copy_purged=False),
            Record("cache.expired", "ERROR", {"cacheTtlSeconds": 300, "diskCachePurged": False}),
        ),
        (
            events.ArtifactInvalid("decrypt", "no key opens it", "Check the key.", "ab"),
            Record("artifact.invalid", "ERROR", {"reason": "decrypt", "error": "no key opens it"}),
        ),
    ],
)
def test_each_event_has_the_name_severity_and_attributes_of_the_table(
    event: events.Event, record: Record
) -> None:
    found = record_of(event)
    assert found == record
    assert {name: type(value) for name, value in found.attributes.items()} == {
        name: type(value) for name, value in record.attributes.items()
    }


@pytest.mark.parametrize(
    "event", [events.ArtifactConfirmed("r1", 0.5), events.DiskCopyFailed("disk full")]
)
def test_what_is_no_news_to_a_fleet_is_no_record(event: events.Event) -> None:
    assert record_of(event) is None


def test_whoever_writes_the_store_cannot_break_or_bloat_a_record() -> None:
    record = record_of(events.ArtifactRevoked("\ud800\n" + "x" * 100_000))
    assert record is not None
    text = record.attributes["revokedAt"]
    assert isinstance(text, str)
    assert text.startswith("\\ud800\\nxxx")
    assert len(text.encode()) < 5000


def test_a_resource_says_who_sends_and_for_whom() -> None:
    origin = Origin("agent-7", "http", "api-gateway", "production")
    assert origin.attributes() == {
        "service.name": "clef-agent",
        "service.version": __version__,
        "clef.agent.id": "agent-7",
        "clef.identity": "api-gateway",
        "clef.environment": "production",
        "clef.source.type": "http",
    }


def test_before_the_first_artifact_it_is_not_known_for_whom() -> None:
    attributes = Origin("agent-7", "file").attributes()
    assert attributes["clef.identity"] == attributes["clef.environment"] == "unknown"
