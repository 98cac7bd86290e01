"""How the agent leaves, and what else a signal makes it do."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pyrage
import pytest

from agent_process import (
    PATIENCE_S,
    TOKEN,
    AgentProcess,
    eventually,
    replace_file,
    running,
)
from artifact_store import ArtifactStore, serving
from fakes import AGE_KEY, PAYLOAD, packed
from otlp_collector import Collector, collecting

#: The drain takes 3 s at most; the rest is for a busy machine.
LEAVING_S = 3.0 + 2.0
LARGE_BYTES = 10_000_000
#: A new PID namespace, in which the agent is process 1.
AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    return {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}


def of_store(store: ArtifactStore) -> dict[str, str]:
    return {"CLEF_AGENT_SOURCE": store.url, "CLEF_AGENT_AGE_KEY": AGE_KEY}


@contextlib.contextmanager
def serving_large(home: Path, env: dict[str, str]) -> Iterator[tuple[AgentProcess, socket.socket]]:
    """An agent with 10 MB to serve, and a connection on which that has been asked for."""
    Path(env["CLEF_AGENT_SOURCE"]).write_bytes(packed({"app": {"BLOB": "x" * LARGE_BYTES}}))
    head = f"GET /v1/secrets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
    with running(home, env) as agent, socket.socket() as reader:
        reader.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        reader.settimeout(PATIENCE_S)
        reader.connect(("127.0.0.1", agent.port))
        reader.sendall(head.encode())
        assert reader.recv(1, socket.MSG_PEEK)
        yield agent, reader


def seconds_to_leave(agent: AgentProcess, number: signal.Signals = signal.SIGTERM) -> float:
    """Seconds from the signal to the exit, which is a clean one."""
    asked = time.monotonic()
    assert agent.stop(number) == 0
    return time.monotonic() - asked


@pytest.mark.parametrize("asks", [True, False], ids=["somebody-waits", "nobody-waits"])
def test_a_refresh_that_the_end_cuts_off_is_no_failure_to_tell(tmp_path: Path, asks: bool) -> None:
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting(Collector()))
        store = stack.enter_context(serving(ArtifactStore(packed())))
        env = {**of_store(store), "CLEF_AGENT_TELEMETRY_URL": collector.origin}
        agent = stack.enter_context(running(tmp_path, env))
        store.hangs = True
        asked = len(store.asked_at)
        if asks:
            head = (
                f"POST /v1/refresh HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n"
            )
            client = stack.enter_context(socket.create_connection(("127.0.0.1", agent.port)))
            client.sendall(f"{head}\r\n".encode())
        else:
            agent.send(signal.SIGHUP)
        eventually(lambda: len(store.asked_at) > asked, "a refresh that hangs")
        assert seconds_to_leave(agent) < LEAVING_S + 1.0
        assert agent.err == ""
        assert collector.names[-1] == "agent.stopped"
        assert "fetch.failed" not in collector.names


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_stop_ends_the_agent_cleanly(
    tmp_path: Path, env: dict[str, str], number: signal.Signals
) -> None:
    with running(tmp_path, env) as agent:
        idle = socket.create_connection(("127.0.0.1", agent.port))
        with idle:
            assert seconds_to_leave(agent, number) < LEAVING_S
        assert agent.out_lines[-1] == "[clef-agent] stopping"
        assert agent.err == ""


# case 15
def test_a_stop_during_a_poll_that_hangs_ends_the_agent(tmp_path: Path) -> None:
    with serving(ArtifactStore(packed())) as store, running(tmp_path, of_store(store)) as agent:
        store.hangs = True
        agent.send(signal.SIGHUP)  # polls now
        eventually(lambda: len(store.asked_at) == 2, "a poll")
        assert seconds_to_leave(agent) < LEAVING_S


# case 15
def test_a_stop_during_the_first_fetch_ends_the_agent(tmp_path: Path) -> None:
    with (
        serving(ArtifactStore(b"", hangs=True)) as store,
        AgentProcess(tmp_path, of_store(store)) as agent,
    ):
        eventually(lambda: store.asked_at, "the first fetch")
        assert seconds_to_leave(agent) < LEAVING_S


# case 15
def test_a_stop_between_the_first_attempts_ends_the_agent(tmp_path: Path) -> None:
    with (
        serving(ArtifactStore(b"", status=500)) as store,
        AgentProcess(tmp_path, of_store(store)) as agent,
    ):
        agent.wait_for("trying again")
        assert seconds_to_leave(agent) < 2


@pytest.fixture
def pid_namespaces() -> None:
    """Skips where no PID namespace can be made."""
    if sys.platform != "linux" or shutil.which("unshare") is None:
        pytest.skip("PID namespaces are Linux's, and made by unshare (util-linux)")
    tried = subprocess.run([*AS_PID_1, "true"], capture_output=True, check=False)
    if tried.returncode:
        pytest.skip(f"no PID namespace can be made here: {tried.stderr.decode().strip()}")


def child_of(agent: AgentProcess) -> str | None:
    """The PID, seen from here, of what unshare started."""
    pid = agent.process.pid
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return children[0] if children else None


def terminate_child(agent: AgentProcess) -> None:
    child = child_of(agent)
    if child is not None:
        subprocess.run(["kill", "-TERM", child], capture_output=True, check=False)


# case 15
@pytest.mark.usefixtures("pid_namespaces")
def test_as_pid_1_a_stop_during_the_first_fetch_ends_the_agent(tmp_path: Path) -> None:
    with (
        serving(ArtifactStore(b"", hangs=True)) as store,
        AgentProcess(tmp_path, of_store(store), prefix=AS_PID_1) as agent,
    ):
        eventually(lambda: store.asked_at, "the first fetch")
        asked = time.monotonic()
        terminate_child(agent)
        assert agent.exit_code() == 0
        assert time.monotonic() - asked < LEAVING_S


# case 15
@pytest.mark.usefixtures("pid_namespaces")
def test_as_pid_1_a_stop_while_it_is_still_loading_ends_the_agent(tmp_path: Path) -> None:
    with (
        serving(ArtifactStore(b"", hangs=True)) as store,
        AgentProcess(tmp_path, of_store(store), prefix=AS_PID_1) as agent,
    ):

        def has_ended() -> bool:
            terminate_child(agent)  # again and again: Python itself comes up without handlers
            return agent.process.poll() is not None

        eventually(has_ended, "an end")
        assert agent.exit_code() == 0
        assert time.monotonic() - agent.started < LEAVING_S
        assert agent.out == ""  # it had not come to what the later handlers belong to


def test_a_second_signal_ends_the_agent_at_once(tmp_path: Path, env: dict[str, str]) -> None:
    with serving_large(tmp_path, env) as (agent, _):
        agent.send(signal.SIGTERM)
        agent.wait_for("stopping")
        asked = time.monotonic()
        agent.send(signal.SIGTERM)
        assert agent.exit_code() == 0
        assert time.monotonic() - asked < 1.5


def test_a_slow_reader_cannot_hold_the_agent_longer_than_the_drain(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with serving_large(tmp_path, env) as (agent, _):
        assert seconds_to_leave(agent) < LEAVING_S


def test_a_reader_that_takes_its_time_gets_all_it_was_promised_within_the_drain(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with serving_large(tmp_path, env) as (agent, reader):
        agent.send(signal.SIGTERM)
        agent.wait_for("stopping")
        response = http.client.HTTPResponse(reader)
        response.begin()
        body = response.read()
        assert len(body) == int(response.headers["content-length"]) > LARGE_BYTES
        assert agent.exit_code() == 0


def test_requests_that_wait_for_a_change_are_sent_home_when_the_agent_leaves(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(tmp_path, env) as agent:
        waiting = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=PATIENCE_S)
        with contextlib.closing(waiting):
            headers = {
                "Authorization": f"Bearer {TOKEN}",
                "If-None-Match": agent.secrets().headers["etag"],
            }
            waiting.request("GET", "/v1/secrets?wait=60", headers=headers)
            for _ in range(3):  # later requests have been answered: that one has arrived
                assert agent.request("/v1/health").status == 200
            assert seconds_to_leave(agent) < LEAVING_S
            answer = waiting.getresponse()
            assert (answer.status, json.load(answer)["reason"]) == (503, "shutting_down")


def test_a_hangup_reads_key_and_token_anew_and_refreshes(
    tmp_path: Path, env: dict[str, str]
) -> None:
    key_file, token_file = tmp_path / "key", tmp_path / "token"
    key_file.write_text(AGE_KEY)
    token_file.write_text(TOKEN)
    del env["CLEF_AGENT_AGE_KEY"]
    files = {"CLEF_AGENT_AGE_KEY_FILE": str(key_file), "CLEF_AGENT_TOKEN_FILE": str(token_file)}
    with (
        serving(ArtifactStore(packed())) as store,
        running(tmp_path, {**env, **files, "CLEF_AGENT_SOURCE": store.url}) as agent,
    ):
        new_key = pyrage.x25519.Identity.generate()
        replace_file(key_file, str(new_key).encode())
        replace_file(token_file, b"another-token\n")
        store.body = packed({"app": {"KEY": "new"}}, recipient=str(new_key.to_public()))
        agent.send(signal.SIGHUP)
        agent.wait_for("reloading keys and token")
        eventually(
            lambda: agent.request("/v1/secrets", token="another-token").status == 200,
            "the new token",
        )
        eventually(
            lambda: agent.request("/v1/keys", token="another-token").json == ["app__KEY"],
            "the new artifact",
        )
        assert agent.secrets().status == 401
        assert "another-token" not in agent.said


def test_a_token_that_was_replaced_does_not_come_back_with_its_file_gone(
    tmp_path: Path, env: dict[str, str]
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("before")
    more = {**env, "CLEF_AGENT_TOKEN_FILE": str(token_file)}
    with AgentProcess(tmp_path, more, without=("CLEF_AGENT_TOKEN",)) as agent:
        agent.wait_until_ready()
        replace_file(token_file, TOKEN.encode())
        agent.send(signal.SIGHUP)
        eventually(lambda: agent.secrets().status == 200, "the new token")
        token_file.unlink()
        agent.send(signal.SIGHUP)
        agent.wait_for(f"the token stays as it was: the token file {token_file} is not there")
        assert agent.secrets().status == 200
        assert agent.request("/v1/secrets", token="before").status == 401


def test_a_hangup_that_finds_no_usable_files_changes_nothing(
    tmp_path: Path, env: dict[str, str]
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(TOKEN)
    with running(tmp_path, {**env, "CLEF_AGENT_TOKEN_FILE": str(token_file)}) as agent:
        replace_file(token_file, b"")
        agent.send(signal.SIGHUP)
        agent.wait_for("the token stays as it was")
        assert agent.secrets().json == PAYLOAD


def test_a_pipe_in_the_place_of_the_key_file_holds_up_nothing(tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_bytes(packed())
    key_file = tmp_path / "age.key"
    key_file.write_text(AGE_KEY)
    env = {
        "CLEF_AGENT_SOURCE": str(tmp_path / "artifact.json"),
        "CLEF_AGENT_AGE_KEY_FILE": str(key_file),
    }
    with running(tmp_path, env) as agent:
        key_file.unlink()
        os.mkfifo(key_file)
        agent.send(signal.SIGHUP)
        assert "not a regular file" in agent.wait_for("the age keys stay as they were")
        assert agent.secrets().status == 200
        assert agent.stop() == 0


def test_closed_standard_streams_do_not_end_in_a_crash(tmp_path: Path) -> None:
    (tmp_path / "artifact.json").write_bytes(packed())
    env = {"CLEF_AGENT_SOURCE": str(tmp_path / "artifact.json"), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    closing = ("sh", "-c", 'exec "$@" 0<&- 1>&- 2>&-', "sh")
    with AgentProcess(tmp_path, env, prefix=closing) as agent:
        eventually(lambda: answers(agent), "the agent to serve")
        assert agent.stop() == 0


def answers(agent: AgentProcess) -> bool:
    with contextlib.suppress(OSError):
        return agent.request("/v1/ready").status == 200
    return False
