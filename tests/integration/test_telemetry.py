"""A real agent and its collector, in good days and bad ones."""

from __future__ import annotations

import re
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import (
    TOKEN,
    AgentProcess,
    Response,
    eventually,
    free_port,
    replace_file,
    running,
)
from artifact_store import ArtifactStore, serving
from clef_agent.artifact.pack import Payload
from clef_agent.telemetry.base import CLOSE_S
from fakes import AGE_KEY, IDENTITY, OTHER_AGE_RECIPIENT, PAYLOAD, packed
from otlp_collector import Collector, collecting

#: For a busy machine, on top of what is promised, in seconds.
_BUSY_S = 1.0


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting(Collector()) as collector:
        yield collector


@pytest.fixture
def env(artifact: Path, collector: Collector) -> dict[str, str]:
    return {
        "CLEF_AGENT_SOURCE": str(artifact),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_TELEMETRY_URL": collector.origin,
        "OTEL_EXPORTER_OTLP_TIMEOUT": "1",
    }


def with_token(token: str) -> Payload:
    return {**PAYLOAD, "telemetry": {"CLEF_TELEMETRY_TOKEN": token}}


def counter(agent: AgentProcess, name: str) -> float:
    text = agent.request("/v1/metrics").body.decode()
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def undelivered(agent: AgentProcess) -> float:
    return counter(agent, 'clef_agent_telemetry_dropped_total{reason="undelivered"}')


def exported(agent: AgentProcess) -> float:
    return counter(agent, "clef_agent_telemetry_exported_total")


def timed(agent: AgentProcess, path: str) -> tuple[Response, float]:
    asked = time.monotonic()
    response = agent.request(path)
    return response, time.monotonic() - asked


def seconds_to_leave(agent: AgentProcess, code: int = 0) -> float:
    asked = time.monotonic()
    assert agent.stop() == code
    return time.monotonic() - asked


# --- good days --------------------------------------------------------------------------------


def test_an_agent_tells_what_happened_before_the_sdk_was_there_at_the_time_it_happened(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    began = time.time()
    with running(tmp_path, env) as agent:
        agent.request("/v1/health")  # its line comes a moment before the event
        ready = time.time()
        eventually(lambda: len(collector.records) == 2, "two events")
        assert agent.err == ""
        assert f"[clef-agent] telemetry: {collector.origin}/v1/logs" in agent.out_lines
        eventually(lambda: exported(agent) == 2, "the count")
    assert collector.names == ["artifact.refreshed", "agent.started"]
    assert all(began <= record.time_s <= ready for record in collector.records)
    resource = collector.records[0].resource
    assert re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", resource["clef.agent.id"])
    assert resource["clef.source.type"] == "file"


def test_what_happened_last_is_told_by_an_agent_that_leaves_at_once(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    with running(tmp_path, env) as agent:
        assert agent.stop() == 0
    assert collector.names == ["artifact.refreshed", "agent.started", "agent.stopped"]
    assert collector.of("agent.stopped")[0].attributes["clef.reason"] == "signal"


@pytest.mark.parametrize("ttl", ["300", "0"], ids=["cached", "just-in-time"])
def test_the_token_comes_with_the_secrets_and_changes_with_them(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector, ttl: str
) -> None:
    artifact.write_bytes(packed(with_token("first")))
    with running(tmp_path, {**env, "CLEF_AGENT_CACHE_TTL": ttl}) as agent:
        eventually(lambda: collector.posts, "the first request")
        replace_file(artifact, packed(with_token("second")))
        assert agent.refresh().status == 200
        eventually(lambda: len(collector.posts) == 2, "the second request")
        replace_file(artifact, packed(PAYLOAD))
        assert agent.refresh().status == 200
        eventually(lambda: len(collector.posts) == 3, "the third request")
    shown = [post.headers.get("authorization") for post in collector.posts]
    assert shown == ["Bearer first", "Bearer second", None]


def test_a_revocation_is_told_with_the_credentials_that_it_takes_away(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    artifact.write_bytes(packed(with_token("tok")))
    with running(tmp_path, env) as agent:
        replace_file(artifact, b'{"version":1,"revokedAt":"2026-01-01T00:00:00Z"}')
        assert agent.refresh().json["reason"] == "revoked"
        eventually(lambda: collector.of("artifact.revoked"), "the revocation")
    assert collector.posts[-1].headers["authorization"] == "Bearer tok"


def test_an_artifact_of_another_identity_changes_the_resource_from_then_on(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    with running(tmp_path, env) as agent:
        replace_file(artifact, packed(identity="another"))
        assert agent.refresh().status == 200
        assert agent.stop() == 0
    identities = [record.resource["clef.identity"] for record in collector.records]
    assert identities == [IDENTITY, IDENTITY, "another", "another"]


def test_variables_that_cannot_be_used_are_warnings_and_stop_nothing(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    bad = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "soon",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "zstd",
        "OTEL_EXPORTER_OTLP_HEADERS": "no header-secret,a=%0D%0Ab",
        "OTEL_EXPORTER_OTLP_ENDPOINT": "nowhere:-1",
        "OTEL_RESOURCE_ATTRIBUTES": "no attribute-secret",
        "OTEL_EXPERIMENTAL_RESOURCE_DETECTORS": "nobody,*",
        "OTEL_ATTRIBUTE_COUNT_LIMIT": "many",
        "OTEL_LOGRECORD_ATTRIBUTE_VALUE_LENGTH_LIMIT": "-1",
        "OTEL_BLRP_MAX_QUEUE_SIZE": "0",
        "OTEL_PYTHON_CONTEXT": "nobody",
        "OTEL_PYTHON_METER_PROVIDER": "nobody",
        "OTEL_PYTHON_LOGGER_PROVIDER": "nobody",
        "OTEL_PYTHON_SDK_INTERNAL_METRICS_ENABLED": "true",
        "OTEL_PYTHON_EXPORTER_OTLP_HTTP_CREDENTIAL_PROVIDER": "nobody",
    }
    with running(tmp_path, {**env, **bad}) as agent:
        eventually(lambda: len(collector.records) == 2, "the events")
        assert agent.secrets().status == 200
        assert agent.stop() == 0
    warned = [line.split()[1].rstrip(":") for line in agent.err_lines]
    names = ("HEADERS", "PROTOCOL", "COMPRESSION", "TIMEOUT")
    assert sorted(warned) == sorted(f"OTEL_EXPORTER_OTLP_{name}" for name in names)
    assert "-secret" not in agent.said


def test_opentelemetry_can_be_turned_off_altogether(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    with running(tmp_path, {**env, "OTEL_SDK_DISABLED": "true"}) as agent:
        assert "OTEL_SDK_DISABLED" in agent.wait_for("no telemetry is sent")
        assert agent.stop() == 0
    assert collector.posts == []


def test_an_end_is_told_while_the_last_requests_are_still_served(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    artifact.write_bytes(packed({"app": {"BLOB": "x" * 10_000_000}}))
    with (
        running(tmp_path, env) as agent,
        socket.create_connection(("127.0.0.1", agent.port)) as slow,
    ):
        head = f"GET /v1/secrets HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}"
        slow.sendall(f"{head}\r\n\r\n".encode())
        assert slow.recv(1)
        agent.send(signal.SIGTERM)
        eventually(lambda: collector.of("agent.stopped"), "the last event")
        assert agent.process.poll() is None
        assert agent.exit_code() == 0


def test_in_just_in_time_mode_each_decryption_is_measured(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(tmp_path, {**env, "CLEF_AGENT_CACHE_TTL": "0"}) as agent:
        for _ in range(3):
            assert agent.secrets().status == 200
        assert counter(agent, "clef_agent_decrypt_duration_seconds_count") == 4


# --- a start in vain --------------------------------------------------------------------------


def test_an_artifact_that_ends_the_start_is_told_of(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    artifact.write_bytes(packed(recipient=OTHER_AGE_RECIPIENT))
    with AgentProcess(tmp_path, env) as agent:
        assert agent.exit_code() == 1
    assert collector.names == ["artifact.invalid", "agent.stopped"]
    invalid, stopped = collector.records
    assert invalid.attributes["clef.reason"] == "decrypt"
    assert stopped.attributes["clef.reason"] == "error"
    assert invalid.resource["clef.identity"] == "unknown"


def test_a_source_that_ends_the_start_is_told_of_each_time_it_failed(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    artifact.unlink()
    expected = {"CLEF_AGENT_EXPECT_IDENTITY": "api", "CLEF_AGENT_EXPECT_ENVIRONMENT": "eu"}
    with AgentProcess(tmp_path, {**env, **expected}) as agent:
        eventually(lambda: collector.posts, "the first failure, before the second attempt")
        assert "trying again in 4 s" not in agent.said
        assert agent.exit_code() == 1
    assert collector.names == [*["fetch.failed"] * 3, "agent.stopped"]
    resource = collector.records[0].resource
    assert (resource["clef.identity"], resource["clef.environment"]) == ("api", "eu")


# case 16
def test_a_collector_that_hangs_holds_a_start_in_vain_no_longer_than_a_second(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    artifact.write_bytes(packed(recipient=OTHER_AGE_RECIPIENT))
    del env["OTEL_EXPORTER_OTLP_TIMEOUT"]
    collector.hangs = True
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_for("artifact rejected")
        rejected = time.monotonic()
        assert agent.exit_code() == 1
        assert time.monotonic() - rejected < 1 + _BUSY_S


# --- bad days ---------------------------------------------------------------------------------


# case 16
def test_a_collector_that_hangs_delays_no_request_and_no_end_by_more_than_a_second(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    del env["OTEL_EXPORTER_OTLP_TIMEOUT"]
    collector.hangs = True
    with running(tmp_path, env) as agent:
        eventually(lambda: collector.posts, "a request that hangs")
        for path in ("/v1/secrets", "/v1/health", "/v1/metrics", "/v1/keys") * 5:
            response, seconds = timed(agent, path)
            assert response.status == 200
            assert seconds < _BUSY_S
        replace_file(Path(env["CLEF_AGENT_SOURCE"]), packed({"app": {"KEY": "new"}}))
        assert agent.refresh().json["changed"] is True
        assert seconds_to_leave(agent) < CLOSE_S + _BUSY_S
    assert len(collector.posts) == 1


def test_an_end_does_not_wait_for_a_collector_that_answers(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    with running(tmp_path, env) as agent:
        eventually(lambda: collector.posts, "the first request")
        assert seconds_to_leave(agent) < CLOSE_S
    assert collector.names[-1] == "agent.stopped"


# case 16
def test_a_dead_collector_costs_its_events_and_one_line(
    tmp_path: Path, env: dict[str, str], artifact: Path
) -> None:
    port = free_port()
    env["CLEF_AGENT_TELEMETRY_URL"] = f"http://u:pass-secret@127.0.0.1:{port}/v1/logs?key=q-secret"
    env["OTEL_EXPORTER_OTLP_TIMEOUT"] = "2"  # time for a second attempt, which the SDK tells of
    with running(tmp_path, env) as agent:
        line = agent.wait_for("telemetry does not get through")
        assert f"to http://127.0.0.1:{port}/v1/logs: Connection refused." in line
        eventually(lambda: undelivered(agent) == 2, "the count")
        replace_file(artifact, packed({"app": {"KEY": "new"}}))
        assert agent.refresh().status == 200
        eventually(lambda: undelivered(agent) == 3, "the count")
        with collecting(Collector(), port=port) as back:
            replace_file(artifact, packed())
            assert agent.refresh().status == 200
            agent.wait_for("telemetry gets through")
            assert back.names == ["artifact.refreshed"]
            assert exported(agent) == 1
        assert len([line for line in agent.err_lines if "telemetry" in line]) == 1
        assert all(line.startswith("[clef-agent] ") for line in agent.err_lines)
        assert seconds_to_leave(agent) < CLOSE_S + _BUSY_S
    assert "-secret" not in agent.said


@pytest.mark.parametrize("status", [400, 401, 500])
def test_what_a_collector_refuses_is_dropped_and_counted(
    tmp_path: Path, env: dict[str, str], collector: Collector, status: int
) -> None:
    collector.status = status
    with running(tmp_path, env) as agent:
        assert f"it answers {status}" in agent.wait_for("telemetry does not get through")
        eventually(lambda: undelivered(agent) == 2, "the count")
        assert len(collector.posts) == 1


def test_a_collector_that_asks_for_patience_gets_its_events_later(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    env["OTEL_EXPORTER_OTLP_TIMEOUT"] = "10"
    collector.status = 503
    collector.headers["Retry-After"] = "1"
    with running(tmp_path, env) as agent:
        eventually(lambda: collector.posts, "the first attempt")
        collector.status = 200
        eventually(lambda: exported(agent) == 2, "the second one")
        assert undelivered(agent) == 0
        assert agent.err == ""


def test_what_a_collector_does_not_want_of_a_batch_is_counted(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    collector.rejects = 1
    with running(tmp_path, env) as agent:
        agent.wait_for("it rejected 1 of 2 events")
        eventually(lambda: exported(agent) == 1, "the count")
        assert counter(agent, 'clef_agent_telemetry_dropped_total{reason="rejected"}') == 1


def test_a_redirect_is_not_followed(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    artifact.write_bytes(packed(with_token("tok-secret")))
    with collecting(Collector()) as elsewhere:
        collector.status = 307
        collector.headers["Location"] = f"{elsewhere.origin}/v1/logs?key=q-secret"
        with running(tmp_path, env) as agent:
            agent.wait_for("no redirect is followed")
            assert agent.stop() == 0
        assert elsewhere.posts == []
    assert "-secret" not in agent.said


def test_no_credential_goes_over_http_beyond_loopback(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    artifact.write_bytes(packed(with_token("tok-secret")))
    beyond = {
        "CLEF_AGENT_TELEMETRY_URL": "http://otel.example",
        "HTTP_PROXY": collector.origin,
        "OTEL_EXPORTER_OTLP_HEADERS": "x-key=header-secret",
    }
    with running(tmp_path, {**env, **beyond}) as agent:
        eventually(lambda: collector.posts, "the request, by way of the proxy")
        replace_file(artifact, packed(with_token("another-secret")))
        assert agent.refresh().status == 200
        assert agent.stop() == 0
    assert {post.target for post in collector.posts} == {"http://otel.example/v1/logs"}
    assert "-secret" not in repr([post.headers for post in collector.posts])
    (line,) = agent.err_lines
    assert "telemetry goes to http://otel.example/v1/logs without its headers" in line
    assert "-secret" not in agent.said


def test_malformed_headers_are_a_warning_without_their_value(
    tmp_path: Path, env: dict[str, str], artifact: Path, collector: Collector
) -> None:
    packed_headers = {"CLEF_TELEMETRY_HEADERS": "authorization header-secret,x-key=a"}
    artifact.write_bytes(packed({"telemetry": packed_headers}))
    with running(tmp_path, env) as agent:
        eventually(lambda: collector.posts, "the events")
        (line,) = agent.err_lines
        assert "CLEF_TELEMETRY_HEADERS: 1 of its entries" in line
    assert collector.posts[0].headers["x-key"] == "a"
    assert "-secret" not in agent.said


# --- what it costs ----------------------------------------------------------------------------


def imported(agent: AgentProcess) -> set[str]:
    """The packages that the interpreter has listed until now."""
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in agent.err_lines}


SDK = {"opentelemetry", "requests", "google"}


def test_the_sdk_is_not_loaded_before_the_first_secrets_can_be_served(
    tmp_path: Path, env: dict[str, str], collector: Collector
) -> None:
    with serving(ArtifactStore(packed(), hangs=True)) as store:
        env = {**env, "CLEF_AGENT_SOURCE": store.url}
        with AgentProcess(tmp_path, env, interpreter=("-X", "importtime")) as agent:
            eventually(lambda: store.asked_at, "the first fetch")
            assert agent.request("/v1/ready").status == 503
            time.sleep(1.5)  # longer than a batch waits for company
            assert SDK & imported(agent) == set()
            assert "uvicorn" in imported(agent)
            store.hangs = False
            store.released.set()
            eventually(lambda: collector.posts, "the events", patience_s=60)
            assert imported(agent) >= SDK


def test_without_a_collector_the_sdk_is_never_loaded(tmp_path: Path, env: dict[str, str]) -> None:
    del env["CLEF_AGENT_TELEMETRY_URL"]
    with AgentProcess(tmp_path, env, interpreter=("-X", "importtime")) as agent:
        agent.wait_until_ready()
        replace_file(Path(env["CLEF_AGENT_SOURCE"]), b"no artifact")
        assert agent.refresh().json["reason"] == "json_parse"
        assert agent.request("/v1/metrics").status == 200
        assert agent.stop() == 0
    assert SDK & imported(agent) == set()
    assert "uvicorn" in imported(agent)
