"""A store that serves one artifact over http, and fails in the ways that a test asks for."""

from __future__ import annotations

import contextlib
import hashlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class ArtifactStore:
    """What the store answers from now on, and what it was asked.

    ``hangs`` makes it accept and never answer. ``asked_at`` are moments of the monotonic clock;
    ``sent`` are the artifacts that it has answered with.
    """

    body: bytes
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    hangs: bool = False
    port: int = 0
    asked_at: list[float] = field(default_factory=list)
    authorizations: list[str | None] = field(default_factory=list)
    sent: list[bytes] = field(default_factory=list)
    released: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/artifact.json"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        self.asked_at.append(time.monotonic())
        self.authorizations.append(request.headers.get("Authorization"))
        if self.hangs:
            self.released.wait(60)
            return
        etag = f'"{hashlib.sha256(self.body).hexdigest()}"'
        is_known = self.status == 200 and request.headers.get("If-None-Match") == etag
        status, body = (304, b"") if is_known else (self.status, self.body)
        if status == 200:
            self.sent.append(body)
        request.send_response(status)
        for name, value in {"ETag": etag, "Content-Length": str(len(body)), **self.headers}.items():
            request.send_header(name, value)
        request.end_headers()
        request.wfile.write(body)


@contextlib.contextmanager
def serving(store: ArtifactStore, port: int = 0) -> Iterator[ArtifactStore]:
    """``store``, listening on ``port``, or on one of its own choice."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(ConnectionError):
                store.answer(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", port), Handler) as server:
        store.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield store
        finally:
            store.released.set()
            server.shutdown()
