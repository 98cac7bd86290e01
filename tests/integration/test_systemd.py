"""A running agent and its notify socket: what a service manager hears, and when."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess, eventually, replace_file, running
from artifact_store import ArtifactStore, serving
from fakes import AGE_KEY, PAYLOAD, packed
from notify_listener import NotifyListener, listening

#: Short enough for a test, long enough for a busy machine to be on time.
WATCHDOG_S = 1.0


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifyListener]:
    with listening(tmp_path / "notify") as listener:
        yield listener


@pytest.fixture
def store() -> Iterator[ArtifactStore]:
    with serving(ArtifactStore(packed())) as store:
        yield store


@pytest.fixture
def env(manager: NotifyListener, store: ArtifactStore) -> dict[str, str]:
    return {
        "NOTIFY_SOCKET": manager.address,
        "CLEF_AGENT_SOURCE": store.url,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        # No look at the source but those that are asked for.
        "CLEF_AGENT_CACHE_TTL": "1000000",
        "CLEF_AGENT_POLL_INTERVAL": "900000",
    }


def watched(env: dict[str, str]) -> dict[str, str]:
    return {**env, "WATCHDOG_USEC": str(round(WATCHDOG_S * 1e6))}


def monotonic_us() -> int:
    return time.monotonic_ns() // 1000


def states(manager: NotifyListener) -> list[str]:
    """The changes of state until now, in order."""
    names = ("READY", "RELOADING", "STOPPING")
    return [name for message in manager.read() for name in names if name in message]


# --- the start --------------------------------------------------------------------------------


def test_it_is_ready_when_secrets_can_be_served_and_not_before(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    store.hangs = True
    with AgentProcess(tmp_path, env) as agent:
        eventually(lambda: store.asked_at, "the first fetch")
        assert agent.request("/v1/ready").status == 503
        assert manager.read() == []
        store.hangs = False
        store.released.set()
        ready = manager.wait_for("READY")
        assert agent.secrets().json == PAYLOAD
        revision = agent.request("/v1/health").json["revision"]
        assert ready["STATUS"].startswith(f"serving revision {revision}, last refreshed ")


def test_a_start_that_is_tried_again_asks_for_time_and_one_in_vain_says_why(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    store.status = 500
    with AgentProcess(tmp_path, env) as agent:
        waiting = manager.wait_for("EXTEND_TIMEOUT_USEC")
        assert int(waiting["EXTEND_TIMEOUT_USEC"]) >= 60_000_000
        assert waiting["STATUS"] == "the first load failed; trying again in 2 s"
        store.status, store.body = 200, b"no artifact"
        assert agent.exit_code() == 1
    assert states(manager) == ["STOPPING"]
    assert "it is not strict JSON" in manager.wait_for("STOPPING")["STATUS"]


def test_a_hangup_during_the_first_load_is_part_of_the_start(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    store.hangs = True
    with AgentProcess(tmp_path, env) as agent:
        eventually(lambda: store.asked_at, "the first fetch")
        agent.send(signal.SIGHUP)
        agent.wait_for("reloading keys and token")
        store.hangs = False
        store.released.set()
        manager.wait_for("READY")
        # One that was hung up on, one that succeeded, and the one that was asked for.
        eventually(lambda: len(store.asked_at) == 3, "the refresh that was asked for")
        assert agent.secrets().json == PAYLOAD
        assert states(manager) == ["READY"]


# --- reloading --------------------------------------------------------------------------------


def test_a_reload_is_over_when_the_refresh_that_it_began_is(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    with running(tmp_path, env) as agent:
        manager.wait_for("READY")
        store.hangs = True
        before_us = monotonic_us()
        agent.send(signal.SIGHUP)
        reloading = manager.wait_for("RELOADING")
        assert before_us <= int(reloading["MONOTONIC_USEC"]) <= monotonic_us()
        eventually(lambda: len(store.asked_at) == 2, "the refresh")
        assert states(manager) == ["READY", "RELOADING"]
        store.released.set()
        manager.wait_for("READY", times=2)


def test_after_a_reload_the_new_secrets_are_served(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    with running(tmp_path, env) as agent:
        manager.wait_for("READY")
        store.body = packed({"app": {"KEY": "new"}})
        agent.send(signal.SIGHUP)
        manager.wait_for("READY", times=2)
        assert agent.secrets().json == {"app": {"KEY": "new"}}


def test_a_refresh_that_began_before_a_reload_does_not_end_it(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    token_file = tmp_path / "source-token"
    token_file.write_text("old")
    with running(tmp_path, {**env, "CLEF_AGENT_SOURCE_TOKEN_FILE": str(token_file)}) as agent:
        manager.wait_for("READY")
        store.hangs = True
        agent.send(signal.SIGHUP)
        eventually(lambda: len(store.asked_at) == 2, "a refresh")
        replace_file(token_file, b"new")
        agent.send(signal.SIGHUP)
        manager.wait_for("RELOADING", times=2)
        store.hangs = False
        store.released.set()
        manager.wait_for("READY", times=2)
        assert store.authorizations[1:] == ["Bearer old", "Bearer new"]


def test_a_reload_that_fails_is_over_too_and_the_status_keeps_the_last_success(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    with running(tmp_path, env) as agent:
        first = manager.wait_for("READY")
        store.status = 500
        agent.send(signal.SIGHUP)
        assert manager.wait_for("READY", times=2)["STATUS"] == first["STATUS"]
        assert agent.secrets().json == PAYLOAD


def test_a_storm_of_hangups_ends_ready(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    with running(tmp_path, env) as agent:
        manager.wait_for("READY")
        for _ in range(300):
            agent.send(signal.SIGHUP)
            manager.read()
        manager.wait_for("RELOADING")
        eventually(lambda: states(manager)[-1] == "READY", "an end of the reloads")
        assert agent.secrets().json == PAYLOAD
        assert agent.stop() == 0
    assert states(manager)[-1] == "STOPPING"
    assert states(manager).count("STOPPING") == 1


# --- the end ----------------------------------------------------------------------------------


def test_a_stop_is_told_of_before_the_drain(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    store.body = packed({"app": {"BLOB": "x" * 10_000_000}})
    head = f"GET /v1/secrets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with running(tmp_path, env) as agent, socket.socket() as slow_reader:
        manager.wait_for("READY")
        slow_reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        slow_reader.connect(("127.0.0.1", agent.port))
        slow_reader.sendall(head.encode())
        assert slow_reader.recv(1, socket.MSG_PEEK)
        agent.send(signal.SIGTERM)
        manager.wait_for("STOPPING")
        assert agent.process.poll() is None
        assert agent.exit_code() == 0
    assert manager.read()[-1] == {"STOPPING": "1", "STATUS": "stopping"}


# case 15
def test_a_stop_during_a_reload_is_the_last_word(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    with running(tmp_path, env) as agent:
        manager.wait_for("READY")
        store.hangs = True
        agent.send(signal.SIGHUP)
        eventually(lambda: len(store.asked_at) == 2, "the refresh")
        agent.send(signal.SIGTERM)
        manager.wait_for("STOPPING")
        agent.send(signal.SIGHUP)
        store.released.set()
        assert agent.exit_code() == 0
    assert states(manager) == ["READY", "RELOADING", "STOPPING"]


# --- the watchdog -----------------------------------------------------------------------------


def test_signs_of_life_come_twice_within_the_watchdogs_time_whatever_the_source_does(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener, store: ArtifactStore
) -> None:
    with running(tmp_path, watched(env)):
        store.status = 500
        began = time.monotonic()
        manager.wait_for("WATCHDOG", times=5)
        assert 1.5 < time.monotonic() - began < 5 * WATCHDOG_S


def test_a_process_that_hangs_gives_no_sign_of_life(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener
) -> None:
    with running(tmp_path, watched(env)) as agent:
        manager.wait_for("WATCHDOG")
        agent.send(signal.SIGSTOP)
        eventually(lambda: is_stopped(agent), "it to stop")
        known = len(manager.of("WATCHDOG"))
        assert not manager.hears("WATCHDOG", times=known + 1, within_s=2 * WATCHDOG_S)
        agent.send(signal.SIGCONT)
        manager.wait_for("WATCHDOG", times=known + 1)


def is_stopped(agent: AgentProcess) -> bool:
    status = Path(f"/proc/{agent.process.pid}/stat").read_text()
    return status.rpartition(")")[2].split()[0] == "T"


def test_the_watchdog_of_another_process_is_not_fed(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener
) -> None:
    with running(tmp_path, {**watched(env), "WATCHDOG_PID": "1"}) as agent:
        manager.wait_for("READY")
        assert not manager.hears("WATCHDOG", within_s=2 * WATCHDOG_S)
        assert agent.stop() == 0


# --- sockets of other kinds -------------------------------------------------------------------


@pytest.mark.skipif(sys.platform != "linux", reason="abstract sockets are Linux's")
def test_an_abstract_socket_is_told(tmp_path: Path, env: dict[str, str]) -> None:
    with (
        listening(f"@clef-agent-integration-{os.getpid()}") as manager,
        running(tmp_path, {**env, "NOTIFY_SOCKET": manager.address}) as agent,
    ):
        manager.wait_for("READY")
        assert agent.stop() == 0
        assert states(manager) == ["READY", "STOPPING"]


def fill(manager: NotifyListener) -> None:
    """Sends until there is no room."""
    with (
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as other,
        contextlib.suppress(BlockingIOError),
    ):
        other.setblocking(False)
        while True:
            other.sendto(b"X=1", manager.address)


def test_a_socket_that_nobody_reads_holds_up_nothing(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener
) -> None:
    fill(manager)
    with running(tmp_path, {**watched(env), "WATCHDOG_USEC": "20000"}) as agent:
        assert agent.secrets().json == PAYLOAD
        agent.send(signal.SIGHUP)
        agent.wait_for("reloading keys and token")
        assert agent.secrets().json == PAYLOAD
        manager.read()  # now there is room
        eventually(lambda: states(manager)[-1:] == ["READY"], "what could not be told before")
        assert agent.stop() == 0
        assert agent.err == ""


def test_a_socket_that_is_gone_is_warned_of_and_holds_up_nothing(
    tmp_path: Path, env: dict[str, str], manager: NotifyListener
) -> None:
    with running(tmp_path, watched(env)) as agent:
        manager.wait_for("READY")
        Path(manager.address).unlink()
        agent.wait_for("the service manager cannot be told")
        assert agent.secrets().json == PAYLOAD
        assert agent.stop() == 0
        assert len(agent.err_lines) == 1


def test_an_unsupported_socket_is_warned_of_and_holds_up_nothing(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(tmp_path, {**env, "NOTIFY_SOCKET": "vsock:2:9999"}) as agent:
        assert "NOTIFY_SOCKET is ignored" in agent.err
        assert agent.stop() == 0
