"""The OpenTelemetry SDK, and the way to the collector.

Importing this module imports the SDK and requests: it is done in the outbox's thread, after the
first secrets can be served. The SDK's own batching is not used: its flush ignores the time it is
given, and it does not say what it drops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from http.cookiejar import DefaultCookiePolicy
from typing import Any, Final

import requests
from google.protobuf.json_format import MessageToJson
from google.protobuf.message import DecodeError
from opentelemetry._logs import LogRecord, SeverityNumber
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)
from opentelemetry.sdk._logs import ReadableLogRecord
from opentelemetry.sdk._logs.export import LogRecordExportResult
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.util.instrumentation import InstrumentationScope
from requests.utils import get_environ_proxies

from clef_agent import __version__
from clef_agent.telemetry.collector import Collector
from clef_agent.telemetry.credentials import Credentials
from clef_agent.telemetry.outbox import Outcome, Outgoing
from clef_agent.telemetry.records import PREFIX, Origin
from clef_agent.web.trouble import network_words

#: What the agent that this one replaces calls its scope.
_SCOPE: Final = InstrumentationScope("clef.runtime", __version__)
_NS_PER_S: Final = 1_000_000_000

#: An answer says little; more of it than this is not read, in bytes.
_MAX_ANSWER_BYTES: Final = 64 * 1024
_REDIRECTS: Final = range(300, 400)
_COMPRESSIONS: Final = {
    "none": Compression.NoCompression,
    "gzip": Compression.Gzip,
    "deflate": Compression.Deflate,
}


class OtlpExporter:
    """Posts batches of records to one collector. For one thread."""

    def __init__(self, collector: Collector, credentials: Credentials) -> None:
        self._session = CollectorSession(collector, credentials)
        is_json = collector.encoding == "http/json"
        self._exporter = OTLPLogExporter(
            endpoint=collector.url,
            certificate_file=collector.certificate_file,
            timeout=collector.timeout_s,
            # What is compressed by then cannot become JSON any more.
            compression=_COMPRESSIONS["none" if is_json else collector.compression],
            session=self._session,
            meter_provider=NoOpMeterProvider(),
        )
        self._resource: tuple[Origin, Resource] | None = None

    def export(self, batch: Sequence[Outgoing]) -> Outcome:
        """Posts ``batch``; again and again for a while, where the collector asks for patience."""
        self._session.forget()
        result = self._exporter.export([self._readable(outgoing) for outgoing in batch])
        if result is not LogRecordExportResult.SUCCESS:
            return Outcome(trouble=self._session.trouble or "the SDK gave up", is_lost=True)
        if self._session.rejected:
            words = f"it rejected {self._session.rejected} of {len(batch)} events"
            return Outcome(rejected=self._session.rejected, trouble=words)
        return Outcome()

    def _readable(self, outgoing: Outgoing) -> ReadableLogRecord:
        record, at_ns = outgoing.record, int(outgoing.at_s * _NS_PER_S)
        name = PREFIX + record.name
        attributes = {PREFIX + key: value for key, value in record.attributes.items()}
        return ReadableLogRecord(
            LogRecord(
                timestamp=at_ns,
                observed_timestamp=at_ns,
                severity_number=SeverityNumber[record.severity],
                severity_text=record.severity,
                body=record.name,
                event_name=name,
                # Deprecated for eventName, and still what many backends look at.
                attributes={"event.name": name, **attributes},
            ),
            resource=self._resource_of(outgoing.origin),
            instrumentation_scope=_SCOPE,
        )

    def _resource_of(self, origin: Origin) -> Resource:
        if self._resource is None or self._resource[0] != origin:
            # OTEL_RESOURCE_ATTRIBUTES may add to these, and not replace them.
            self._resource = (origin, Resource.create(origin.attributes()))
        return self._resource[1]


class CollectorSession(requests.Session):
    """What the SDK's exporter sends its requests by.

    ``trouble`` is why the last request was in vain, in words that are safe to log; ``rejected``
    is how many records the collector did not want of those it took.
    """

    def __init__(self, collector: Collector, credentials: Credentials) -> None:
        super().__init__()
        self._credentials = credentials
        self._sends_json = collector.encoding == "http/json"
        self.trouble: str | None
        self.rejected: int
        self.forget()
        # Or else ~/.netrc would replace our Authorization, and REQUESTS_CA_BUNDLE our authorities.
        self.trust_env = False
        self.proxies = {} if collector.is_local else get_environ_proxies(collector.url)
        self.cookies.set_policy(DefaultCookiePolicy(allowed_domains=()))

    def forget(self) -> None:
        """What was before does not count any more."""
        self.trouble, self.rejected = None, 0

    def request(self, method: str, url: str, **options: Any) -> requests.Response:  # type: ignore[override]  # the exporter's call, and no other
        """Sends what the exporter made, with the headers of this moment, and judges the answer.

        Raises:
            requests.RequestException: no answer, or a redirect.
        """
        headers: Mapping[str, str] = options.pop("headers")
        body: bytes = options.pop("data")
        if self._sends_json:
            body = _as_json(body)
        try:
            response = super().request(
                method, url, headers=self._headers(headers), data=body, stream=True, **options
            )
            with response:
                answer = response.raw.read(_MAX_ANSWER_BYTES, decode_content=True)
        except Exception as exc:
            self.trouble = _explain(exc)
            raise
        if response.status_code in _REDIRECTS:
            # The exporter would take it for a success. Credentials do not leave their origin.
            self.trouble = f"it answers {response.status_code}, and no redirect is followed"
            raise requests.TooManyRedirects
        self.trouble = None if response.ok else f"it answers {response.status_code}"
        if response.ok:
            self.rejected = _rejected(answer, response.headers.get("content-type", ""))
        return response

    def resolve_redirects(self, *_: Any, **__: Any) -> Iterator[Any]:
        """Nothing: whatever is asked for, no redirect is followed."""
        return iter(())

    def _headers(self, headers: Mapping[str, str]) -> dict[str, str]:
        # Only these of the exporter's: it reads credentials from the environment by itself.
        kept = ("content-type", "content-encoding", "user-agent")
        ours = {name: value for name, value in headers.items() if name.lower() in kept}
        if self._sends_json:
            ours["content-type"] = "application/json"
        return {**ours, **self._credentials.headers}


def _as_json(body: bytes) -> bytes:
    """The request in OTLP's JSON. It has no trace or span ids, which would have to be hex there.

    Source: https://opentelemetry.io/docs/specs/otlp/#json-protobuf-encoding
    """
    message = ExportLogsServiceRequest.FromString(body)
    return MessageToJson(message, use_integers_for_enums=True, indent=None).encode()


def _rejected(answer: bytes, content_type: str) -> int:
    """How many records a successful answer says were not wanted.

    Source: https://opentelemetry.io/docs/specs/otlp/#partial-success-1
    """
    try:
        if content_type.partition(";")[0].strip().lower() == "application/json":
            return int(json.loads(answer or b"{}")["partialSuccess"]["rejectedLogRecords"])
        return ExportLogsServiceResponse.FromString(answer).partial_success.rejected_log_records
    except (ValueError, LookupError, TypeError, DecodeError):
        return 0  # it says nothing of the kind


def _explain(exc: BaseException) -> str:
    """What went wrong, in words that are not taken from an HTTP library's text."""
    words = network_words(exc)
    if words is not None:
        return words
    if type(exc) is OSError:  # requests says so of a path that is not there
        return "the certificates that SSL_CERT_FILE or OTEL_* name cannot be read"
    kinds = {
        requests.ConnectTimeout: "no connection in time",
        requests.Timeout: "no answer in time",
        requests.exceptions.ProxyError: "the proxy does not let it pass",
        requests.exceptions.SSLError: "TLS failed",
        requests.ConnectionError: "no connection, or it broke off",
    }
    words = next((text for kind, text in kinds.items() if isinstance(exc, kind)), "no answer")
    return f"{words} ({type(exc).__name__})"
