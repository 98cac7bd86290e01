"""A collector of OTLP logs over http, that fails in the ways that a test asks for."""

from __future__ import annotations

import contextlib
import gzip
import json
import ssl
import threading
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import (
    ExportLogsPartialSuccess,
    ExportLogsServiceRequest,
    ExportLogsServiceResponse,
)

if TYPE_CHECKING:
    from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue


@dataclass(frozen=True)
class Received:
    """One log record, in plain values."""

    event_name: str
    severity: int
    severity_text: str
    body: Any
    attributes: Mapping[str, Any]
    resource: Mapping[str, Any]
    scope: str
    time_s: float
    observed_s: float

    @property
    def name(self) -> str:
        return self.event_name.removeprefix("clef.")


@dataclass(frozen=True)
class Post:
    """One request, as it came. Names of headers are in lower case."""

    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def content(self) -> bytes:
        is_packed = self.headers.get("content-encoding") == "gzip"
        return gzip.decompress(self.body) if is_packed else self.body

    @property
    def records(self) -> list[Received]:
        message = ExportLogsServiceRequest()
        if self.headers["content-type"] == "application/json":
            Parse(self.content, message)
        else:
            message.ParseFromString(self.content)
        return [
            Received(
                record.event_name,
                record.severity_number,
                record.severity_text,
                _value(record.body),
                _values(record.attributes),
                _values(of_resource.resource.attributes),
                of_scope.scope.name,
                record.time_unix_nano / 1e9,
                record.observed_time_unix_nano / 1e9,
            )
            for of_resource in message.resource_logs
            for of_scope in of_resource.scope_logs
            for record in of_scope.log_records
        ]


@dataclass
class Collector:
    """What the collector answers from now on, and what it was sent.

    ``hangs`` makes it accept and never answer, ``hangs_up`` close each connection without having
    said so. ``rejects`` is how many records of each request it does not want; ``raw`` stands in for
    an answer's content type and body, and ``broken_off`` counts answers that were not taken.
    """

    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    hangs_up: bool = False
    rejects: int = 0
    raw: tuple[str, bytes] | None = None
    scheme: str = "http"
    port: int = 0
    broken_off: int = 0
    posts: list[Post] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def origin(self) -> str:
        return f"{self.scheme}://127.0.0.1:{self.port}"

    @property
    def records(self) -> list[Received]:
        """All that came and was not refused or left hanging."""
        return [record for post in self.posts for record in post.records]

    @property
    def names(self) -> list[str]:
        return [record.name for record in self.records]

    def of(self, name: str) -> list[Received]:
        """The records called ``name``, oldest first."""
        return [record for record in self.records if record.name == name]

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        headers = {name.lower(): value for name, value in request.headers.items()}
        body = request.rfile.read(int(headers.get("content-length", 0)))
        self.posts.append(Post(request.path, headers, body))
        if self.hangs:
            self.released.wait(60)
            return
        content_type = headers.get("content-type", "")
        content_type, answer = self.raw or (content_type, self._body(content_type))
        request.send_response(self.status)
        for name, value in {
            "Content-Type": content_type,
            "Content-Length": str(len(answer)),
            **self.headers,
        }.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(answer)
        request.close_connection = self.hangs_up

    def _body(self, content_type: str) -> bytes:
        if content_type == "application/json":
            partial = {"rejectedLogRecords": str(self.rejects), "errorMessage": "no"}
            return json.dumps({"partialSuccess": partial} if self.rejects else {}).encode()
        if not self.rejects:
            return ExportLogsServiceResponse().SerializeToString()
        rejected = ExportLogsPartialSuccess(rejected_log_records=self.rejects, error_message="no")
        return ExportLogsServiceResponse(partial_success=rejected).SerializeToString()


@contextlib.contextmanager
def collecting(
    collector: Collector, *, tls: ssl.SSLContext | None = None, port: int = 0
) -> Iterator[Collector]:
    """``collector``, listening on ``port``, or on one of its own choice; with ``tls``, by https."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            try:
                collector.answer(self)
            except ConnectionError:
                collector.broken_off += 1
                self.close_connection = True

        def do_GET(self) -> None:  # where a redirect would lead
            self.do_POST()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        server.daemon_threads = True
        if tls is not None:
            collector.scheme = "https"
            server.socket = tls.wrap_socket(server.socket, server_side=True)
        collector.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield collector
        finally:
            collector.released.set()
            server.shutdown()


def _values(attributes: Iterable[KeyValue]) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: AnyValue) -> Any:
    kind = value.WhichOneof("value")
    return getattr(value, kind) if kind else None
