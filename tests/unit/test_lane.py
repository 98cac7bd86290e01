from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable

import pytest

from clef_agent.lane import Lane, LaneBlocked


async def until(condition: Callable[[], bool], *, deadline_s: float = 5.0) -> None:
    end = time.monotonic() + deadline_s
    while not condition():
        assert time.monotonic() < end, "it did not come to pass in time"
        await asyncio.sleep(0.001)


async def free(lane: Lane) -> None:
    """Waits until ``lane`` takes calls again."""
    end = time.monotonic() + 5.0
    while True:
        try:
            return await lane.run(lambda: None, deadline_s=5.0)
        except LaneBlocked:
            assert time.monotonic() < end, "the lane did not come free"
            await asyncio.sleep(0.001)


def test_a_call_returns_what_it_returns_and_runs_beside_the_loop() -> None:
    thread = asyncio.run(Lane("disk").run(threading.current_thread, deadline_s=5.0))
    assert thread is not threading.main_thread()
    assert thread.daemon
    assert thread.name == "clef-disk"


def test_a_call_without_a_deadline_is_waited_for() -> None:
    gate = threading.Event()

    async def test() -> bool:
        call = asyncio.ensure_future(Lane("events").run(gate.wait, deadline_s=None))
        done, _ = await asyncio.wait([call], timeout=0.05)
        assert not done
        gate.set()
        return await call

    assert asyncio.run(test())


def test_a_call_raises_what_it_raises() -> None:
    def fail() -> None:
        raise FileNotFoundError("gone")

    async def scenario() -> None:
        lane = Lane("disk")
        with pytest.raises(FileNotFoundError, match="gone"):
            await lane.run(fail, deadline_s=5.0)
        assert await lane.run(lambda: 7, deadline_s=5.0) == 7

    asyncio.run(scenario())


def test_a_call_that_hangs_is_given_up_and_blocks_its_own_lane_only() -> None:
    # case 12
    release = threading.Event()

    async def scenario() -> None:
        lane = Lane("disk")
        with pytest.raises(LaneBlocked, match="took over"):
            await lane.run(release.wait, deadline_s=0.01)
        with pytest.raises(LaneBlocked, match="still hangs"):
            await lane.run(lambda: None, deadline_s=5.0)
        assert await Lane("other").run(lambda: 1, deadline_s=5.0) == 1
        release.set()
        await free(lane)

    asyncio.run(scenario())


def test_a_late_failure_is_dropped_without_a_word() -> None:
    release = threading.Event()
    complaints: list[object] = []

    def fail_late() -> None:
        release.wait()
        raise OSError("too late")

    async def scenario() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, said: complaints.append(said))
        lane = Lane("disk")
        with pytest.raises(LaneBlocked):
            await lane.run(fail_late, deadline_s=0.01)
        release.set()
        await free(lane)

    asyncio.run(scenario())
    assert complaints == []


def test_a_cancelled_caller_leaves_the_lane_usable_once_the_call_is_back() -> None:
    release = threading.Event()

    async def scenario() -> None:
        lane = Lane("disk")
        started = threading.Event()

        def call() -> None:
            started.set()
            release.wait()

        caller = asyncio.create_task(lane.run(call, deadline_s=60.0))
        await until(started.is_set)
        caller.cancel()
        with pytest.raises(asyncio.CancelledError):
            await caller
        with pytest.raises(LaneBlocked):
            await lane.run(lambda: None, deadline_s=5.0)
        release.set()
        await free(lane)

    asyncio.run(scenario())


def test_a_call_that_outlives_its_loop_frees_the_lane_for_the_next() -> None:
    release = threading.Event()
    lane = Lane("disk")

    async def give_up() -> threading.Thread:
        with pytest.raises(LaneBlocked):
            await lane.run(release.wait, deadline_s=0.01)
        (thread,) = (t for t in threading.enumerate() if t.name == "clef-disk")
        return thread

    thread = asyncio.run(give_up())
    release.set()
    thread.join(5.0)
    assert not thread.is_alive()
    assert asyncio.run(lane.run(lambda: "again", deadline_s=5.0)) == "again"


def test_a_thread_that_cannot_start_is_an_error_of_this_call_only(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    lane = Lane("disk")

    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", refuse)
        with pytest.raises(LaneBlocked, match="no thread"):
            asyncio.run(lane.run(lambda: 1, deadline_s=5.0))
    assert asyncio.run(lane.run(lambda: 1, deadline_s=5.0)) == 1


def test_a_wide_lane_takes_so_many_calls_at_once_and_no_more() -> None:
    async def scenario() -> None:
        lane, gate = Lane("key", width=2), threading.Event()
        both = [asyncio.create_task(lane.run(gate.wait, deadline_s=5.0)) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(LaneBlocked):
            await lane.run(lambda: None, deadline_s=5.0)
        gate.set()
        assert await asyncio.gather(*both) == [True, True]
        await free(lane)

    asyncio.run(scenario())
