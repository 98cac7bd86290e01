"""What an hour in a freeze does to a Lambda extension, whichever of its clocks have seen it."""

from __future__ import annotations

import contextlib
import http.client
import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_process import PATIENCE_S, TOKEN, AgentProcess, eventually
from artifact_store import ArtifactStore
from artifact_store import serving as serving_store
from extensions_api import Sandbox
from extensions_api import serving as serving_sandbox
from fakes import AGE_KEY, PAYLOAD, packed
from shifted_clock import ShiftedClock

# case 17
pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="Lambda is Linux")

HOUR_S = 3600
NEW_PAYLOAD = {"app": {"KEY": "new"}}
NEW = packed(NEW_PAYLOAD)


@dataclass
class Rig:
    """An agent that is idle in a sandbox, and all that it talks to."""

    agent: AgentProcess
    sandbox: Sandbox
    store: ArtifactStore
    clock: ShiftedClock

    def freeze(self, seconds: float = HOUR_S) -> None:
        self.sandbox.ahead_s += seconds
        self.clock.pass_in_a_freeze(self.agent, seconds)

    def pass_time(self, seconds: float) -> None:
        self.sandbox.ahead_s += seconds
        self.clock.advance(seconds)


@pytest.fixture(params=[True, False], ids=["all clocks", "the wall clock alone"])
def clock(request: pytest.FixtureRequest, tmp_path: Path) -> ShiftedClock:
    return ShiftedClock(tmp_path, moves_monotonic=request.param)


@pytest.fixture(params=["300", "7200"], ids=["beyond the TTL", "within the TTL"])
def rig(request: pytest.FixtureRequest, tmp_path: Path, clock: ShiftedClock) -> Iterator[Rig]:
    with (
        serving_sandbox(Sandbox()) as sandbox,
        serving_store(ArtifactStore(packed())) as store,
    ):
        env = {
            **sandbox.environment,
            **clock.environment,
            "CLEF_AGENT_SOURCE": store.url,
            "CLEF_AGENT_AGE_KEY": AGE_KEY,
            "CLEF_AGENT_CACHE_TTL": request.param,
        }
        with AgentProcess(tmp_path, env) as agent:
            sandbox.wait_until_idle()
            yield Rig(agent, sandbox, store, clock)


def test_first_request_after_a_freeze_gets_what_the_source_has_by_then(rig: Rig) -> None:
    assert rig.agent.secrets().json == PAYLOAD
    rig.store.body = NEW
    rig.freeze()
    answer = rig.agent.secrets()
    assert (answer.status, answer.json) == (200, NEW_PAYLOAD)
    assert len(rig.store.asked_at) == 2


def test_invocation_after_a_freeze_refreshes(rig: Rig) -> None:
    rig.store.body = NEW
    rig.freeze()
    rig.sandbox.invoke()
    assert len(rig.store.asked_at) == 2
    assert rig.agent.secrets().json == NEW_PAYLOAD
    assert len(rig.store.asked_at) == 2


def test_fetch_that_was_under_way_in_a_freeze_begins_anew(rig: Rig) -> None:
    rig.pass_time(60)  # a look is due
    rig.store.hangs = True
    rig.sandbox.invoke()
    assert len(rig.store.asked_at) == 2
    rig.freeze()
    rig.store.hangs, rig.store.body = False, NEW
    assert rig.agent.secrets().json == NEW_PAYLOAD
    assert "fetch failed" not in rig.agent.said


def test_failure_before_a_freeze_keeps_nobody_from_asking_after_it(rig: Rig) -> None:
    rig.pass_time(60)
    rig.store.status, rig.store.headers = 429, {"Retry-After": "1800"}
    rig.sandbox.invoke()
    rig.store.status, rig.store.headers, rig.store.body = 200, {}, NEW
    rig.freeze()
    assert rig.agent.secrets().json == NEW_PAYLOAD


def test_connection_of_a_function_that_was_frozen_too_goes_on(rig: Rig) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", rig.agent.port, timeout=PATIENCE_S)
    with contextlib.closing(connection):

        def ask() -> object:
            connection.request("GET", "/v1/secrets", headers={"Authorization": f"Bearer {TOKEN}"})
            return json.load(connection.getresponse())

        assert ask() == PAYLOAD
        socket = connection.sock
        rig.freeze()
        # Whatever rings late has rung before this is answered: on a connection of its own.
        assert rig.agent.request("/v1/health").status == 200
        assert ask() == PAYLOAD
        assert connection.sock is socket


def test_waiting_for_an_event_has_no_end(rig: Rig) -> None:
    rig.pass_time(2 * HOUR_S)  # not frozen: whatever timer there is would ring
    eventually(lambda: rig.agent.request("/v1/health").status == 200, "an answer")
    assert rig.sandbox.paths == ["POST /register", "GET /event/next"]
    rig.sandbox.invoke()
    assert rig.sandbox.shut_down(rig.agent.process).code == 0
