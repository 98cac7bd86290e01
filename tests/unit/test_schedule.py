from __future__ import annotations

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.schedule import (
    MAX_RETRY_AFTER_S,
    Schedule,
    interval_s,
    patience_s,
)

intervals = st.floats(1, 86_400)
seeds = st.integers(0, 2**32)


@pytest.mark.parametrize(
    ("ttl_s", "expected_s"), [(30, 5), (50, 5), (300, 30), (600, 60), (86_400, 60)]
)
def test_interval_is_a_tenth_of_the_ttl_held_between_5_and_60_seconds(
    ttl_s: int, expected_s: float
) -> None:
    assert interval_s(ttl_s=ttl_s, configured_s=None, source_is_file=False) == expected_s


def test_configured_interval_is_taken_as_it_is() -> None:
    assert interval_s(ttl_s=300, configured_s=120, source_is_file=False) == 120


def test_just_in_time_mode_polls_every_5_seconds() -> None:
    assert interval_s(ttl_s=0, configured_s=None, source_is_file=False) == 5


def test_just_in_time_mode_polls_as_configured() -> None:
    assert interval_s(ttl_s=0, configured_s=40, source_is_file=False) == 40


@pytest.mark.parametrize("configured_s", [None, 60])
def test_a_file_is_looked_at_every_second(configured_s: int | None) -> None:
    assert interval_s(ttl_s=300, configured_s=configured_s, source_is_file=True) == 1


@given(intervals, seeds)
def test_jitter_stays_within_ten_percent(interval: float, seed: int) -> None:
    delay_s = Schedule(interval, Random(seed)).delay_after_success_s(None)
    assert interval * 0.9 <= delay_s <= interval * 1.1


def test_jitter_spreads_over_its_whole_range() -> None:
    schedule = Schedule(100, Random(1))
    delays = [schedule.delay_after_success_s(None) for _ in range(1000)]
    assert min(delays) < 91
    assert max(delays) > 109


@given(seeds)
def test_success_is_never_followed_sooner_than_5_seconds(seed: int) -> None:
    assert Schedule(5, Random(seed)).delay_after_success_s(None) >= 5


@given(intervals, seeds, st.floats(0, 1e9))
def test_poll_comes_before_80_percent_of_the_time_to_expiry_unless_below_5_seconds(
    interval: float, seed: int, until_expiry_s: float
) -> None:
    schedule = Schedule(interval, Random(seed))
    for delay_s in (
        schedule.delay_after_success_s(until_expiry_s),
        schedule.first_delay_s(until_expiry_s),
    ):
        assert delay_s <= max(until_expiry_s * 0.8, 5)


@pytest.mark.parametrize("until_expiry_s", [60 * 86_400.0, 1e9, 1e308, float("inf")])
def test_expiry_far_away_does_not_replace_the_polling(until_expiry_s: float) -> None:  # case 14
    assert 27 <= Schedule(30, Random(1)).delay_after_success_s(until_expiry_s) <= 33


@pytest.mark.parametrize("until_expiry_s", [-1e9, -1.0, 0.0, 1e-9])
def test_expiry_in_the_past_does_not_poll_faster_than_5_seconds(
    until_expiry_s: float,
) -> None:  # case 14
    assert Schedule(30, Random(1)).delay_after_success_s(until_expiry_s) == 5


def test_first_poll_is_spread_over_a_whole_interval() -> None:
    schedule = Schedule(60, Random(1))
    delays = [schedule.first_delay_s(None) for _ in range(1000)]
    assert min(delays) < 1
    assert max(delays) > 59
    assert 28 < sum(delays) / len(delays) < 32


def test_backoff_doubles_from_one_second_up_to_the_interval() -> None:
    schedule = Schedule(30, Random(1))
    delays = [schedule.delay_after_failure_s(failures) for failures in range(1, 9)]
    for delay_s, base_s in zip(delays, [1, 2, 4, 8, 16, 30, 30, 30], strict=True):
        assert base_s * 0.9 <= delay_s <= base_s * 1.1


def test_backoff_with_the_same_seed_is_the_same() -> None:
    first, second = (Schedule(30, Random(5)) for _ in range(2))
    assert [first.delay_after_failure_s(n) for n in range(1, 9)] == [
        second.delay_after_failure_s(n) for n in range(1, 9)
    ]


def test_backoff_of_a_file_stays_at_a_second() -> None:
    assert Schedule(1, Random(1)).delay_after_failure_s(10) <= 1.1


@given(st.integers(1, 10**9), intervals, seeds)
def test_backoff_never_overflows_nor_exceeds_the_interval(
    failures: int, interval: float, seed: int
) -> None:
    delay_s = Schedule(interval, Random(seed)).delay_after_failure_s(failures)
    assert 0.9 <= delay_s <= interval * 1.1


@given(st.integers(1, 20), st.floats(0, MAX_RETRY_AFTER_S), seeds)
def test_retry_after_is_obeyed_and_at_most_a_tenth_later(
    failures: int, retry_after_s: float, seed: int
) -> None:
    delay_s = Schedule(30, Random(seed)).delay_after_failure_s(failures, retry_after_s)
    assert retry_after_s <= delay_s <= max(retry_after_s, 30) * 1.1


@pytest.mark.parametrize("retry_after_s", [MAX_RETRY_AFTER_S, 1e9, float("inf")])
def test_retry_after_beyond_an_hour_counts_as_an_hour(retry_after_s: float) -> None:
    assert patience_s(retry_after_s) == 3600
    assert 3600 <= Schedule(30, Random(1)).delay_after_failure_s(1, retry_after_s) <= 3960


@pytest.mark.parametrize("retry_after_s", [None, 0.0, -5.0])
def test_retry_after_of_nothing_asks_for_nothing(retry_after_s: float | None) -> None:
    assert patience_s(retry_after_s) == 0
    assert Schedule(30, Random(1)).delay_after_failure_s(1, retry_after_s) <= 1.1
