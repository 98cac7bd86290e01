"""The first load, without waiting."""

from __future__ import annotations

import asyncio

import pytest

from clef_agent.errors import (
    ClefError,
    DecryptFailed,
    SourceBusy,
    SourceDenied,
    SourceMissing,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.lifecycle.startup import Retries, first_load
from fakes import OTHER_AGE_RECIPIENT, packed
from refresh_fakes import FakeSource, Rig, Setup, unreachable

USUAL = Retries()


def loaded(
    rig: Rig, *later: Exception | None, retries: Retries = USUAL
) -> tuple[ClefError | None, list[float]]:
    """What the first load returns, and its waits; after each wait the next failure is ``later``."""
    waits: list[float] = []
    failures = iter(later)

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        rig.source.failure = next(failures, rig.source.failure)

    return asyncio.run(first_load(rig.refresher, rig.memory, sleep, retries)), waits


def rig_failing(failure: Exception | None, data: bytes = b"") -> Rig:
    source = FakeSource(data or packed())
    source.failure = failure
    return Setup(source=source).rig()


def test_a_source_that_answers_is_asked_once() -> None:
    rig = rig_failing(None)
    assert loaded(rig) == (None, [])
    assert len(rig.source.requests) == 1


@pytest.mark.parametrize(
    "failure",
    [
        SourceUnreachable("no route"),
        SourceBusy("502"),
        SourceDenied("403"),
        SourceMissing("not packed yet"),
    ],
)
def test_what_may_pass_is_tried_three_times_two_and_four_seconds_apart(failure: ClefError) -> None:
    rig = rig_failing(failure)
    assert loaded(rig) == (failure, [2.0, 4.0])
    assert len(rig.source.requests) == 3


def test_the_failure_of_the_last_attempt_is_the_one_that_is_told() -> None:
    last = SourceDenied("403")
    assert loaded(rig_failing(unreachable()), SourceBusy("502"), last)[0] is last


def test_a_later_attempt_may_succeed() -> None:
    assert loaded(rig_failing(unreachable()), None) == (None, [2.0])


def test_what_waiting_cannot_mend_ends_the_start_at_once() -> None:
    failure = SourceUnusable("no such directory")
    assert loaded(rig_failing(failure)) == (failure, [])
    error, waits = loaded(rig_failing(None, packed(recipient=OTHER_AGE_RECIPIENT)))
    assert (type(error), waits) == (DecryptFailed, [])


def test_a_failure_that_cannot_be_mended_ends_the_start_on_a_later_attempt_too() -> None:
    final = SourceUnusable("a directory")
    assert loaded(rig_failing(unreachable()), final) == (final, [2.0])


@pytest.mark.parametrize(("asked_s", "waits"), [(0.0, 0.0), (7.0, 7.0), (10.0, 10.0), (11.0, 2.0)])
def test_a_retry_after_up_to_ten_seconds_replaces_the_wait(asked_s: float, waits: float) -> None:
    assert loaded(rig_failing(unreachable(asked_s)), None) == (None, [waits])


def test_a_start_with_less_time_tries_again_sooner() -> None:
    retries = Retries(delays_s=(1.0,), max_retry_after_s=2.0)
    failure = unreachable(2.0)
    assert loaded(rig_failing(failure), retries=retries) == (failure, [2.0])
    failure = unreachable(3.0)
    assert loaded(rig_failing(failure), retries=retries) == (failure, [1.0])


# case 12
def test_a_copy_on_disk_ends_the_attempts() -> None:
    setup = Setup(source=FakeSource(packed()))
    assert loaded(setup.rig()) == (None, [])
    setup.source.failure = unreachable()
    restarted = setup.rig()
    assert loaded(restarted) == (None, [])
    assert restarted.memory.held is not None


# case 16
def test_a_source_that_never_answers_is_given_up_three_times() -> None:
    source = FakeSource(packed())

    async def load() -> ClefError | None:
        source.gate = asyncio.Event()
        rig = Setup(source=source, fetch_deadline_s=0.01).rig()
        return await first_load(rig.refresher, rig.memory, lambda _: asyncio.sleep(0))

    assert isinstance(asyncio.run(load()), SourceUnreachable)
    assert len(source.requests) == 3
