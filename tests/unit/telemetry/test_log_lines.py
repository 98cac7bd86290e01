from __future__ import annotations

import logging

import pytest

from clef_agent.telemetry import events
from clef_agent.telemetry.log_lines import LogLines
from fakes import FakeClock

FAILED = events.FetchFailed("no route", "Check it.", disk_copy_available=False)
CONFIRMED = events.ArtifactConfirmed("r1", 0.1)


def refreshed(*, from_disk: bool = False, key_count: int = 3) -> events.ArtifactRefreshed:
    return events.ArtifactRefreshed(
        identity="api-gateway",
        environment="production",
        revision="r1",
        key_count=key_count,
        kms_envelope=False,
        from_disk=from_disk,
        fetch_s=0.1,
        decrypt_s=0.1,
        expires_at=None,
    )


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
def lines(clock: FakeClock, caplog: pytest.LogCaptureFixture) -> LogLines:
    caplog.set_level(logging.DEBUG, "clef_agent")
    return LogLines(clock)


@pytest.mark.parametrize(
    ("event", "level", "line"),
    [
        (
            refreshed(),
            logging.INFO,
            "artifact loaded: revision=r1 with 3 secrets for api-gateway/production",
        ),
        (
            refreshed(from_disk=True, key_count=1),
            logging.WARNING,
            (
                "artifact loaded from the copy on disk: revision=r1 with 1 secret"
                " for api-gateway/production"
            ),
        ),
        (CONFIRMED, logging.DEBUG, "artifact unchanged: revision=r1"),
        (events.AgentStarted("1.2.3"), logging.DEBUG, "started: version=1.2.3"),
        (
            events.AgentStopped("signal", 61.7),
            logging.DEBUG,
            "stopped: reason=signal after 62 s",
        ),
        (
            events.ArtifactRevoked("2027-01-15"),
            logging.ERROR,
            (
                "artifact revoked: reason=revoked revokedAt=2027-01-15;"
                " what was held is wiped, and nothing is served until a new one comes"
            ),
        ),
        (
            events.ArtifactExpired("2027-01-15"),
            logging.ERROR,
            (
                "artifact expired: reason=expired expiresAt=2027-01-15;"
                " what was held is wiped, and nothing is served until a new one comes"
            ),
        ),
        (
            events.ArtifactInvalid("decrypt", "no key opens it", "Check the key.", "ab"),
            logging.ERROR,
            "artifact rejected: reason=decrypt: no key opens it. Check the key.",
        ),
        (FAILED, logging.ERROR, "fetch failed: reason=fetch_failed: no route. Check it."),
        (
            events.CacheExpired(300.0, disk_copy_purged=True),
            logging.ERROR,
            (
                "cache expired: no successful refresh for 300 s;"
                " what was held is wiped, and nothing is served until the source answers"
            ),
        ),
        (events.DiskCopyFailed("the disk is full"), logging.WARNING, "the disk is full"),
    ],
)
def test_each_event_has_its_line(
    lines: LogLines,
    caplog: pytest.LogCaptureFixture,
    event: events.Event,
    level: int,
    line: str,
) -> None:
    lines(event)
    assert [(r.levelno, r.getMessage()) for r in caplog.records] == [(level, line)]


def test_the_same_trouble_is_told_once_a_minute(
    lines: LogLines, clock: FakeClock, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(120):
        lines(FAILED)
        clock.advance(1)
    assert len(caplog.records) == 2


def test_another_trouble_is_told_at_once(lines: LogLines, caplog: pytest.LogCaptureFixture) -> None:
    lines(FAILED)
    lines(events.DiskCopyFailed("the disk is full"))
    lines(FAILED)
    assert len(caplog.records) == 3


def test_after_good_news_the_same_trouble_is_news_again(
    lines: LogLines, caplog: pytest.LogCaptureFixture
) -> None:
    for event in (FAILED, refreshed(), FAILED):
        lines(event)
    assert len(caplog.records) == 3


def test_a_percent_sign_in_an_artifact_is_only_a_percent_sign(
    lines: LogLines, caplog: pytest.LogCaptureFixture
) -> None:
    lines(events.ArtifactRevoked("%s %d %(name)s"))
    assert "%s %d %(name)s" in caplog.text


def rejected(digest: str) -> events.ArtifactInvalid:
    return events.ArtifactInvalid("decrypt", "no key opens it", "Check the key.", digest)


def test_another_artifact_with_the_same_fault_is_told_of(
    lines: LogLines, caplog: pytest.LogCaptureFixture
) -> None:
    for digest in ("aa", "aa", "bb"):
        lines(rejected(digest))
    assert len(caplog.records) == 2


def test_the_same_rejection_is_news_after_the_good_artifact_was_confirmed(
    lines: LogLines, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="clef_agent")
    lines(rejected("aa"))
    lines(events.ArtifactConfirmed("r1", 0.1))
    lines(rejected("aa"))
    assert len(caplog.records) == 2
