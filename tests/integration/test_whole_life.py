"""One agent through all that can happen to it, and what left it on the way: every event, no secret.

It takes a little over the shortest TTL there is, 30 s; the tests look at the same life.
"""

from __future__ import annotations

import base64
import contextlib
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

import pytest

from agent_process import AgentProcess, Response, eventually
from artifact_store import ArtifactStore, serving
from clef_agent import __version__
from fakes import AGE_KEY, ENVIRONMENT, IDENTITY, OTHER_AGE_RECIPIENT, packed
from otlp_collector import Collector, Received, collecting
from refresh_fakes import revoked

TTL_S = 30
LATE_S = TTL_S + 30.0

#: Characters that base64 and URLs write differently; what is sent as a header has no space.
SECRETS = {
    "the age key": AGE_KEY,
    "the bearer token": "bearer/token+of~the-agent",
    "the source token": "token/of+the~source",
    "the signed query": "signature/of+the~source",
    "the telemetry userinfo": "userinfo-of~the-collector",
    "the telemetry query": "query-of~the-collector",
    "the environment header": "header/of+the~environment",
    "the first packed header": "first/packed+header~value",
    "the second packed header": "second/packed+header~value",
    "the first value": "first/value+in the~payload",
    "the second value": "second/value+in the~payload",
}
#: What the collector is shown by right, beside the records.
COLLECTORS_OWN = {
    "the telemetry query",
    "the first packed header",
    "the second packed header",
}


@dataclass
class Life:
    """What left an agent, from its start to its end."""

    agent: AgentProcess
    collector: Collector
    store: ArtifactStore
    metrics: str = ""
    bodies: list[bytes] = field(default_factory=list)
    secret_bodies: list[bytes] = field(default_factory=list)
    bad_artifacts: list[bytes] = field(default_factory=list)

    def see(self, response: Response, status: int) -> Response:
        """Keeps an answer that may not hold a secret."""
        assert response.status == status, response.body
        self.bodies.append(response.body + repr(response.headers).encode())
        return response

    def records(self, name: str) -> list[Received]:
        return self.collector.of(name)


@pytest.fixture(scope="module")
def life(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Life]:
    store = ArtifactStore(packed(payload("first")))
    with contextlib.ExitStack() as stack:
        collector = stack.enter_context(collecting(Collector()))
        stack.enter_context(serving(store))
        home = tmp_path_factory.mktemp("life")
        agent = stack.enter_context(AgentProcess(home, environment(store, collector)))
        life = Life(agent, collector, store)
        agent.wait_until_ready()
        ask_in_vain(life)
        rotate(life)
        reject(life)
        expire(life)
        revoke(life)
        starve(life)
        life.metrics = agent.request("/v1/metrics").body.decode()
        assert agent.stop() == 0
        yield life


def payload(ordinal: str) -> dict[str, dict[str, str]]:
    header = quote(f"Bearer {SECRETS[f'the {ordinal} packed header']}", safe="")
    return {
        "app": {"KEY": SECRETS[f"the {ordinal} value"]},
        "telemetry": {"CLEF_TELEMETRY_HEADERS": f"authorization={header}"},
    }


def environment(store: ArtifactStore, collector: Collector) -> dict[str, str]:
    telemetry = collector.origin.replace(
        "://", f"://agent:{quote(SECRETS['the telemetry userinfo'])}@"
    )
    return {
        "CLEF_AGENT_SOURCE": f"{store.url}?X-Amz-Signature={SECRETS['the signed query']}",
        "CLEF_AGENT_SOURCE_TOKEN": SECRETS["the source token"],
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_TOKEN": SECRETS["the bearer token"],
        "CLEF_AGENT_ID": "agent-7",
        "CLEF_AGENT_CACHE_TTL": str(TTL_S),
        "CLEF_AGENT_LOG_LEVEL": "debug",
        "CLEF_AGENT_TELEMETRY_URL": f"{telemetry}?key={SECRETS['the telemetry query']}",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-key={SECRETS['the environment header']}",
    }


# --- what happens to it -----------------------------------------------------------------------


def refresh(life: Life) -> Response:
    answers: list[Response] = []

    def is_answered() -> bool:
        token = SECRETS["the bearer token"]
        answers.append(life.agent.request("/v1/refresh", method="POST", token=token))
        return answers[-1].status != 429

    eventually(is_answered, "a refresh that does not come too soon")
    return answers[-1]


def ask(life: Life, path: str) -> Response:
    return life.agent.request(path, token=SECRETS["the bearer token"])


def ask_in_vain(life: Life) -> None:
    served = ask(life, "/v1/secrets")
    assert served.status == 200
    life.secret_bodies.append(served.body)
    life.see(life.agent.request("/v1/secrets", token="wrong"), 401)
    life.see(life.agent.request("/v1/secrets", headers={"Host": "attacker.example"}), 403)
    life.see(ask(life, "/v1/secrets/no_such_key"), 404)
    life.see(ask(life, "/v1/secrets?wait=0"), 400)
    life.see(ask(life, "/v1/health"), 200)


def rotate(life: Life) -> None:
    eventually(lambda: life.records("agent.started"), "the first events")
    life.store.body = packed(payload("second"))
    life.see(refresh(life), 200)
    life.secret_bodies.append(ask(life, "/v1/secrets").body)


def reject(life: Life) -> None:
    for body, reason in (
        (packed(payload("first"), recipient=OTHER_AGE_RECIPIENT), "decrypt"),
        (b"<html>no artifact</html>", "json_parse"),
    ):
        life.bad_artifacts.append(body)
        life.store.body = body
        assert life.see(refresh(life), 503).json["reason"] == reason
    assert ask(life, "/v1/secrets").status == 200


def expire(life: Life) -> None:
    now = time.time()
    life.store.body = packed(payload("second"), packed_at=now - 60, expires_at=now + 3)
    life.see(refresh(life), 200)
    eventually(lambda: life.records("artifact.expired"), "the expiry to be told")
    life.see(ask(life, "/v1/secrets"), 503)


def revoke(life: Life) -> None:
    life.store.body = revoked(life.store.body)
    assert life.see(refresh(life), 503).json["reason"] == "revoked"
    life.see(ask(life, "/v1/secrets"), 503)
    life.see(life.agent.request("/v1/ready"), 503)


def starve(life: Life) -> None:
    life.store.body = packed(payload("second"))
    life.see(refresh(life), 200)
    for status in (401, 404, 500):
        life.store.status = status
        assert life.see(refresh(life), 503).json["reason"] == "fetch_failed"
    eventually(lambda: life.records("cache.expired"), "the TTL to pass", patience_s=LATE_S)
    assert life.see(ask(life, "/v1/secrets"), 503).json["reason"] == "cache_expired"


# --- every event ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "severity", "attributes"),
    [
        ("agent.started", (9, "INFO"), {"clef.version": __version__}),
        ("agent.stopped", (9, "INFO"), {"clef.reason": "signal", "clef.uptimeSeconds": int}),
        (
            "artifact.refreshed",
            (9, "INFO"),
            {"clef.revision": str, "clef.keyCount": 2, "clef.kmsEnvelope": False},
        ),
        ("artifact.revoked", (13, "WARN"), {"clef.revokedAt": "2027-01-15T08:00:00Z"}),
        ("artifact.expired", (13, "WARN"), {"clef.expiresAt": str}),
        ("fetch.failed", (13, "WARN"), {"clef.error": str, "clef.diskCacheAvailable": False}),
        (
            "cache.expired",
            (17, "ERROR"),
            {"clef.cacheTtlSeconds": TTL_S, "clef.diskCachePurged": False},
        ),
        ("artifact.invalid", (17, "ERROR"), {"clef.reason": "decrypt", "clef.error": str}),
    ],
)
def test_each_event_arrives_as_the_table_says(
    life: Life, name: str, severity: tuple[int, str], attributes: Mapping[str, object]
) -> None:
    record = life.records(name)[0]
    assert record.event_name == f"clef.{name}"
    assert (record.severity, record.severity_text) == severity
    assert record.body == name
    expected = {"event.name": f"clef.{name}", **attributes}
    assert record.attributes.keys() == expected.keys()
    for key, value in expected.items():
        found = record.attributes[key]
        assert type(found) is value if isinstance(value, type) else found == value, key
    assert record.resource.items() >= {
        ("service.name", "clef-agent"),
        ("service.version", __version__),
        ("clef.agent.id", "agent-7"),
        ("clef.identity", IDENTITY),
        ("clef.environment", ENVIRONMENT),
        ("clef.source.type", "http"),
    }


def test_nothing_but_the_eight_events_arrives_and_in_the_order_of_what_happened(
    life: Life,
) -> None:
    names = life.collector.names
    assert list(dict.fromkeys(names)) == [
        "artifact.refreshed",
        "agent.started",
        "artifact.invalid",
        "artifact.expired",
        "artifact.revoked",
        "fetch.failed",
        "cache.expired",
        "agent.stopped",
    ]
    assert names.count("agent.started") == names.count("agent.stopped") == 1
    moments = [record.time_s for record in life.collector.records]
    assert moments == sorted(moments)
    assert all(abs(moment - time.time()) < 600 for moment in moments)


def test_an_uptime_is_that_of_the_agent(life: Life) -> None:
    (stopped,) = life.records("agent.stopped")
    assert TTL_S <= stopped.attributes["clef.uptimeSeconds"] < 600


def test_an_errors_text_is_that_of_the_log(life: Life) -> None:
    for record in (*life.records("fetch.failed"), *life.records("artifact.invalid")):
        assert record.attributes["clef.error"] in life.agent.err


def test_the_metrics_tell_the_same(life: Life) -> None:
    # The agent's own polls may meet one of them beside the refreshes that were asked for.
    rejected = sum(artifact in life.bad_artifacts for artifact in life.store.sent)
    assert rejected >= len(life.bad_artifacts) == 2
    for line in (
        'clef_agent_refreshes_total{result="changed"} 4.0',
        f'clef_agent_refreshes_total{{result="rejected"}} {rejected}.0',
        'clef_agent_requests_total{route="/v1/secrets",status="401"} 1.0',
        "clef_agent_cache_expirations_total 1.0",
        "clef_agent_fetch_duration_seconds_count",
        "clef_agent_decrypt_duration_seconds_count 4.0",
        "clef_agent_last_success_age_seconds",
        'clef_agent_telemetry_dropped_total{reason="undelivered"} 0.0',
        "clef_agent_telemetry_exported_total",
    ):
        assert f"\n{line}" in life.metrics
    assert 'result="fetch_failed"} 0.0' not in life.metrics


# --- and no secret ----------------------------------------------------------------------------


def disguises(secret: str) -> set[bytes]:
    """The ways in which a secret can be written into a text."""
    plain = secret.encode()
    found = {plain, quote(secret).encode(), quote(secret, safe="").encode()}
    found |= {plain.hex().encode(), plain.hex().upper().encode()}
    for shift in range(3):  # where in a larger text it stands decides what base64 makes of it
        shifted = bytes(shift) + plain
        kept = slice(-(-8 * shift // 6), 8 * len(shifted) // 6)
        found.add(base64.b64encode(shifted)[kept])
        found.add(base64.urlsafe_b64encode(shifted)[kept])
    return found


def secrets_in(octets: bytes) -> set[str]:
    return {
        name
        for name, secret in SECRETS.items()
        if any(disguise in octets for disguise in disguises(secret))
    }


@pytest.mark.parametrize("secret", SECRETS.values(), ids=SECRETS)
def test_a_secret_would_be_seen_however_it_were_written(secret: str) -> None:
    plain = secret.encode()
    (name,) = secrets_in(plain)
    for written in (
        quote(secret, safe="").encode(),
        plain.hex().encode(),
        *(base64.b64encode(bytes(before) + plain + b"after") for before in range(3)),
        *(base64.urlsafe_b64encode(bytes(before) + plain + b"after") for before in range(3)),
    ):
        assert secrets_in(b"before " + written + b" after") == {name}


def test_no_secret_is_in_a_log_line(life: Life) -> None:
    assert secrets_in(life.agent.said.encode()) == set()


def test_no_secret_is_in_what_the_collector_gets_but_its_own_in_the_headers(life: Life) -> None:
    assert secrets_in(b"\n".join(post.content for post in life.collector.posts)) == set()
    heads = "\n".join(f"{post.target} {post.headers}" for post in life.collector.posts)
    assert secrets_in(heads.encode()) == COLLECTORS_OWN


def test_no_secret_is_in_an_answer_that_is_not_to_hold_one(life: Life) -> None:
    assert len(life.bodies) > 10
    assert secrets_in(b"\n".join(life.bodies)) == set()
    assert secrets_in(life.metrics.encode()) == set()
    assert {"the first value", "the second value"} <= secrets_in(b"\n".join(life.secret_bodies))


def test_the_headers_are_those_of_the_newest_artifact(life: Life) -> None:
    shown = [post.headers["authorization"] for post in life.collector.posts]
    assert shown[0] == f"Bearer {SECRETS['the first packed header']}"
    assert shown[-1] == f"Bearer {SECRETS['the second packed header']}"
    assert set(shown) == {shown[0], shown[-1]}


def test_nothing_of_it_is_left_on_the_disk(life: Life) -> None:
    written = [path for path in Path(life.agent.runtime_directory).rglob("*") if path.is_file()]
    assert written == []
