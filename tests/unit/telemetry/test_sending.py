from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from clef_agent.telemetry import events
from clef_agent.telemetry.base import NOTHING_SENT, NoTelemetry, Telemetry
from clef_agent.telemetry.collector import read_collector
from clef_agent.telemetry.records import Origin
from clef_agent.telemetry.sending import OtlpTelemetry
from fakes import NOW, FakeClock
from otlp_collector import Collector, collecting

FAILED = events.FetchFailed("no route", "Check it.", disk_copy_available=False)
REVOKED = events.ArtifactRevoked("2027-01-15")
PATIENCE_S = 20.0


def refreshed(identity: str) -> events.ArtifactRefreshed:
    return events.ArtifactRefreshed(
        identity=identity,
        environment="production",
        revision="r1",
        key_count=3,
        kms_envelope=False,
        from_disk=False,
        fetch_s=0.25,
        decrypt_s=0.5,
        expires_at=None,
    )


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting(Collector()) as collector:
        yield collector


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def telemetry(collector: Collector, clock: FakeClock) -> Iterator[OtlpTelemetry]:
    to, _ = read_collector(collector.origin + "/v1/logs", {})
    telemetry = OtlpTelemetry(to, Origin("agent-7", "http"), clock)
    yield telemetry
    collector.released.set()
    asyncio.run(telemetry.close())


def test_an_event_keeps_its_moment_and_whose_it_was(
    telemetry: OtlpTelemetry, collector: Collector, clock: FakeClock
) -> None:
    telemetry(REVOKED)
    clock.advance(10)
    telemetry(refreshed("first"))
    clock.advance(10)
    telemetry(refreshed("second"))
    telemetry(events.ArtifactConfirmed("r1", 0.5))
    asyncio.run(telemetry.flush(PATIENCE_S))
    assert [record.time_s for record in collector.records] == [NOW, NOW + 10, NOW + 20]
    identities = [record.resource["clef.identity"] for record in collector.records]
    assert identities == ["unknown", "first", "second"]
    assert telemetry.counts.exported == 3


def test_nothing_is_sent_before_the_beginning(
    telemetry: OtlpTelemetry, collector: Collector
) -> None:
    telemetry(REVOKED)
    assert telemetry._outbox._thread is None
    telemetry.begin()
    telemetry.hurry()
    asyncio.run(telemetry.flush(PATIENCE_S))
    assert collector.names == ["artifact.revoked"]


def test_a_failure_is_a_beginning(telemetry: OtlpTelemetry, collector: Collector) -> None:
    telemetry(FAILED)
    deadline = time.monotonic() + PATIENCE_S
    while not collector.posts and time.monotonic() < deadline:
        time.sleep(0.01)
    assert collector.names == ["fetch.failed"]


# case 16
def test_a_flush_waits_as_long_as_agreed_and_the_loop_not_at_all(
    telemetry: OtlpTelemetry, collector: Collector
) -> None:
    collector.hangs = True

    async def flush() -> int:
        ticks = 0

        async def tick() -> None:
            nonlocal ticks
            while True:
                await asyncio.sleep(0.005)
                ticks += 1

        ticking = asyncio.create_task(tick())
        await telemetry.flush(0.3)
        ticking.cancel()
        return ticks

    telemetry(REVOKED)
    began = time.monotonic()
    assert asyncio.run(flush()) >= 2  # many more where the machine is idle; a held loop has none
    assert 0.3 <= time.monotonic() - began < PATIENCE_S / 2
    assert telemetry.counts.exported == 0


def test_a_flush_with_nothing_to_tell_starts_nothing(telemetry: OtlpTelemetry) -> None:
    asyncio.run(telemetry.flush(PATIENCE_S))
    assert telemetry.counts == NOTHING_SENT


def test_where_there_is_no_collector_nothing_happens() -> None:
    telemetry: Telemetry = NoTelemetry()
    telemetry(FAILED)
    telemetry.adopt(lambda _: None)
    telemetry.begin()
    telemetry.hurry()
    asyncio.run(telemetry.flush(1))
    asyncio.run(telemetry.close())
    assert telemetry.counts == NOTHING_SENT
