from __future__ import annotations

import pytest

from clef_agent.telemetry.collector import Collector, is_disabled, read_collector

URL = "https://otel.example/v1/logs"


def read(env: dict[str, str], url: str = URL) -> Collector:
    collector, warnings = read_collector(url, env)
    assert warnings == []
    return collector


def test_without_variables_protobuf_is_sent_and_ten_seconds_are_waited() -> None:
    collector = read({})
    assert (collector.encoding, collector.compression) == ("http/protobuf", "none")
    assert collector.timeout_s == 10
    assert (collector.headers, collector.basic, collector.certificate_file) == ({}, None, None)


def test_variables_for_logs_come_before_those_for_everything() -> None:
    env = {
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_LOGS_PROTOCOL": "http/json",
        "OTEL_EXPORTER_OTLP_COMPRESSION": "gzip",
        "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": " Deflate ",
        "OTEL_EXPORTER_OTLP_TIMEOUT": "3",
        "OTEL_EXPORTER_OTLP_LOGS_TIMEOUT": "2.5",
        "OTEL_EXPORTER_OTLP_HEADERS": "a=1",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": "b=2",
    }
    collector = read(env)
    assert (collector.encoding, collector.compression) == ("http/json", "deflate")
    assert (collector.timeout_s, collector.headers) == (2.5, {"b": "2"})


def test_an_empty_variable_is_as_good_as_none() -> None:
    env = {"OTEL_EXPORTER_OTLP_LOGS_HEADERS": " ", "OTEL_EXPORTER_OTLP_HEADERS": "a=1"}
    assert read(env).headers == {"a": "1"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PROTOCOL", "grpc"),
        ("COMPRESSION", "zstd-secret"),
        *[("TIMEOUT", value) for value in ("soon-secret", "0", "-1", "nan", "inf", "1e999")],
        ("HEADERS", "authorization secret"),
    ],
)
def test_a_bad_value_is_a_warning_that_names_the_variable_and_nothing_of_the_value(
    name: str, value: str
) -> None:
    collector, (warning,) = read_collector(URL, {f"OTEL_EXPORTER_OTLP_{name}": value})
    assert warning.startswith(f"OTEL_EXPORTER_OTLP_{name}")
    assert "secret" not in warning
    assert collector == read({})


def test_a_timeout_in_milliseconds_does_not_become_hours() -> None:
    assert read({"OTEL_EXPORTER_OTLP_TIMEOUT": "10000"}).timeout_s == 60


def test_the_authorities_of_the_other_calls_are_trusted_unless_otel_has_its_own() -> None:
    files = {"SSL_CERT_FILE": "/ca.pem", "SSL_CERT_DIR": "/ca"}
    assert read(files).certificate_file == "/ca.pem"
    assert read({"SSL_CERT_DIR": "/ca"}).certificate_file == "/ca"
    for name in ("OTEL_EXPORTER_OTLP_CERTIFICATE", "OTEL_EXPORTER_OTLP_LOGS_CERTIFICATE"):
        assert read({**files, name: "/otel.pem"}).certificate_file is None


def test_userinfo_and_query_are_used_and_not_shown() -> None:
    collector = read(
        {"OTEL_EXPORTER_OTLP_HEADERS": "a=header-secret"},
        url=URL.replace("otel.example", "reader:pass-secret@otel.example") + "?key=query-secret",
    )
    assert collector.url == URL + "?key=query-secret"
    assert collector.basic == "Basic cmVhZGVyOnBhc3Mtc2VjcmV0"
    assert str(collector) == URL
    assert "secret" not in repr(collector)
    assert "cmVhZGVy" not in repr(collector)


@pytest.mark.parametrize(
    ("url", "is_local", "is_private"),
    [
        ("https://otel.example/v1/logs", False, True),
        ("https://127.0.0.1/v1/logs", False, True),
        ("http://127.0.0.1:4318/v1/logs", True, True),
        ("http://localhost:4318/v1/logs", True, True),
        ("http://[::1]:4318/v1/logs", True, True),
        ("http://otel:4318/v1/logs", False, False),
        ("http://10.0.0.7/v1/logs", False, False),
        ("http://127.0.0.1.otel.example/v1/logs", False, False),
    ],
)
def test_only_https_and_loopback_are_private(url: str, is_local: bool, is_private: bool) -> None:
    collector = read({}, url)
    assert (collector.is_local, collector.is_private) == (is_local, is_private)


@pytest.mark.parametrize(
    ("value", "disabled"), [("true", True), (" TRUE ", True), ("false", False), ("1", False)]
)
def test_opentelemetry_can_be_turned_off_altogether(value: str, disabled: bool) -> None:
    assert is_disabled({"OTEL_SDK_DISABLED": value}) is disabled
    assert not is_disabled({})
