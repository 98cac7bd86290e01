"""The timer, on a loop whose time jumps from one timer to the next."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

from clef_agent.clock import Instant
from clef_agent.errors import ArtifactExpired, CacheExpired
from clef_agent.lifecycle.polling import Polling
from clef_agent.telemetry import events
from fakes import NOW, FakeClock, packed
from refresh_fakes import FakeSource, Rig, Setup, in_virtual_time, unreachable

DAY_S = 24 * 3600.0


class LoopClock(FakeClock):
    """Both clocks run with the loop."""

    def now(self) -> Instant:
        passed_s = asyncio.get_running_loop().time()
        return Instant(self.wall + passed_s, self.boot + passed_s)


@contextlib.asynccontextmanager
async def polling(rig: Rig) -> AsyncIterator[Polling]:
    """``rig``, loaded and polling."""
    await rig.refresh()
    timer = Polling(rig.refresher, rig.memory, rig.clock)
    task = asyncio.create_task(timer.run())
    try:
        yield timer
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


def set_up(data: bytes, *, ttl_s: int = 300, interval_s: float = 30.0) -> Rig:
    source = FakeSource(data)
    return Setup(source=source, clock=LoopClock(), ttl_s=ttl_s, interval_s=interval_s).rig()


@in_virtual_time
async def test_the_source_is_asked_once_an_interval() -> None:
    rig = set_up(packed())
    async with polling(rig):
        await asyncio.sleep(3600)
    assert 105 <= len(rig.source.requests) <= 140


# case 14
@in_virtual_time
async def test_an_expiry_far_away_changes_nothing_of_that() -> None:
    rig = set_up(packed(expires_at=NOW + 60 * DAY_S))
    async with polling(rig):
        await asyncio.sleep(3600)
    assert 105 <= len(rig.source.requests) <= 140


# case 2
@in_virtual_time
async def test_an_artifact_is_wiped_when_it_expires_and_not_at_the_next_poll() -> None:
    rig = set_up(packed(expires_at=NOW + 100), interval_s=60)
    async with polling(rig):
        await asyncio.sleep(99.9)
        assert rig.memory.why_not(rig.clock.now()) is None
        await asyncio.sleep(0.2)
        assert rig.memory.held is None
        assert rig.memory.why_not(rig.clock.now()) is ArtifactExpired
        assert len(rig.recorder.of(events.ArtifactExpired)) >= 1


# case 10
@in_virtual_time
async def test_the_ttl_wipes_on_time_and_the_next_success_serves_again() -> None:
    rig = set_up(packed(), ttl_s=100)
    async with polling(rig):
        rig.source.failure = unreachable()
        await asyncio.sleep(99.9)
        assert rig.memory.held is not None
        await asyncio.sleep(0.2)
        assert rig.memory.why_not(rig.clock.now()) is CacheExpired
        assert len(rig.recorder.of(events.CacheExpired)) == 1
        rig.source.failure = None
        await asyncio.sleep(60)
        assert rig.memory.why_not(rig.clock.now()) is None


@in_virtual_time
async def test_failures_are_spaced_wider_and_wider_up_to_the_interval() -> None:
    rig = set_up(packed())
    async with polling(rig):
        rig.source.failure = unreachable()
        await asyncio.sleep(30)
        known = len(rig.source.requests)
        assert known <= 7
        await asyncio.sleep(3600)
        assert len(rig.source.requests) - known <= 140


@in_virtual_time
async def test_the_source_is_left_in_peace_for_as_long_as_it_asks() -> None:
    rig = set_up(packed())
    async with polling(rig):
        rig.source.failure = unreachable(retry_after_s=600)
        await asyncio.sleep(40)
        assert len(rig.source.requests) == 2
        await asyncio.sleep(540)
        assert len(rig.source.requests) == 2
        await asyncio.sleep(120)
        assert len(rig.source.requests) == 3


@in_virtual_time
async def test_who_wakes_the_timer_gets_a_poll_at_once() -> None:
    rig = set_up(packed(), interval_s=60)
    async with polling(rig) as timer:
        await asyncio.sleep(0.001)
        asked = len(rig.source.requests)
        timer.wake()
        await asyncio.sleep(0.001)
        assert len(rig.source.requests) == asked + 1
        timer.wake()
        await asyncio.sleep(0.001)
        assert len(rig.source.requests) == asked + 2


@in_virtual_time
async def test_a_request_that_failed_since_puts_the_poll_off() -> None:
    rig = set_up(packed(), interval_s=60)
    async with polling(rig):
        rig.source.failure = unreachable(retry_after_s=100)
        await asyncio.sleep(0.001)
        await rig.refresh()
        asked = len(rig.source.requests)
        await asyncio.sleep(99)
        assert len(rig.source.requests) == asked
        await asyncio.sleep(15)
        assert len(rig.source.requests) == asked + 1


@in_virtual_time
async def test_a_failure_that_somebody_else_met_is_followed_up_soon() -> None:
    rig = set_up(packed(), interval_s=60)
    async with polling(rig):
        rig.source.failure = unreachable()
        await asyncio.sleep(0.001)
        await rig.refresh()
        asked = len(rig.source.requests)
        await asyncio.sleep(1.2)
        assert len(rig.source.requests) == asked + 1


@in_virtual_time
async def test_an_artifact_that_somebody_else_fetched_sets_the_next_look_by_its_expiry() -> None:
    rig = set_up(packed(), interval_s=60)
    async with polling(rig):
        await asyncio.sleep(61)
        now = asyncio.get_running_loop().time()
        rig.source.data = packed(expires_at=NOW + now + 10)
        await rig.refresh()
        asked = len(rig.source.requests)
        await asyncio.sleep(8.5)
        assert len(rig.source.requests) == asked + 1


@in_virtual_time
async def test_what_passes_its_time_is_wiped_while_the_source_is_silent() -> None:
    rig = set_up(packed(expires_at=NOW + 100), interval_s=60)
    async with polling(rig) as timer:
        await asyncio.sleep(95)
        rig.source.gate = asyncio.Event()
        timer.wake()
        await asyncio.sleep(4.9)
        assert rig.memory.held is not None
        await asyncio.sleep(0.2)
        assert rig.memory.held is None


@in_virtual_time
async def test_who_wakes_the_timer_during_a_look_gets_another_one_after_it() -> None:
    rig = set_up(packed(), interval_s=60)
    async with polling(rig) as timer:
        await asyncio.sleep(0.001)
        rig.source.gate = asyncio.Event()
        timer.wake()
        await asyncio.sleep(0.001)
        asked = len(rig.source.requests)
        timer.wake()
        await asyncio.sleep(1)
        assert len(rig.source.requests) == asked
        await asyncio.sleep(14.5)
        assert len(rig.source.requests) == asked + 1


@in_virtual_time
async def test_a_look_is_awaited_from_being_asked_for_until_it_begins() -> None:
    rig = set_up(packed(), interval_s=60)
    seen = []
    async with polling(rig) as timer:
        await asyncio.sleep(0.001)
        seen.append(timer.is_awaited)
        rig.source.gate = asyncio.Event()
        timer.wake()
        seen.append(timer.is_awaited)
        await asyncio.sleep(0.001)
        seen.append(timer.is_awaited)
        timer.wake()  # the look under way may have begun with what was configured before
        await asyncio.sleep(1)
        seen.append(timer.is_awaited)
        rig.source.gate.set()
        await asyncio.sleep(0.001)
        seen.append(timer.is_awaited)
    assert seen == [False, True, False, True, False]
