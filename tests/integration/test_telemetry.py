"""What real agents tell a collector, and that nothing secret leaves them by any way."""

from __future__ import annotations

import base64
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from agent_process import TOKEN, AgentProcess, eventually, free_port, replace_file, running
from artifact_store import ArtifactStore, serving
from clef_agent import __version__
from fakes import AGE_KEY, ENVIRONMENT, IDENTITY, changed, packed
from otlp_collector import Collector, Received, collecting

SECRET_VALUES = ("correct-horse-battery", "staple-of-the-payload")
PAYLOAD = {"app": {"DB": SECRET_VALUES[0], "API": SECRET_VALUES[1]}}
#: A signal's second of patience for telemetry, and what a busy machine adds.
LONGER_S = 1.0 + 1.5


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting(Collector()) as collector:
        yield collector


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact.json"
    path.write_bytes(packed(PAYLOAD))
    return path


def environment(collector: Collector, source: str, **more: str) -> dict[str, str]:
    return {
        "CLEF_AGENT_SOURCE": source,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_TELEMETRY_URL": collector.origin,
        "CLEF_AGENT_ID": "agent-of-the-tests",
        **more,
    }


def one(collector: Collector, name: str) -> Received:
    """The first record called ``name``, waited for."""
    eventually(lambda: collector.of(name), f"{name} at the collector")
    return collector.of(name)[0]


def told(record: Received) -> dict[str, Any]:
    return {k: v for k, v in record.attributes.items() if k != "event.name"}


def test_the_life_of_an_agent_is_told_in_records_of_opentelemetry(
    collector: Collector, artifact: Path, tmp_path: Path
) -> None:
    began = time.time()
    with running(tmp_path, environment(collector, str(artifact))) as agent:
        started, refreshed = one(collector, "agent.started"), one(collector, "artifact.refreshed")
        assert agent.stop() == 0
    stopped = one(collector, "agent.stopped")
    assert collector.names == ["artifact.refreshed", "agent.started", "agent.stopped"]
    for record in (started, refreshed, stopped):
        assert record.event_name == record.attributes["event.name"] == f"clef.{record.name}"
        assert record.body in (record.name, record.event_name)
        assert (record.severity, record.severity_text) == (9, "INFO")
        assert began - 1 <= record.time_s <= time.time() + 1
        resource = dict(record.resource)
        assert resource["service.name"] == "clef-agent"
        assert resource["service.version"] == __version__
        assert resource["clef.agent.id"] == "agent-of-the-tests"
        assert resource["clef.identity"] == IDENTITY
        assert resource["clef.environment"] == ENVIRONMENT
        assert resource["clef.source.type"] == "file"
    assert told(started) == {"clef.version": __version__}
    assert told(refreshed)["clef.keyCount"] == 2
    assert told(refreshed)["clef.kmsEnvelope"] is False
    assert told(refreshed)["clef.revision"]
    assert told(stopped)["clef.reason"] == "signal"
    assert told(stopped)["clef.uptimeSeconds"] >= 0


def test_what_goes_wrong_is_told_with_its_severity(
    collector: Collector, artifact: Path, tmp_path: Path
) -> None:
    with running(tmp_path, environment(collector, str(artifact))) as agent:
        replace_file(artifact, b"not an artifact")
        agent.refresh()
        invalid = one(collector, "artifact.invalid")
        assert (invalid.severity_text, told(invalid)["clef.reason"]) == ("ERROR", "json_parse")
        artifact.unlink()
        agent.refresh()
        failed = one(collector, "fetch.failed")
        assert (failed.severity_text, told(failed)["clef.diskCacheAvailable"]) == ("WARN", False)
        assert str(artifact) in told(failed)["clef.error"]
        artifact.write_bytes(changed(packed(PAYLOAD), revokedAt="2026-01-01T00:00:00Z"))
        agent.refresh()
        revoked = one(collector, "artifact.revoked")
        assert revoked.severity_text == "WARN"
        assert told(revoked) == {"clef.revokedAt": "2026-01-01T00:00:00Z"}
        expires_at = time.time() + 2
        replace_file(artifact, packed(PAYLOAD, expires_at=expires_at))
        agent.refresh()
        expired = one(collector, "artifact.expired")
        assert expired.severity_text == "WARN"
        assert told(expired)["clef.expiresAt"]


def test_a_cache_that_passes_its_time_is_told_as_an_error(
    collector: Collector, tmp_path: Path
) -> None:
    with serving(ArtifactStore(packed(PAYLOAD))) as store:
        env = environment(collector, store.url, CLEF_AGENT_CACHE_TTL="30")
        with running(tmp_path, env) as agent:
            store.status = 500
            expired = one_within(collector, "cache.expired", 60)
            assert expired.severity_text == "ERROR"
            assert told(expired) == {"clef.cacheTtlSeconds": 30, "clef.diskCachePurged": False}
            assert expired.resource["clef.source.type"] == "http"
            assert agent.secrets().status == 503


def one_within(collector: Collector, name: str, patience_s: float) -> Received:
    eventually(lambda: collector.of(name), f"{name} at the collector", patience_s=patience_s)
    return collector.of(name)[0]


def test_a_start_that_fails_is_told_before_the_end(collector: Collector, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(changed(packed(PAYLOAD), ciphertextHash="0" * 64))
    with AgentProcess(tmp_path, environment(collector, str(artifact))) as agent:
        assert agent.exit_code() == 1
    assert one(collector, "artifact.invalid").attributes["clef.reason"] == "integrity"
    assert one(collector, "agent.stopped").attributes["clef.reason"] == "error"


# --- credentials come with the secrets ------------------------------------------------------------


def test_headers_come_from_the_secrets_and_change_with_them(
    collector: Collector, artifact: Path, tmp_path: Path
) -> None:
    replace_file(artifact, packed({"app": {"CLEF_TELEMETRY_TOKEN": "first-token"}}))
    with running(tmp_path, environment(collector, str(artifact))) as agent:
        one(collector, "agent.started")
        assert collector.posts[-1].headers["authorization"] == "Bearer first-token"
        replace_file(artifact, packed({"app": {"CLEF_TELEMETRY_HEADERS": "x-key=a%20b,x-two=2"}}))
        agent.refresh()
        eventually(lambda: len(collector.of("artifact.refreshed")) == 2, "the second artifact")
        headers = collector.posts[-1].headers
        assert (headers["x-key"], headers["x-two"]) == ("a b", "2")
        assert "authorization" not in headers


def test_just_in_time_the_headers_are_known_too(
    collector: Collector, artifact: Path, tmp_path: Path
) -> None:
    replace_file(artifact, packed({"CLEF_TELEMETRY_TOKEN": "a-token"}))
    env = environment(collector, str(artifact), CLEF_AGENT_CACHE_TTL="0")
    with running(tmp_path, env):
        one(collector, "agent.started")
        assert collector.posts[-1].headers["authorization"] == "Bearer a-token"


# --- a collector that fails -----------------------------------------------------------------------


# case 16
@pytest.mark.parametrize("fate", ["dead", "hung", "broken"])
def test_a_collector_that_fails_holds_up_nothing(
    collector: Collector, artifact: Path, fate: str, tmp_path: Path
) -> None:
    env = environment(collector, str(artifact))
    collector.hangs = fate == "hung"
    collector.status = 500 if fate == "broken" else 200
    if fate == "dead":
        env["CLEF_AGENT_TELEMETRY_URL"] = f"http://127.0.0.1:{free_port()}"
    with running(tmp_path, env) as agent:
        for _ in range(50):
            began = time.monotonic()
            assert agent.secrets().status == 200
            assert time.monotonic() - began < 1
        began = time.monotonic()
        assert agent.stop() == 0
        assert time.monotonic() - began < LONGER_S


def test_drops_and_exports_are_counted(
    collector: Collector, artifact: Path, tmp_path: Path
) -> None:
    collector.status = 400
    with running(tmp_path, environment(collector, str(artifact))) as agent:

        def metrics() -> str:
            return agent.request("/v1/metrics", token=None).body.decode()

        eventually(lambda: 'reason="undelivered"} 2.0' in metrics(), "two events dropped")
        collector.status = 200
        replace_file(artifact, packed({"A": "b"}))
        agent.refresh()
        eventually(lambda: "telemetry_exported_total 1.0" in metrics(), "one event exported")


def test_without_telemetry_nothing_of_it_is_loaded(artifact: Path, tmp_path: Path) -> None:
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with AgentProcess(tmp_path, env, interpreter=("-X", "importtime")) as agent:
        agent.wait_until_ready()
        agent.stop()
        assert "uvicorn" in agent.err
        assert re.search(r"\| +(opentelemetry|requests|google)\b", agent.err) is None


# --- nothing secret leaves ------------------------------------------------------------------------


def spellings(secret: str) -> set[str]:
    raw = secret.encode()
    return {
        secret,
        quote(secret, safe=""),
        raw.hex(),
        base64.b64encode(raw).decode().rstrip("="),
        base64.urlsafe_b64encode(raw).decode().rstrip("="),
    }


def test_no_secret_leaves_by_any_way_but_the_one_that_serves_it(
    collector: Collector, tmp_path: Path
) -> None:
    # case 5
    telemetry_secret, source_token, password = "otlp-header-secret", "source-tok-en", "pass-w0rd"
    query = "X-Sig=signed-query-secret"
    payload = {**PAYLOAD, "own": {"CLEF_TELEMETRY_HEADERS": f"x-api-key={telemetry_secret}"}}
    with (
        serving(ArtifactStore(packed(payload))) as store,
        running(
            tmp_path,
            environment(
                collector,
                f"{store.url}?{query}",
                CLEF_AGENT_SOURCE_TOKEN=source_token,
                CLEF_AGENT_TELEMETRY_URL=collector.origin.replace("://", f"://reader:{password}@"),
                CLEF_AGENT_CACHE_PATH=str(tmp_path / "cache"),
                CLEF_AGENT_LOG_LEVEL="debug",
            ),
        ) as agent,
    ):
        bodies: list[bytes] = []

        def ask(path: str, *, token: str | None = TOKEN, method: str = "GET") -> None:
            answer = agent.request(path, token=token, method=method)
            if answer.status != 200 or "metrics" in path:
                bodies.append(answer.body + repr(answer.headers).encode())

        def rounds() -> None:
            for path in (
                "/v1/secrets",
                "/v1/secrets/NONE",
                "/v1/keys",
                "/v1/nowhere",
                "/v1/metrics",
            ):
                ask(path)
                ask(path, token="wrong")
            bodies.append(agent.refresh().body)

        rounds()
        store.body = packed({**payload, "more": {"X": "another-secret-value"}})
        rounds()
        for body, status in (
            (b"[]", 200),
            (changed(packed(payload), ciphertextHash="0" * 64), 200),
            (b"down", 500),
            (b"who", 403),
        ):
            store.body, store.status = body, status
            rounds()
        store.hangs = False
        store.status = 200
        store.body = packed(payload, expires_at=time.time() + 1)
        rounds()
        eventually(lambda: agent.request("/v1/ready").status == 503, "the expiry")
        rounds()
        store.body = changed(packed(payload), revokedAt="2026-01-01T00:00:00Z")
        rounds()
        one(collector, "artifact.revoked")
        agent.stop()
        left = "\n".join(
            (
                agent.said,
                *(body.decode("latin-1") for body in bodies),
                *(post.content.decode("latin-1") for post in collector.posts),
                *(
                    path.read_text("latin-1")
                    for path in (tmp_path / "cache").rglob("*")
                    if path.is_file()
                ),
            )
        )
        # The collector is shown what it asks for in its header; everything else is a leak.
        assert any(p.headers.get("x-api-key") == telemetry_secret for p in collector.posts)
    secrets = (
        *SECRET_VALUES,
        "another-secret-value",
        AGE_KEY,
        TOKEN,
        telemetry_secret,
        source_token,
        password,
        "signed-query-secret",
    )
    assert len(left) > 5000
    leaks = [s for secret in secrets for s in spellings(secret) if s in left]
    assert leaks == []
