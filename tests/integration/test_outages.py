"""What an agent does when its source is gone for longer than it is trusted; in real time.

The long runs begin together when the first test of this module does, so that their waiting
overlaps: each takes a little over the shortest TTL there is, 30 s.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_process import AgentProcess, eventually, running, wait_for_copy
from artifact_store import ArtifactStore, serving
from clef_agent.sources.base import FETCH_DEADLINE_S
from fakes import AGE_KEY, PAYLOAD, packed

TTL_S = 30
#: For what happens when the TTL has passed, on a busy machine.
LATE_S = TTL_S + 30.0


@dataclass
class LongRun:
    """An agent and its store, and the moment at which its run began."""

    agent: AgentProcess
    store: ArtifactStore
    began: float

    def outlast_ttl(self) -> None:
        eventually(
            lambda: time.monotonic() - self.began > TTL_S + 1,
            "the TTL to pass",
            patience_s=LATE_S,
        )


@dataclass
class LongRuns:
    cut_off: LongRun
    stable: LongRun
    unanswered: LongRun


def of_store(store: ArtifactStore) -> dict[str, str]:
    return {
        "CLEF_AGENT_SOURCE": store.url,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_CACHE_TTL": str(TTL_S),
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LongRuns]:
    home = tmp_path_factory.mktemp("runs")
    with contextlib.ExitStack() as stack:

        def begin(store: ArtifactStore) -> LongRun:
            stack.enter_context(serving(store))
            agent = stack.enter_context(AgentProcess(home, of_store(store)))
            return LongRun(agent, store, time.monotonic())

        begun = LongRuns(
            cut_off=begin(ArtifactStore(packed())),
            stable=begin(ArtifactStore(packed())),
            unanswered=begin(ArtifactStore(b"", hangs=True)),
        )
        begun.cut_off.agent.wait_until_ready()
        begun.cut_off.store.status = 503
        yield begun


# case 16
def test_a_source_that_never_answers_is_given_up_at_the_deadline(runs: LongRuns) -> None:
    agent = runs.unanswered.agent
    assert "in time" in agent.wait_for("fetch failed", patience_s=FETCH_DEADLINE_S + 10)
    agent.wait_for("trying again in 2 s")
    assert agent.request("/v1/ready").status == 503


# case 10
def test_after_an_outage_beyond_the_ttl_the_same_bytes_are_served_again(runs: LongRuns) -> None:
    agent, store = runs.cut_off.agent, runs.cut_off.store

    agent.wait_for("cache expired", patience_s=LATE_S)
    secrets, keys = agent.secrets(), agent.request("/v1/keys")
    assert (secrets.status, secrets.json["reason"]) == (503, "cache_expired")
    assert (keys.status, keys.json["reason"]) == (503, "cache_expired")
    assert agent.request("/v1/ready").json == {"ready": False, "reason": "cache_expired"}
    assert agent.request("/v1/health").status == 200

    store.status = 200
    eventually(lambda: agent.secrets().status == 200, "the secrets", patience_s=LATE_S)
    assert agent.secrets().json == PAYLOAD
    assert agent.request("/v1/keys").json
    assert agent.request("/v1/ready").json == {"ready": True}


# case 11
def test_one_failure_after_a_ttl_of_stability_takes_nothing_away(runs: LongRuns) -> None:
    agent, store = runs.stable.agent, runs.stable.store
    agent.wait_until_ready()
    runs.stable.outlast_ttl()

    store.status = 502
    refresh = agent.refresh()
    assert (refresh.status, refresh.json["reason"]) == (503, "fetch_failed")
    assert agent.secrets().json == PAYLOAD
    assert agent.request("/v1/ready").json == {"ready": True}
    assert "cache expired" not in agent.said


# case 16
def test_a_running_agent_answers_while_its_source_hangs(tmp_path: Path) -> None:
    with (
        serving(ArtifactStore(packed())) as store,
        running(tmp_path, of_store(store)) as agent,
    ):
        store.hangs = True
        with pytest.raises(TimeoutError):
            agent.request("/v1/refresh", method="POST", timeout_s=0.5)
        asked = time.monotonic()
        assert agent.secrets().json == PAYLOAD
        assert agent.request("/v1/health").status == 200
        assert time.monotonic() - asked < 2


# --- the copy on disk -------------------------------------------------------------------------


# case 12
def test_a_restart_without_the_source_serves_the_copy_on_disk(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serving(ArtifactStore(packed())) as store:
        env = {**of_store(store), "CLEF_AGENT_CACHE_PATH": str(cache)}
        with running(tmp_path, env) as agent:
            wait_for_copy(cache)
            assert agent.stop() == 0

    with AgentProcess(tmp_path, env) as agent:
        agent.wait_until_ready()
        assert "from the copy on disk" in agent.wait_for("artifact loaded")
        assert agent.secrets().json == PAYLOAD
        assert "fetch failed" in agent.err
        assert "trying again" not in agent.said
        with serving(store, store.port):
            assert agent.refresh().json["changed"] is False
    for file in cache.iterdir():
        assert file.stat().st_mode & 0o077 == 0
        assert b"postgres://" not in file.read_bytes()


# case 12
def test_a_bad_upload_leaves_the_copy_on_disk_as_it_was(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serving(ArtifactStore(packed())) as store:
        env = {**of_store(store), "CLEF_AGENT_CACHE_PATH": str(cache)}
        with running(tmp_path, env) as agent:
            wait_for_copy(cache)
            store.body = b"<html>not found</html>"
            assert agent.refresh().json["reason"] == "json_parse"
            assert agent.secrets().json == PAYLOAD
            assert agent.stop() == 0
        with AgentProcess(tmp_path, env) as agent:
            agent.wait_until_ready()
            assert "reason=json_parse" in agent.err
            assert agent.secrets().json == PAYLOAD


# case 12
def test_a_directory_that_cannot_be_written_is_a_warning(tmp_path: Path) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no directory")
    with serving(ArtifactStore(packed())) as store:
        env = {**of_store(store), "CLEF_AGENT_CACHE_PATH": str(in_the_way / "cache")}
        with running(tmp_path, env) as agent:
            assert agent.wait_for("the copy on disk could not be written") in agent.err_lines
            assert agent.secrets().json == PAYLOAD
            assert agent.stop() == 0


def test_a_revocation_takes_the_copy_on_disk_away(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    with serving(ArtifactStore(packed())) as store:
        env = {**of_store(store), "CLEF_AGENT_CACHE_PATH": str(cache)}
        with running(tmp_path, env) as agent:
            wait_for_copy(cache)
            store.body = b'{"version":1,"revokedAt":"2026-01-01T00:00:00Z"}'
            assert agent.refresh().json["reason"] == "revoked"
            assert agent.secrets().json["reason"] == "revoked"
            assert agent.stop() == 0
        with AgentProcess(tmp_path, env) as agent:
            assert agent.exit_code() == 1
            assert "reason=revoked" in agent.err
    assert not [file for file in cache.iterdir() if b"ciphertext" in file.read_bytes()]
