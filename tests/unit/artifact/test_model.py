from __future__ import annotations

import string
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.artifact.model import Expectation, Moment, NotAMoment, RollbackMark, newest

#: 2026-01-01T00:00:00Z
NEW_YEAR = 1_767_225_600.0


@pytest.mark.parametrize(
    ("text", "wall"),
    [
        ("2026-01-01", NEW_YEAR),
        ("2026-01-01T00:00:00Z", NEW_YEAR),
        ("2026-01-01t00:00:00z", NEW_YEAR),
        ("2026-01-01 00:00:00Z", NEW_YEAR),
        ("2026-01-01T00:00:00+00:00", NEW_YEAR),
        ("2026-01-01T00:00:00-00:00", NEW_YEAR),
        ("2026-01-01T01:30:00+01:30", NEW_YEAR),
        ("2025-12-31T12:15:00-11:45", NEW_YEAR),
        ("2026-01-01T00:00:00.250Z", NEW_YEAR + 0.25),
        ("2026-01-01T00:00:00.1234567890123456789Z", NEW_YEAR + 0.1234567890123),
        ("2025-12-31T23:59:60Z", NEW_YEAR),
        ("2025-12-31T23:59:60.9Z", NEW_YEAR),
        ("2026-01-01T05:29:60+05:30", NEW_YEAR),
        ("2024-02-29", 1_709_164_800.0),
        ("1970-01-01T00:00:00Z", 0.0),
        ("0001-01-01T00:00:00Z", -62_135_596_800.0),
        ("0001-01-01T00:00:00+23:59", -62_135_596_800.0 - 86_340),
        ("9999-12-31T23:59:60Z", 253_402_300_800.0),
        ("9999-12-31T23:59:59-23:59", 253_402_300_799.0 + 86_340),
    ],
)
def test_a_date_of_rfc_3339_is_its_instant(text: str, wall: float) -> None:
    moment = Moment.parse(text)
    assert moment.wall == pytest.approx(wall, abs=1e-6)
    assert moment.text == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "2026",
        "2026-01",
        "2026-1-1",
        "20260101",
        "2026-W01-1",
        "2026-001",
        "2026-01-01Z",
        "2026-01-01T",
        "2026-01-01T00:00Z",
        "2026-01-01T00:00:00",
        "2026-01-01T00:00:00.Z",
        "2026-01-01T00:00:00,5Z",
        "2026-01-01T00:00:00+01",
        "2026-01-01T00:00:00+0100",
        "2026-01-01T00:00:00+01:00:00",
        "2026-01-01T00:00:00 Z",
        "2026-01-01T24:00:00Z",
        "2026-01-01T23:60:00Z",
        "2026-01-01T00:00:61Z",
        "2026-01-01T00:00:00+24:00",
        "2026-01-01T00:00:00+00:60",
        "2026-02-29",
        "2026-00-01",
        "2026-13-01",
        "2026-04-31T00:00:00Z",
        "0000-01-01",
        "10000-01-01",
        "+2026-01-01",
        "-001-01-01",
        "2026-01-01\n",
        "\n2026-01-01",
        " 2026-01-01T00:00:00Z",
        "2026-01-01T00:00:00Z\x00",
        "\uff12\uff10\uff12\uff16-01-01",
        "٢٠٢٦-01-01",
        "2026\u201001\u201001",
        "1767225600",
        "Thu, 01 Jan 2026 00:00:00 GMT",
        "never",
        "null",
    ],
)
def test_anything_else_is_no_moment(text: str) -> None:
    # case 2, case 14
    with pytest.raises(NotAMoment):
        Moment.parse(text)


@given(st.text(max_size=30) | st.text(string.digits + "-:.TtZz+ ", max_size=32))
def test_any_text_is_a_moment_or_none(text: str) -> None:
    try:
        wall = Moment.parse(text).wall
    except NotAMoment:
        wall = 0.0
    assert abs(wall) < 1e12


@given(
    st.integers(-62_135_500_000, 253_402_200_000),
    st.integers(-(24 * 60 - 1), 24 * 60 - 1),
)
def test_a_moment_is_the_same_in_every_zone(wall: int, offset_min: int) -> None:
    moment = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=wall)
    there = moment.astimezone(timezone(timedelta(minutes=offset_min)))
    assert Moment.parse(there.isoformat()).wall == wall


@pytest.mark.parametrize(
    ("expected", "identity", "environment", "allowed"),
    [
        (Expectation(), "a", "p", True),
        (Expectation("a"), "a", "p", True),
        (Expectation("a"), "b", "p", False),
        (Expectation(None, "p"), "b", "p", True),
        (Expectation(None, "p"), "b", "q", False),
        (Expectation("a", "p"), "a", "p", True),
        (Expectation("a", "p"), "a", "q", False),
        (Expectation("a", "p"), "A", "p", False),
    ],
)
def test_an_expectation_names_whom_an_artifact_is_for(
    expected: Expectation, identity: str, environment: str, allowed: bool
) -> None:
    assert expected.allows(identity, environment) is allowed


def test_the_newest_mark_is_the_one_that_allows_least() -> None:
    older, newer, revoked = RollbackMark(1), RollbackMark(2), RollbackMark(2, revoked=True)
    assert newest() is newest(None) is None
    assert newest(older, None, newer) is newer
    assert newest(revoked, newer, older) is revoked
    assert newest(RollbackMark(3), revoked) == RollbackMark(3)
