"""The agent as a Lambda extension, against an API that refuses what the real one refuses."""

from __future__ import annotations

import contextlib
import signal
import socket
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeAlias

import pytest

from agent_process import (
    AgentProcess,
    Response,
    eventually,
    free_port,
    replace_file,
    wait_for_copy,
)
from artifact_store import ArtifactStore
from artifact_store import serving as serving_store
from extensions_api import Sandbox
from extensions_api import serving as serving_sandbox
from fakes import AGE_KEY, NOW, PAYLOAD, packed
from otlp_collector import Collector, collecting

NEW_PAYLOAD = {"app": {"KEY": "new"}}
NEW = packed(NEW_PAYLOAD, packed_at=NOW + 1)
#: From SHUTDOWN to the end of the process; Lambda kills it at 2.
LEAVING_S = 1.95

Start: TypeAlias = Callable[..., AgentProcess]


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serving_sandbox(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def store() -> Iterator[ArtifactStore]:
    with serving_store(ArtifactStore(packed())) as store:
        yield store


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts an agent in a sandbox; all of them end with the test."""
    with contextlib.ExitStack() as stack:

        def begin(
            sandbox: Sandbox, store: ArtifactStore, *arguments: str, **more: str
        ) -> AgentProcess:
            env = {
                **sandbox.environment,
                "CLEF_AGENT_SOURCE": store.url,
                "CLEF_AGENT_AGE_KEY": AGE_KEY,
                "CLEF_AGENT_POLL_INTERVAL": "5",
                **more,
            }
            return stack.enter_context(AgentProcess(tmp_path, env, *arguments))

        yield begin


def seconds_until_due(store: ArtifactStore) -> float:
    return store.asked_at[-1] + 5.1 - time.monotonic()


def wait_until_due(store: ArtifactStore) -> None:
    eventually(lambda: seconds_until_due(store) <= 0, "the poll interval to pass")


# --- the start --------------------------------------------------------------------------------


def test_function_reads_a_secret_while_it_is_itself_starting(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    port = free_port()
    read: list[Response] = []
    # The function starts as soon as the extension is registered, and not when that has heard of it.
    sandbox.on_registered = lambda: read.append(agent.secrets())
    agent = start(sandbox, store, CLEF_AGENT_PORT=str(port))
    sandbox.wait_until_idle()
    assert read[0].json == PAYLOAD
    assert sandbox.paths == ["POST /register", "GET /event/next"]
    registration = sandbox.asked[0]
    assert registration.headers["lambda-extension-name"] == "clef-agent"
    assert registration.json == {"events": ["INVOKE", "SHUTDOWN"]}


def test_lines_that_tools_wait_for_come_in_their_words_and_order(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store)
    sandbox.wait_until_idle()
    assert sandbox.shut_down(agent.process).code == 0
    agent.exit_code()
    assert agent.err == ""
    assert [line for line in agent.out_lines if "artifact loaded" not in line] == [
        f"[clef-agent] source: {store.url}",
        "[clef-agent] mode: cached",
        "[clef-agent] token: [set]",
        "[clef-agent] lifecycle: lambda-extension",
        "[clef-agent] Agent ready. Polling for updates.",
        "[clef-agent] stopping: the sandbox ends (spindown)",
    ]


def test_the_name_can_be_that_of_a_wrapper(store: ArtifactStore, start: Start) -> None:
    with serving_sandbox(Sandbox("10-secrets")) as sandbox:
        start(sandbox, store, "--extension-name", "10-secrets")
        sandbox.wait_until_idle()
        assert sandbox.refusals == []


def test_a_name_that_lambda_does_not_know_ends_the_start_with_a_hint(
    store: ArtifactStore, start: Start
) -> None:
    with serving_sandbox(Sandbox("10-secrets")) as sandbox:
        agent = start(sandbox, store)
        assert agent.exit_code() == 1
        assert "'clef-agent' (Extension.InvalidEventType)" in agent.err
        assert "--extension-name" in agent.err_lines[-1]
        assert sandbox.paths == ["POST /register"] * 2


def test_no_lambda_at_the_address_ends_the_start(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store, AWS_LAMBDA_RUNTIME_API=f"127.0.0.1:{free_port()}")
    assert agent.exit_code() == 1
    assert "gives no answer: Connection refused" in agent.err
    assert "Traceback" not in agent.err


# case 3
def test_a_taken_port_is_reported_to_lambda(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        agent = start(sandbox, store, CLEF_AGENT_PORT=str(port))
        assert agent.exit_code() == 1
    assert sandbox.paths == ["POST /register", "POST /init/error"]
    (report,) = sandbox.of("POST /init/error")
    assert report.headers["lambda-extension-function-error-type"] == "Extension.PortInUse"
    assert report.json["errorType"] == "Extension.PortInUse"
    assert str(port) in report.json["errorMessage"]
    assert sandbox.refusals == []
    assert store.asked_at == []


def test_a_wrong_configuration_is_reported_to_lambda(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store, CLEF_AGENT_CACHE_TTL="5", CLEF_AGENT_AGE_KEY="AGE-SECRET-KEY-1NO")
    assert agent.exit_code() == 1
    (report,) = sandbox.of("POST /init/error")
    assert report.json["errorType"] == "Extension.ConfigInvalid"
    assert "CLEF_AGENT_CACHE_TTL" in report.json["errorMessage"]
    assert b"SECRET-KEY-1NO" not in report.body


def test_a_failed_load_is_reported_and_cured_at_the_next_start(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    store.status = 500
    port = str(free_port())
    agent = start(sandbox, store, CLEF_AGENT_PORT=port)
    assert agent.exit_code() == 1
    (report,) = sandbox.of("POST /init/error")
    assert report.json["errorType"] == "Extension.LoadFailed"
    assert "500" in report.json["errorMessage"]
    assert report.at - agent.started < 8
    assert "token: [set]" not in agent.said

    store.status = 200
    with serving_sandbox(Sandbox()) as next_sandbox:
        cured = start(next_sandbox, store, CLEF_AGENT_PORT=port)
        next_sandbox.wait_until_idle()
        assert cured.secrets().json == PAYLOAD


# case 16
def test_a_source_that_never_answers_holds_the_start_for_five_seconds_at_most(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    store.hangs = True
    agent = start(sandbox, store)
    assert agent.exit_code() == 1
    (registration, report) = sandbox.asked
    assert 3.5 < registration.at - agent.started < 8
    assert report.json["errorType"] == "Extension.LoadFailed"


# case 12
def test_the_copy_in_tmp_serves_a_start_without_the_source(
    tmp_path: Path, sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    cache = tmp_path / "cache"
    port = str(free_port())
    first = start(sandbox, store, CLEF_AGENT_CACHE_PATH=str(cache), CLEF_AGENT_PORT=port)
    sandbox.wait_until_idle()
    wait_for_copy(cache)
    first.send(signal.SIGKILL)  # as after a function's timeout
    first.exit_code()

    store.hangs = True
    with serving_sandbox(Sandbox()) as next_sandbox:
        again = start(next_sandbox, store, CLEF_AGENT_CACHE_PATH=str(cache), CLEF_AGENT_PORT=port)
        next_sandbox.wait_until_idle()
        assert "from the copy on disk" in again.wait_for("artifact loaded")
        assert again.secrets().json == PAYLOAD


# --- invocations ------------------------------------------------------------------------------


def test_an_invocation_refreshes_when_a_look_is_due_and_else_does_not(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store)
    sandbox.wait_until_idle()
    store.body = NEW
    sandbox.invoke()
    sandbox.invoke()
    assert len(store.asked_at) == 1

    wait_until_due(store)
    assert len(store.asked_at) == 1  # no timer looks between invocations
    sandbox.invoke()
    assert len(store.asked_at) == 2
    assert agent.secrets().json == NEW_PAYLOAD
    assert len(store.asked_at) == 2


def test_every_invocation_refreshes_in_just_in_time_mode(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store, CLEF_AGENT_CACHE_TTL="0", CLEF_AGENT_POLL_INTERVAL="60")
    sandbox.wait_until_idle()
    for asked in (2, 3):
        sandbox.invoke()
        assert len(store.asked_at) == asked
    store.body = NEW
    sandbox.invoke()
    assert agent.secrets().json == NEW_PAYLOAD


def test_a_request_that_comes_before_the_invocation_is_known_refreshes_first(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store)
    sandbox.wait_until_idle()
    store.body = NEW
    wait_until_due(store)
    assert agent.secrets().json == NEW_PAYLOAD
    assert len(store.asked_at) == 2


# case 16
def test_a_source_that_hangs_costs_an_invocation_a_second_once(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store)
    sandbox.wait_until_idle()
    store.hangs = True
    wait_until_due(store)
    assert 0.5 < sandbox.invoke() < 3
    assert sandbox.invoke() < 0.9
    assert agent.secrets().json == PAYLOAD
    assert len(store.asked_at) == 2


def test_an_invocation_that_is_about_to_be_cut_is_not_held(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    start(sandbox, store)
    sandbox.wait_until_idle()
    store.hangs = True
    wait_until_due(store)
    assert sandbox.invoke(lasts_s=0.3) < 0.9
    eventually(lambda: len(store.asked_at) == 2, "the refresh that nobody waits for")


def test_an_event_of_an_unknown_type_is_passed_over(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store)
    sandbox.tell_of("RESTORE")
    sandbox.invoke()
    assert "'RESTORE'" in agent.err
    assert sandbox.shut_down(agent.process, "SPINDOWN").code == 0


def test_on_managed_instances_a_timer_polls(store: ArtifactStore, start: Start) -> None:
    with serving_sandbox(Sandbox(is_managed=True)) as sandbox:
        agent = start(sandbox, store)
        sandbox.wait_until_idle()
        assert [asked.json["events"] for asked in sandbox.of("POST /register")] == [
            ["INVOKE", "SHUTDOWN"],
            ["SHUTDOWN"],
        ]
        store.body = NEW
        eventually(lambda: len(store.asked_at) > 1, "a poll")
        eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "the new artifact")
        assert sandbox.paths.count("GET /event/next") == 1
        assert sandbox.shut_down(agent.process).code == 0


# --- the end ----------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", ["SPINDOWN", "Timeout", "SandboxTerminated"])
def test_shutdown_ends_the_agent_in_time(
    sandbox: Sandbox, store: ArtifactStore, start: Start, reason: str
) -> None:
    agent = start(sandbox, store)
    sandbox.wait_until_idle()
    ending = sandbox.shut_down(agent.process, reason)
    assert ending.code == 0
    assert ending.took_s < LEAVING_S
    assert "POST /exit/error" not in sandbox.paths


# case 15, case 16
@pytest.mark.parametrize("is_idle", [True, False])
def test_shutdown_ends_the_agent_while_source_and_collector_hang(
    sandbox: Sandbox, store: ArtifactStore, start: Start, is_idle: bool
) -> None:
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        collector.listen()  # and never accepts
        url = f"http://127.0.0.1:{collector.getsockname()[1]}/v1/logs"
        agent = start(sandbox, store, CLEF_AGENT_TELEMETRY_URL=url)
        sandbox.wait_until_idle()
        store.hangs = True
        wait_until_due(store)
        sandbox.begin_invocation()
        eventually(lambda: len(store.asked_at) == 2, "the refresh that hangs")
        if is_idle:
            sandbox.wait_until_idle()
        ending = sandbox.shut_down(agent.process, "failure")
        assert ending.code == 0
        assert ending.took_s < LEAVING_S


def test_what_an_invocation_has_to_tell_is_sent_before_it_ends(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    with collecting(Collector()) as collector:
        agent = start(sandbox, store, CLEF_AGENT_TELEMETRY_URL=collector.origin)
        # The libraries for it are loaded at the first batch, and may take longer than agreed.
        eventually(lambda: collector.of("agent.started"), "the first events")
        store.body = NEW
        wait_until_due(store)
        sandbox.invoke()
        assert len(collector.of("artifact.refreshed")) == 2  # a freeze may follow now
        assert sandbox.shut_down(agent.process).code == 0
        (stopped,) = collector.of("agent.stopped")
        assert stopped.attributes["clef.reason"] == "lambda_shutdown"


# case 16
def test_a_collector_that_hangs_holds_no_invocation_for_longer_than_agreed(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    with socket.socket() as collector:
        collector.bind(("127.0.0.1", 0))
        collector.listen()
        url = f"http://127.0.0.1:{collector.getsockname()[1]}/v1/logs"
        start(sandbox, store, CLEF_AGENT_TELEMETRY_URL=url)
        sandbox.wait_until_idle()
        assert sandbox.invoke() < 3


def test_an_api_that_goes_away_is_the_end(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    agent = start(sandbox, store)
    sandbox.wait_until_idle()
    sandbox.end()
    assert agent.exit_code() == 1
    assert "Lambda refuses the next event (HTTP 500)" in agent.err
    (report,) = sandbox.of("POST /exit/error")
    assert report.json["errorType"] == "Extension.ExtensionsApiFailed"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_agent_too(
    sandbox: Sandbox, store: ArtifactStore, start: Start, number: signal.Signals
) -> None:
    agent = start(sandbox, store)
    sandbox.wait_until_idle()
    asked = time.monotonic()
    assert agent.stop(number) == 0
    assert time.monotonic() - asked < LEAVING_S


# case 15
def test_a_signal_during_the_load_ends_the_agent(
    sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    store.hangs = True
    agent = start(sandbox, store)
    eventually(lambda: store.asked_at, "the first fetch")
    assert agent.stop() == 0
    assert sandbox.asked == []


def test_a_file_of_the_function_s_own_is_a_source(
    tmp_path: Path, sandbox: Sandbox, store: ArtifactStore, start: Start
) -> None:
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    agent = start(sandbox, store, CLEF_AGENT_SOURCE=str(artifact))
    sandbox.wait_until_idle()
    replace_file(artifact, NEW)
    eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "the new artifact")
