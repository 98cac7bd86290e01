"""Clocks that jump, and processes that stand still."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from time import time

import pytest

from agent_process import AgentProcess, Response, eventually, wait_for_copy
from artifact_store import ArtifactStore, serving
from fakes import AGE_KEY, PAYLOAD, packed
from shifted_clock import ShiftedClock
from watch import Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the clocks are Linux's")

HOUR_S = 3600
NEW_PAYLOAD = {"app": {"KEY": "new"}}


@dataclass
class Rig:
    agent: AgentProcess
    store: ArtifactStore
    clock: ShiftedClock

    def publish_new(self) -> None:
        self.store.body = packed(NEW_PAYLOAD)

    def serves(self, payload: object) -> bool:
        answer = self.agent.secrets()
        return answer.status == 200 and bool(answer.json == payload)


def environment(store: ArtifactStore, clock: ShiftedClock) -> dict[str, str]:
    return {
        **clock.environment,
        "CLEF_AGENT_SOURCE": store.url,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_POLL_INTERVAL": "5",
    }


@pytest.fixture(params=[True, False], ids=["all clocks", "the wall clock"])
def clock(request: pytest.FixtureRequest, tmp_path: Path) -> ShiftedClock:
    return ShiftedClock(tmp_path, moves_monotonic=request.param)


@pytest.fixture
def rig(tmp_path: Path, clock: ShiftedClock) -> Iterator[Rig]:
    with (
        serving(ArtifactStore(packed())) as store,
        AgentProcess(tmp_path, environment(store, clock)) as agent,
    ):
        agent.wait_until_ready()
        yield Rig(agent, store, clock)


@pytest.mark.parametrize("hours", [1, 24 * 365])
def test_a_jump_ahead_beyond_the_ttl_is_followed_by_a_fetch(rig: Rig, hours: int) -> None:
    with Watch(rig.agent, PAYLOAD, NEW_PAYLOAD) as watch:
        rig.clock.advance(hours * HOUR_S)
        rig.publish_new()
        eventually(lambda: rig.serves(NEW_PAYLOAD), "what the source has")
    assert watch.lost == [], "a request waits for the fetch"


def test_a_jump_ahead_while_the_source_is_away_wipes_until_it_is_back(rig: Rig) -> None:
    rig.store.status = 503
    rig.clock.advance(HOUR_S)
    eventually(lambda: rig.agent.secrets().status == 503, "a wipe")
    assert rig.agent.secrets().json["reason"] == "cache_expired"
    assert rig.agent.request("/v1/health").json["expired"] is True
    rig.store.status = 200
    eventually(lambda: rig.serves(PAYLOAD), "the same bytes again")


@pytest.mark.parametrize("hours", [1, 24 * 365])
def test_a_clock_set_back_extends_nothing_and_stops_nothing(tmp_path: Path, hours: int) -> None:
    clock = ShiftedClock(tmp_path, moves_monotonic=False)
    with (
        serving(ArtifactStore(packed())) as store,
        AgentProcess(tmp_path, environment(store, clock)) as agent,
    ):
        agent.wait_until_ready()
        with Watch(agent, PAYLOAD, NEW_PAYLOAD) as watch:
            clock.advance(-hours * HOUR_S)
            rig = Rig(agent, store, clock)
            rig.publish_new()
            eventually(lambda: rig.serves(NEW_PAYLOAD), "what the source has")
        assert watch.lost == []


def test_an_expiry_that_a_jump_ahead_reaches_is_kept_and_undone_by_the_clock_set_right(
    tmp_path: Path,
) -> None:
    clock = ShiftedClock(tmp_path, moves_monotonic=False)
    body = packed(packed_at=time(), expires_at=time() + HOUR_S)
    with (
        serving(ArtifactStore(body)) as store,
        AgentProcess(tmp_path, environment(store, clock)) as agent,
    ):
        agent.wait_until_ready()
        rig = Rig(agent, store, clock)
        clock.advance(2 * HOUR_S)
        eventually(lambda: agent.secrets().status == 503, "an expiry")
        assert agent.secrets().json["reason"] == "artifact_expired"
        clock.advance(-2 * HOUR_S)
        eventually(lambda: rig.serves(PAYLOAD), "the artifact that has not expired")


def test_a_copy_of_a_time_to_come_is_not_used_at_a_start(tmp_path: Path) -> None:
    clock = ShiftedClock(tmp_path, moves_monotonic=False)
    cache = tmp_path / "cache"
    with serving(ArtifactStore(packed())) as store:
        env = {**environment(store, clock), "CLEF_AGENT_CACHE_PATH": str(cache)}
        with AgentProcess(tmp_path, env) as agent:
            agent.wait_until_ready()
            wait_for_copy(cache)
            assert agent.stop() == 0
        clock.advance(-HOUR_S)
        store.status = 503
        with AgentProcess(tmp_path, env) as agent:
            agent.wait_for("trying again")
            assert agent.secrets().status == 503
            store.status = 200
            agent.wait_until_ready()
            assert agent.secrets().json == PAYLOAD


# --- standing still -----------------------------------------------------------------------------


@pytest.mark.parametrize("seconds", [10, HOUR_S], ids=["within the TTL", "beyond the TTL"])
def test_a_stopped_agent_goes_on_where_it_was(rig: Rig, seconds: float) -> None:
    rig.publish_new()
    rig.clock.pass_in_a_freeze(rig.agent, seconds)
    with Watch(rig.agent, PAYLOAD, NEW_PAYLOAD) as watch:
        eventually(lambda: rig.serves(NEW_PAYLOAD), "what the source has")
    assert watch.lost == []


def test_requests_that_meet_a_stopped_agent_are_answered_when_it_goes_on(rig: Rig) -> None:
    answers: list[Response] = []
    rig.agent.send(signal.SIGSTOP)
    askers = [
        threading.Thread(target=lambda: answers.append(rig.agent.secrets())) for _ in range(50)
    ]
    for asker in askers:
        asker.start()
    rig.agent.send(signal.SIGCONT)
    for asker in askers:
        asker.join(30)
    assert [answer.json for answer in answers] == [PAYLOAD] * 50


def test_an_agent_that_is_stopped_within_a_fetch_fetches_again(rig: Rig) -> None:
    rig.store.hangs = True
    asked = len(rig.store.asked_at)
    asker = threading.Thread(target=rig.agent.refresh, daemon=True)
    asker.start()
    eventually(lambda: len(rig.store.asked_at) > asked, "a fetch")
    rig.clock.pass_in_a_freeze(rig.agent, 60)
    rig.store.hangs = False
    rig.store.released.set()
    rig.publish_new()
    with Watch(rig.agent, PAYLOAD, NEW_PAYLOAD) as watch:
        eventually(lambda: rig.serves(NEW_PAYLOAD), "what the source has")
    asker.join(30)
    assert watch.lost == []


def test_a_process_stopped_again_and_again_serves_in_between(rig: Rig) -> None:
    with Watch(rig.agent, PAYLOAD, NEW_PAYLOAD) as watch:
        for _ in range(20):
            rig.agent.send(signal.SIGSTOP)
            rig.agent.send(signal.SIGCONT)
            assert rig.serves(PAYLOAD)
        rig.publish_new()
        eventually(lambda: rig.serves(NEW_PAYLOAD), "what the source has")
    assert watch.lost == []
