from __future__ import annotations

from dataclasses import replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clef_agent import __version__
from clef_agent.telemetry import events
from clef_agent.telemetry.base import Counts
from clef_agent.telemetry.metrics import CONTENT_TYPE, Gauges, Metrics
from fakes import NOW

READY = Gauges(mode="cached", ready=True, last_success_age_s=12.5)


def refreshed(
    *, key_count: int = 3, expires_at: float | None = NOW, from_disk: bool = False
) -> events.ArtifactRefreshed:
    return events.ArtifactRefreshed(
        identity="api-gateway",
        environment="production",
        revision="r1",
        key_count=key_count,
        kms_envelope=False,
        from_disk=from_disk,
        fetch_s=0.25,
        decrypt_s=0.5,
        expires_at=expires_at,
    )


def samples(metrics: Metrics, gauges: Gauges = READY) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *(sample.labels[name] for name in sorted(sample.labels))): sample.value
        for family in text_string_to_metric_families(metrics.render(gauges).decode())
        for sample in family.samples
    }


def test_the_content_type_is_that_of_the_text_format() -> None:
    assert CONTENT_TYPE == "text/plain; version=0.0.4; charset=utf-8"


def test_a_new_agent_has_every_result_at_zero() -> None:
    found = samples(Metrics(), Gauges(mode="jit", ready=False, last_success_age_s=None))
    results = ("changed", "unchanged", "rejected", "revoked", "expired", "fetch_failed")
    assert {name[1] for name in found if name[0] == "clef_agent_refreshes_total"} == set(results)
    assert all(found["clef_agent_refreshes_total", result] == 0 for result in results)
    assert found["clef_agent_info", "jit", __version__] == 1
    assert found["clef_agent_ready",] == found["clef_agent_secrets",] == 0
    assert ("clef_agent_last_success_age_seconds",) not in found
    assert ("clef_agent_artifact_expiry_timestamp_seconds",) not in found


def test_each_event_is_counted_by_its_result() -> None:
    metrics = Metrics()
    for event in (
        refreshed(),
        events.ArtifactConfirmed("r1", 0.75),
        events.ArtifactConfirmed("r1", 1.0),
        events.ArtifactInvalid("decrypt", "no key opens it", "Check the key.", "ab"),
        events.FetchFailed("no route", "Check it.", disk_copy_available=True),
        events.DiskCopyFailed("disk full"),
    ):
        metrics(event)
    found = samples(metrics)
    assert found["clef_agent_refreshes_total", "changed"] == 1
    assert found["clef_agent_refreshes_total", "unchanged"] == 2
    assert found["clef_agent_refreshes_total", "rejected"] == 1
    assert found["clef_agent_refreshes_total", "fetch_failed"] == 1
    assert found["clef_agent_disk_copy_failures_total",] == 1
    assert found["clef_agent_secrets",] == 3
    assert found["clef_agent_artifact_expiry_timestamp_seconds",] == NOW
    assert found["clef_agent_last_success_age_seconds",] == 12.5
    assert found["clef_agent_fetch_duration_seconds_count",] == 3
    assert found["clef_agent_fetch_duration_seconds_sum",] == 2.0
    assert found["clef_agent_decrypt_duration_seconds_count",] == 1
    assert found["clef_agent_decrypt_duration_seconds_sum",] == 0.5


@pytest.mark.parametrize(
    ("event", "name"),
    [
        (events.ArtifactRevoked("2027-01-15"), ("clef_agent_refreshes_total", "revoked")),
        (events.ArtifactExpired("2027-01-15"), ("clef_agent_refreshes_total", "expired")),
        (events.CacheExpired(300, disk_copy_purged=True), ("clef_agent_cache_expirations_total",)),
    ],
)
def test_after_a_wipe_nothing_is_held(event: events.Event, name: tuple[str, ...]) -> None:
    metrics = Metrics()
    metrics(refreshed())
    metrics(event)
    found = samples(metrics)
    assert found[name] == 1
    assert found["clef_agent_secrets",] == 0
    assert ("clef_agent_artifact_expiry_timestamp_seconds",) not in found


def test_an_artifact_without_expiry_takes_the_last_ones_away() -> None:
    metrics = Metrics()
    metrics(refreshed())
    metrics(refreshed(expires_at=None))
    assert ("clef_agent_artifact_expiry_timestamp_seconds",) not in samples(metrics)


# case 13
def test_taking_the_copy_on_disk_is_no_refresh_and_has_no_duration() -> None:
    metrics = Metrics()
    metrics(events.FetchFailed("no route", "Check it.", disk_copy_available=True))
    metrics(refreshed(from_disk=True))
    found = samples(metrics)
    assert found["clef_agent_refreshes_total", "fetch_failed"] == 1
    assert found["clef_agent_refreshes_total", "changed"] == 0
    assert found["clef_agent_disk_copy_loads_total",] == 1
    assert found["clef_agent_fetch_duration_seconds_count",] == 0
    assert found["clef_agent_decrypt_duration_seconds_count",] == 0
    assert found["clef_agent_secrets",] == 3
    assert found["clef_agent_artifact_expiry_timestamp_seconds",] == NOW


def test_what_became_of_telemetry_is_counted_and_zero_where_there_is_none() -> None:
    reasons = ("queue_full", "undelivered", "rejected")
    found = samples(Metrics())
    assert found["clef_agent_telemetry_exported_total",] == 0
    assert all(found["clef_agent_telemetry_dropped_total", reason] == 0 for reason in reasons)
    counts = Counts(7, {"queue_full": 1, "undelivered": 2, "rejected": 3})
    found = samples(Metrics(), replace(READY, telemetry=counts))
    assert found["clef_agent_telemetry_exported_total",] == 7
    dropped = [found["clef_agent_telemetry_dropped_total", reason] for reason in reasons]
    assert dropped == [1, 2, 3]


def test_decryptions_for_requests_count_too() -> None:
    metrics = Metrics()
    metrics(refreshed())
    metrics.decrypted(0.25)
    found = samples(metrics)
    assert found["clef_agent_decrypt_duration_seconds_count",] == 2
    assert found["clef_agent_decrypt_duration_seconds_sum",] == 0.75
    assert found["clef_agent_fetch_duration_seconds_count",] == 1


def test_requests_are_labelled_by_route_and_status() -> None:
    metrics = Metrics()
    metrics.requests["/v1/secrets/{key}", 200] += 2
    metrics.requests["other", 404] += 1
    found = samples(metrics)
    assert found["clef_agent_requests_total", "/v1/secrets/{key}", "200"] == 2
    assert found["clef_agent_requests_total", "other", "404"] == 1


def test_nothing_of_an_artifact_is_a_label() -> None:
    metrics = Metrics()
    metrics(refreshed())
    metrics(events.ArtifactInvalid("decrypt", "no key opens it", "Check the key.", "ab"))
    text = metrics.render(READY).decode()
    for word in ("api-gateway", "production", "r1", "no key"):
        assert word not in text
