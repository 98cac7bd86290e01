"""A service on loopback that counts what it is asked, and fails in the ways a test asks for."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Literal, TypeAlias, TypeVar
from urllib.parse import parse_qs, urlsplit

Mode: TypeAlias = Literal["up", "down", "reset", "limited", "denied"]


@dataclass(frozen=True)
class Asked:
    """One request: the target is path and query as they came."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes = b""

    @property
    def path(self) -> str:
        return urlsplit(self.target).path

    @property
    def query(self) -> dict[str, str]:
        return {k: v[0] for k, v in parse_qs(urlsplit(self.target).query).items()}


@dataclass(frozen=True)
class Reply:
    status: int
    body: bytes = b""
    headers: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def json(cls, status: int, document: object, **headers: str) -> Reply:
        names = {name.replace("_", "-"): value for name, value in headers.items()}
        return cls(
            status,
            json.dumps(document).encode(),
            {"Content-Type": "application/json; charset=utf-8", **names},
        )


class FakeService:
    """Answers as :meth:`answer` says while it is up, and asks for ``token``."""

    def __init__(self) -> None:
        self.token = "the-token-for-the-service"
        self.mode: Mode = "up"
        self.retry_after_s = 3600
        #: So many of the next requests get no answer, and lose their connection.
        self.resets = 0
        self.port = 0
        self.asked: list[Asked] = []
        self.answered: list[Reply] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def environment(self) -> dict[str, str]:
        """What makes an agent ask here."""
        raise NotImplementedError

    # --- what a service of one kind does ----------------------------------------------------------

    def answer(self, asked: Asked) -> Reply:
        raise NotImplementedError

    def refuse(self, asked: Asked) -> Reply:
        """As this kind refuses a token; it repeats it, to see whether that gets into a log."""
        return Reply.json(403, {"message": f"no access for {self.token}", "got": [*asked.headers]})

    def limit(self) -> Reply:
        return Reply.json(429, {"message": "slow down"}, Retry_After=str(self.retry_after_s))

    # --- serving --------------------------------------------------------------------------------

    def _reply(self, asked: Asked) -> Reply:
        if self.mode == "down":
            return Reply.json(503, {"message": f"down, {self.token}"})
        if self.mode == "limited":
            return self.limit()
        if self.mode == "denied":
            return self.refuse(asked)
        return self.answer(asked)

    def handle(self, request: BaseHTTPRequestHandler) -> None:
        length = int(request.headers.get("Content-Length") or 0)
        body = request.rfile.read(length)
        headers = {name.lower(): value for name, value in request.headers.items()}
        asked = Asked(request.command, request.path, headers, body)
        self.asked.append(asked)
        if self.mode == "reset" or self.resets:
            self.resets = max(0, self.resets - 1)
            request.close_connection = True
            return
        reply = self._reply(asked)
        self.answered.append(reply)
        request.send_response(reply.status)
        for name, value in reply.headers.items():
            if value:  # an empty one only keeps its default away
                request.send_header(name, value)
        if "Content-Length" not in reply.headers:
            request.send_header("Content-Length", str(len(reply.body)))
        request.end_headers()
        if request.command != "HEAD":
            request.wfile.write(reply.body)


S = TypeVar("S", bound=FakeService)


@contextlib.contextmanager
def serving(service: S) -> Iterator[S]:
    """``service``, listening on a port of its own."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _handle(self) -> None:
            with contextlib.suppress(ConnectionError):
                service.handle(self)

        do_GET = do_HEAD = do_POST = do_PUT = _handle  # noqa: N815  # their names there

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        service.port = server.server_address[1]
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield service
        finally:
            server.shutdown()
