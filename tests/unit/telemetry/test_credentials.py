from __future__ import annotations

import json

import pytest

from clef_agent.artifact.pack import Payload
from clef_agent.decrypt.secrets import parse_payload
from clef_agent.telemetry.collector import read_collector
from clef_agent.telemetry.credentials import Credentials, Lookup

OTEL = {"OTEL_EXPORTER_OTLP_HEADERS": "x-key=of-the-environment"}


def credentials(url: str = "https://otel.example/v1/logs", **env: str) -> Credentials:
    return Credentials(read_collector(url, env)[0])


def packed(payload: Payload) -> Lookup:
    return parse_payload(json.dumps(payload).encode()).value


def test_before_the_first_artifact_the_environment_has_the_say() -> None:
    assert credentials().headers == {}
    assert credentials(**OTEL).headers == {"x-key": "of-the-environment"}


def test_packed_headers_come_first_then_the_packed_token_then_the_environment() -> None:
    found = credentials(**OTEL)
    token = {"CLEF_TELEMETRY_TOKEN": "tok"}
    found.take(packed({"otel": {**token, "CLEF_TELEMETRY_HEADERS": "DD-API-KEY=abc%20d"}}))
    assert found.headers == {"dd-api-key": "abc d"}
    found.take(packed({"otel": token}))
    assert found.headers == {"authorization": "Bearer tok"}
    found.take(packed({"app": {"KEY": "value"}}))
    assert found.headers == {"x-key": "of-the-environment"}


@pytest.mark.parametrize(
    "payload",
    [
        {"CLEF_TELEMETRY_TOKEN": "tok"},
        {"any": {"CLEF_TELEMETRY_TOKEN": " tok\n"}},
        {"CLEF_TELEMETRY_TOKEN": "tok", "other": {"CLEF_TELEMETRY_TOKEN": "theirs"}},
        {"CLEF_TELEMETRY_HEADERS": " ", "CLEF_TELEMETRY_TOKEN": "tok"},
    ],
)
def test_they_are_found_by_their_bare_key(payload: Payload) -> None:
    found = credentials()
    found.take(packed(payload))
    assert found.headers == {"authorization": "Bearer tok"}


def test_a_key_of_several_namespaces_is_not_used_and_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    found = credentials(**OTEL)
    found.take(packed({name: {"CLEF_TELEMETRY_TOKEN": "tok-secret"} for name in ("a", "b")}))
    assert found.headers == {"x-key": "of-the-environment"}
    (line,) = caplog.messages
    assert line.startswith("CLEF_TELEMETRY_TOKEN stands in several namespaces")


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("CLEF_TELEMETRY_HEADERS", "authorization: tok-secret"),
        ("CLEF_TELEMETRY_HEADERS", "a=tok-secret%0D%0Ax: 1"),
        ("CLEF_TELEMETRY_TOKEN", "tok-secret\nx: 1"),
    ],
)
def test_what_is_malformed_is_not_used_and_warned_of_without_its_value(
    name: str, value: str, caplog: pytest.LogCaptureFixture
) -> None:
    found = credentials()
    found.take(packed({name: value}))
    assert found.headers == {}
    (line,) = caplog.messages
    assert line.startswith(name)
    assert "secret" not in line


def test_one_malformed_entry_does_not_take_the_others_away() -> None:
    found = credentials()
    found.take(packed({"CLEF_TELEMETRY_HEADERS": "a=1,nonsense,b=2"}))
    assert found.headers == {"a": "1", "b": "2"}


def test_userinfo_of_the_url_stands_in_where_there_is_no_authorization() -> None:
    found = credentials("https://u:p@otel.example/v1/logs")
    assert found.headers == {"authorization": "Basic dTpw"}
    found.take(packed({"CLEF_TELEMETRY_HEADERS": "x=1"}))
    assert found.headers == {"authorization": "Basic dTpw", "x": "1"}
    found.take(packed({"CLEF_TELEMETRY_TOKEN": "tok"}))
    assert found.headers == {"authorization": "Bearer tok"}


def test_no_credential_goes_over_http_beyond_loopback_and_one_warning_says_so(
    caplog: pytest.LogCaptureFixture,
) -> None:
    url = "http://otel.example/v1/logs?key=query-secret"
    found = credentials(url, **OTEL)
    for token in ("tok-secret-1", "tok-secret-2"):
        found.take(packed({"CLEF_TELEMETRY_TOKEN": token}))
    assert found.headers == {}
    (line,) = caplog.messages
    assert "http://otel.example/v1/logs" in line
    assert "secret" not in line


def test_without_credentials_there_is_nothing_to_warn_of(caplog: pytest.LogCaptureFixture) -> None:
    credentials("http://otel.example/v1/logs").take(packed({"app": {"KEY": "value"}}))
    assert caplog.messages == []
