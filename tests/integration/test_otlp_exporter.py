"""The way to a collector that exists: what is sent, what is not, and what is made of answers."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import requests

from agent_process import eventually, free_port
from clef_agent import __version__
from clef_agent.telemetry.collector import read_collector
from clef_agent.telemetry.credentials import Credentials
from clef_agent.telemetry.otlp import OtlpExporter
from clef_agent.telemetry.outbox import Outcome, Outgoing
from clef_agent.telemetry.records import Origin, Record
from fakes import NOW
from otlp_collector import Collector, collecting
from tls import Tls, certified

ORIGIN = Origin("agent-7", "http", "api-gateway", "production")
FAILED = Record("fetch.failed", "WARN", {"error": "no route", "diskCacheAvailable": True})
REFRESHED = Record("artifact.refreshed", "INFO", {"revision": "r1", "keyCount": 3})
#: Neither a proxy nor an authority of the machine's may take part.
_FOREIGN = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "REQUESTS_CA_BUNDLE")


@pytest.fixture(autouse=True)
def plain_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in _FOREIGN:
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))


@pytest.fixture
def collector() -> Iterator[Collector]:
    with collecting(Collector()) as collector:
        yield collector


@dataclass
class Way:
    """An exporter, and what it shows the collector."""

    exporter: OtlpExporter
    credentials: Credentials

    def send(self, *records: Record) -> Outcome:
        batch = [Outgoing(record, NOW, ORIGIN) for record in records or (FAILED,)]
        return self.exporter.export(batch)

    def pack(self, **secrets: str) -> None:
        self.credentials.take(secrets.get)


def way_to(url: str, **env: str) -> Way:
    collector, _ = read_collector(url, {"OTEL_EXPORTER_OTLP_TIMEOUT": "5", **env})
    credentials = Credentials(collector)
    return Way(OtlpExporter(collector, credentials), credentials)


def url_of(collector: Collector) -> str:
    return f"{collector.origin}/v1/logs"


# --- what is sent -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("env", "content_type"),
    [
        ({}, "application/x-protobuf"),
        ({"OTEL_EXPORTER_OTLP_COMPRESSION": "gzip"}, "application/x-protobuf"),
        ({"OTEL_EXPORTER_OTLP_PROTOCOL": "http/json"}, "application/json"),
        (
            {
                "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json",
                "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
            },
            "application/json",
        ),
    ],
)
def test_a_record_arrives_as_it_is_in_each_encoding(
    collector: Collector, env: dict[str, str], content_type: str
) -> None:
    assert way_to(url_of(collector), **env).send(FAILED, REFRESHED) == Outcome()
    (post,) = collector.posts
    assert (post.target, post.headers["content-type"]) == ("/v1/logs", content_type)
    failed, refreshed = post.records
    assert failed.event_name == failed.attributes["event.name"] == "clef.fetch.failed"
    assert failed.body == "fetch.failed"
    assert (failed.severity, failed.severity_text) == (13, "WARN")
    assert failed.attributes["clef.error"] == "no route"
    assert failed.attributes["clef.diskCacheAvailable"] is True
    assert failed.time_s == failed.observed_s == NOW
    assert failed.scope == "clef.runtime"
    assert failed.resource.items() >= ORIGIN.attributes().items()
    assert failed.resource["service.version"] == __version__
    assert (refreshed.severity, refreshed.severity_text) == (9, "INFO")
    assert refreshed.attributes["clef.keyCount"] == 3


def test_json_has_numbers_for_enums_and_strings_for_long_integers(collector: Collector) -> None:
    way_to(url_of(collector), OTEL_EXPORTER_OTLP_PROTOCOL="http/json").send(REFRESHED)
    (of_resource,) = json.loads(collector.posts[0].body)["resourceLogs"]
    (record,) = of_resource["scopeLogs"][0]["logRecords"]
    assert record["severityNumber"] == 9
    assert record["timeUnixNano"] == str(int(NOW * 1e9))
    assert {"key": "clef.keyCount", "value": {"intValue": "3"}} in record["attributes"]
    assert "traceId" not in record


def test_the_resource_may_be_added_to_and_not_replaced(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_SERVICE_NAME", "the-application")
    monkeypatch.setenv(
        "OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=eu,clef.identity=x,nonsense"
    )
    way_to(url_of(collector)).send()
    resource = collector.records[0].resource
    assert resource["deployment.environment.name"] == "eu"
    assert (resource["service.name"], resource["clef.identity"]) == ("clef-agent", "api-gateway")


def test_path_and_query_of_the_url_are_kept(collector: Collector) -> None:
    way_to(f"{collector.origin}/otlp/v1/logs?tenant=a%20b").send()
    assert collector.posts[0].target == "/otlp/v1/logs?tenant=a%20b"


# --- credentials ------------------------------------------------------------------------------


def test_credentials_are_those_of_the_moment(collector: Collector) -> None:
    way = way_to(url_of(collector), OTEL_EXPORTER_OTLP_HEADERS="x-key=of-the-environment")
    way.send()
    way.pack(CLEF_TELEMETRY_TOKEN="first")
    way.send()
    way.pack(CLEF_TELEMETRY_HEADERS="authorization=Basic%20second,x-scope=7")
    way.send()
    shown = [
        {name: post.headers.get(name) for name in ("authorization", "x-key", "x-scope")}
        for post in collector.posts
    ]
    assert shown == [
        {"authorization": None, "x-key": "of-the-environment", "x-scope": None},
        {"authorization": "Bearer first", "x-key": None, "x-scope": None},
        {"authorization": "Basic second", "x-key": None, "x-scope": "7"},
    ]


def test_what_the_sdk_reads_of_the_environment_by_itself_is_not_sent(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_HEADERS", "x-key=a,x-bad=%0D%0Ax-injected: 1")
    way = way_to(url_of(collector))
    way.pack(CLEF_TELEMETRY_TOKEN="tok")
    assert way.send() == Outcome()
    headers = collector.posts[0].headers
    assert headers["authorization"] == "Bearer tok"
    assert {"x-key", "x-bad", "x-injected"}.isdisjoint(headers)


def test_userinfo_of_the_url_is_sent_as_basic(collector: Collector) -> None:
    way_to(url_of(collector).replace("://", "://reader:p%40ss@")).send()
    expected = base64.b64encode(b"reader:p@ss").decode()
    assert collector.posts[0].headers["authorization"] == f"Basic {expected}"


def test_a_netrc_file_has_no_say(collector: Collector, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text("machine 127.0.0.1 login other password other\n")
    way = way_to(url_of(collector))
    way.send()
    way.pack(CLEF_TELEMETRY_TOKEN="tok")
    way.send()
    assert [post.headers.get("authorization") for post in collector.posts] == [None, "Bearer tok"]


def test_no_cookie_is_kept(collector: Collector) -> None:
    collector.headers["Set-Cookie"] = "session=1"
    way = way_to(url_of(collector))
    way.send()
    way.send()
    assert "cookie" not in collector.posts[1].headers


# --- proxies ----------------------------------------------------------------------------------


def test_a_proxy_is_honoured_and_sees_no_credential_over_http(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", collector.origin)
    way = way_to("http://otel.example/v1/logs", OTEL_EXPORTER_OTLP_HEADERS="x-key=a")
    way.pack(CLEF_TELEMETRY_TOKEN="tok")
    assert way.send() == Outcome()
    (post,) = collector.posts
    assert post.target == "http://otel.example/v1/logs"
    assert {"authorization", "x-key"}.isdisjoint(post.headers)


def test_no_proxy_reads_what_goes_to_loopback(
    collector: Collector, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert way_to(url_of(collector)).send() == Outcome()


# --- answers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [400, 401, 404, 413, 500, 501])
def test_a_refusal_is_final(collector: Collector, status: int) -> None:
    collector.status = status
    assert way_to(url_of(collector)).send() == Outcome(trouble=f"it answers {status}", is_lost=True)
    assert len(collector.posts) == 1


@pytest.mark.parametrize("status", [429, 502, 503, 504])
def test_a_collector_that_asks_for_patience_is_asked_again(
    collector: Collector, status: int
) -> None:
    collector.status = status
    collector.headers["Retry-After"] = "0"
    outcome = way_to(url_of(collector)).send()
    assert outcome == Outcome(trouble=f"it answers {status}", is_lost=True)
    assert len(collector.posts) > 1


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_no_redirect_is_followed(collector: Collector, status: int) -> None:
    with collecting(Collector()) as elsewhere:
        collector.status = status
        collector.headers["Location"] = f"{elsewhere.origin}/v1/logs?key=query-secret"
        way = way_to(url_of(collector))
        way.pack(CLEF_TELEMETRY_TOKEN="tok")
        outcome = way.send()
        assert elsewhere.posts == []
    assert outcome.is_lost
    assert outcome.trouble == f"it answers {status}, and no redirect is followed"
    assert len(collector.posts) == 1


def test_a_session_follows_no_redirect_even_where_it_is_asked_to(collector: Collector) -> None:
    with collecting(Collector()) as elsewhere:
        collector.status = 307
        collector.headers["Location"] = url_of(elsewhere)
        session = way_to(url_of(collector)).exporter._session
        with pytest.raises(requests.RequestException):
            session.request(
                "POST", url_of(collector), headers={}, data=b"", allow_redirects=True, timeout=5
            )
        assert elsewhere.posts == []


@pytest.mark.parametrize("encoding", ["http/protobuf", "http/json"])
def test_a_partial_success_says_how_many_are_lost(collector: Collector, encoding: str) -> None:
    collector.rejects = 1
    way = way_to(url_of(collector), OTEL_EXPORTER_OTLP_PROTOCOL=encoding)
    assert way.send(FAILED, REFRESHED) == Outcome(rejected=1, trouble="it rejected 1 of 2 events")
    collector.rejects = 0
    assert way.send() == Outcome()
    assert len(collector.posts) == 2


@pytest.mark.parametrize("answer", [b"", b"<html>ok</html>", b"[]", b'{"partialSuccess":7}'])
@pytest.mark.parametrize("content_type", ["application/json", "application/x-protobuf"])
def test_a_success_that_says_nothing_is_a_success(
    collector: Collector, answer: bytes, content_type: str
) -> None:
    collector.raw = (content_type, answer)
    assert way_to(url_of(collector)).send() == Outcome()


def test_an_endless_answer_is_not_read_to_its_end(collector: Collector) -> None:
    collector.raw = ("application/x-protobuf", b"\0" * 50_000_000)
    assert way_to(url_of(collector)).send() == Outcome()
    eventually(lambda: collector.broken_off, "the collector to notice")


# --- no answer --------------------------------------------------------------------------------


def trouble_of(way: Way) -> str:
    outcome = way.send()
    assert outcome.is_lost
    assert outcome.trouble is not None
    return outcome.trouble


def test_a_dead_collector_is_named_as_that() -> None:
    way = way_to(f"http://127.0.0.1:{free_port()}/v1/logs", OTEL_EXPORTER_OTLP_TIMEOUT="0.3")
    assert trouble_of(way) == "Connection refused"


# case 16
def test_a_collector_that_hangs_is_given_up(collector: Collector) -> None:
    collector.hangs = True
    began = time.monotonic()
    way = way_to(url_of(collector), OTEL_EXPORTER_OTLP_TIMEOUT="0.3")
    assert "no answer in time" in trouble_of(way)
    assert time.monotonic() - began < 5


def test_a_connection_that_died_is_replaced_silently(collector: Collector) -> None:
    collector.hangs_up = True
    way = way_to(url_of(collector))
    for _ in range(3):
        assert way.send() == Outcome()
    assert len(collector.posts) == 3


def test_no_trouble_tells_a_credential_or_a_query(collector: Collector) -> None:
    collector.status = 401
    secrets = ("query-secret", "pass-secret", "tok-secret")
    told = []
    for url in (url_of(collector), f"http://127.0.0.1:{free_port()}/v1/logs"):
        with_secrets = url.replace("://", "://reader:pass-secret@") + "?key=query-secret"
        way = way_to(with_secrets, OTEL_EXPORTER_OTLP_TIMEOUT="0.3")
        way.pack(CLEF_TELEMETRY_TOKEN="tok-secret")
        told.append(trouble_of(way))
    assert [secret for secret in secrets if secret in " ".join(told)] == []


# --- TLS --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return certified(tmp_path_factory.mktemp("tls"))


def test_the_authorities_of_ssl_cert_file_are_trusted(tls: Tls) -> None:
    with collecting(Collector(), tls=tls.server) as collector:
        url = url_of(collector)
        impatient = way_to(url, OTEL_EXPORTER_OTLP_TIMEOUT="0.3")
        assert "certificate is not trusted" in trouble_of(impatient)
        way = way_to(url, SSL_CERT_FILE=str(tls.ca_file))
        way.pack(CLEF_TELEMETRY_TOKEN="tok")
        assert way.send() == Outcome()
        assert [post.headers["authorization"] for post in collector.posts] == ["Bearer tok"]


def test_authorities_for_opentelemetry_alone_come_before_those_for_all(
    tls: Tls, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    others = certified(tmp_path)
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_CERTIFICATE", str(tls.ca_file))
    # requests by itself would take these before any that it is given.
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(others.ca_file))
    env = {
        "OTEL_EXPORTER_OTLP_CERTIFICATE": str(tls.ca_file),
        "SSL_CERT_FILE": str(others.ca_file),
    }
    with collecting(Collector(), tls=tls.server) as collector:
        assert way_to(url_of(collector), **env).send() == Outcome()


def test_authorities_that_cannot_be_read_are_named_as_that(tls: Tls) -> None:
    with collecting(Collector(), tls=tls.server) as collector:
        way = way_to(url_of(collector), SSL_CERT_FILE="/nowhere/ca.pem")
        assert "SSL_CERT_FILE" in trouble_of(way)
