"""A provider that a test may turn, and two ways to ask the server: by scope and by socket."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import socket
from collections import Counter
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias
from urllib.parse import unquote

import uvloop

from clef_agent import errors
from clef_agent.artifact.pack import Payload
from clef_agent.cache.memory import WhyNot
from clef_agent.decrypt.secrets import parse_payload
from clef_agent.provider import Mode, Opened, SecretsProvider, Status
from clef_agent.refresh import Refreshed
from clef_agent.server.app import create_routes
from clef_agent.server.bounds import Bounds
from clef_agent.server.guards import BearerToken, Guards, allowed_hosts
from clef_agent.server.listener import Listener, bind_port
from clef_agent.server.routes import Route
from clef_agent.server.secrets_endpoint import SecretsEndpoint
from clef_agent.telemetry.metrics import Gauges, Metrics
from fakes import PAYLOAD

if TYPE_CHECKING:
    from clef_agent.server.asgi import Message, Scope

Headers: TypeAlias = Sequence[tuple[bytes, bytes]]
LoopFactory: TypeAlias = Callable[[], asyncio.AbstractEventLoop]
Run: TypeAlias = Callable[[Coroutine[Any, Any, None]], None]

PORT = 7779
TOKEN = "correct-horse"
HOST = (b"host", b"127.0.0.1")
BEARER = (b"authorization", b"Bearer " + TOKEN.encode())
LOOPS: tuple[LoopFactory, ...] = (uvloop.new_event_loop, asyncio.SelectorEventLoop)

#: Long enough for a machine that stalls; nobody waits so long when all is well.
PATIENCE_S = 20.0


def opened(payload: Payload) -> Opened:
    """What a provider opens; equal payloads have equal digests."""
    return Opened(
        parse_payload(json.dumps(payload).encode()),
        hashlib.sha256(json.dumps(payload).encode()).hexdigest(),
    )


class FakeProvider:
    """A SecretsProvider that has what it was given, unless ``failure`` is set."""

    mode: Mode = "cached"

    def __init__(self, payload: Payload = PAYLOAD) -> None:
        self.failure: Exception | None = None
        self.why_not: WhyNot | None = None
        self.revision: str | None = "r1"
        self.last_success_ms: int | None = 1_800_000_000_000
        self.refreshed = Refreshed("r1", changed=False)
        self.opens = 0
        self.waits: list[float] = []
        self.waiting = 0
        self._woken = asyncio.Event()
        self._opened: Opened | None = opened(payload)

    def swap(self, payload: Payload) -> None:
        """Another artifact is accepted."""
        self._opened = opened(payload)
        self.changed()

    def wipe(self, failure: errors.Unavailable) -> None:
        """Nothing is held any more."""
        self._opened, self.failure = None, failure
        self.changed()

    async def open(self) -> Opened:
        self.opens += 1
        if self.failure is not None:
            raise self.failure
        assert self._opened is not None
        return self._opened

    def at_hand(self) -> Opened | None:
        return self._opened if self.failure is None else None

    async def wait_for_change(self, digest: str, timeout_s: float) -> None:
        self.waits.append(timeout_s)
        self.waiting += 1
        try:
            while self.failure is None and (await self.open()).digest == digest:
                await self._woken.wait()
                self._woken.clear()
        finally:
            self.waiting -= 1

    def time_out(self) -> None:
        """Those who wait have waited long enough."""
        if self._opened is not None:
            self._opened = Opened(self._opened.secrets, self._opened.digest)
        self._woken.set()

    async def refresh_on_demand(self) -> Refreshed:
        if self.failure is not None:
            raise self.failure
        return self.refreshed

    def wants_refresh(self) -> bool:
        return False

    def status(self) -> Status:
        return Status(self.mode, self.revision, self.last_success_ms, self.why_not)

    def changed(self) -> None:
        self._woken.set()

    def drain(self) -> None:
        self.wipe(errors.ShuttingDown("the agent is shutting down"))


@dataclass(frozen=True)
class Answer:
    """One response."""

    status: int
    headers: Headers
    body: bytes = field(repr=False)

    def header(self, name: bytes) -> bytes | None:
        """The only header of that name."""
        values = [value for key, value in self.headers if key == name]
        assert len(values) <= 1
        return values[0] if values else None

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def every_route() -> tuple[Route, ...]:
    """The routes of an agent."""
    provider = FakeProvider()
    return create_routes(provider, SecretsEndpoint(provider), lambda: b"")


class Face:
    """The whole ASGI application around ``provider``."""

    def __init__(self, provider: SecretsProvider, *, port: int | None = PORT) -> None:
        self.metrics = Metrics()
        self.token = BearerToken(TOKEN)
        self.endpoint = SecretsEndpoint(provider)
        self._provider = provider
        self.app = self.listening_on(port)

    def listening_on(self, port: int | None) -> Guards:
        """The application for a port; None for a Unix socket."""
        return Guards(
            create_routes(self._provider, self.endpoint, self._render_metrics),
            self.endpoint,
            token=self.token,
            hosts=None if port is None else allowed_hosts(port),
            requests=self.metrics.requests,
        )

    def _render_metrics(self) -> bytes:
        status = self._provider.status()
        return self.metrics.render(Gauges(status.mode, status.why_not is None, 1.5))

    @property
    def requests(self) -> Counter[tuple[str, int]]:
        return self.metrics.requests

    async def ask(
        self,
        target: str,
        *headers: tuple[bytes, bytes],
        method: str = "GET",
        host: bool = True,
        gone: asyncio.Event | None = None,
    ) -> Answer:
        """The answer to one request; ``gone`` is set when the client hangs up."""
        sent: list[Message] = []
        requested = False

        async def receive() -> Message:
            nonlocal requested
            if not requested:
                requested = True
                return {"type": "http.request", "body": b"", "more_body": False}
            await (gone or asyncio.Event()).wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            sent.append(message)

        given = (*((HOST,) if host else ()), *headers)
        await self.app(scope(target, given, method=method), receive, send)
        if not sent:  # its task was cancelled
            raise asyncio.CancelledError
        start, *bodies = sent
        return Answer(
            start["status"],
            [(name.lower(), value) for name, value in start["headers"]],
            b"".join(bytes(message["body"]) for message in bodies),
        )

    def answer(self, target: str, *headers: tuple[bytes, bytes], **how: Any) -> Answer:
        """:meth:`ask`, for a test without a loop."""
        return asyncio.run(self.ask(target, *headers, **how))

    def read(self, target: str, *headers: tuple[bytes, bytes], **how: Any) -> Answer:
        """The answer to a request with the right token."""
        return self.answer(target, BEARER, *headers, **how)


def scope(target: str, headers: Headers = (), *, method: str = "GET") -> Scope:
    """What uvicorn makes of a request."""
    raw_path, _, query = target.partition("?")
    return {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 50_000),
        "server": ("127.0.0.1", PORT),
        "state": {},
    }


# --- sockets ----------------------------------------------------------------------------------


def run(test: Coroutine[Any, Any, None], loop_factory: LoopFactory = uvloop.new_event_loop) -> None:
    """Runs ``test`` on a loop of its own, and not for ever."""
    with asyncio.Runner(loop_factory=loop_factory) as runner:
        runner.run(_in_time(test))


async def _in_time(test: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await test


async def until(condition: Callable[[], object]) -> None:
    """Returns once ``condition`` holds."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110  # the condition is no event
            await asyncio.sleep(0.002)


class Wire:
    """A client that says what it is told, to the byte."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    def send(self, data: bytes) -> None:
        """Sends ``data``, unless the server has hung up."""
        if not self.writer.is_closing():
            self.writer.write(data)

    async def answer(self, *, has_body: bool = True) -> Answer:
        """The next response. Raises IncompleteReadError where the server hangs up."""
        async with asyncio.timeout(PATIENCE_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            status_line, *lines = head[:-4].split(b"\r\n")
            headers = [
                (name.lower(), value)
                for name, _, value in (line.partition(b": ") for line in lines)
            ]
            length = int(dict(headers).get(b"content-length", b"0")) if has_body else 0
            body = await self.reader.readexactly(length)
        return Answer(int(status_line.split(b" ")[1]), headers, body)

    async def ask(self, data: bytes) -> Answer:
        self.send(data)
        return await self.answer()

    async def flood(self, data: bytes) -> None:
        """Sends ``data`` again and again, until a ConnectionError says that nobody listens."""
        while True:
            self.send(data)
            await self.writer.drain()

    async def rest(self) -> bytes:
        """Everything until the server hangs up."""
        async with asyncio.timeout(PATIENCE_S):
            try:
                return await self.reader.read()
            except ConnectionError:
                return b""

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


def get(target: str, *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    """A request with a good Host and the right token."""
    head = (
        f"{method} {target} HTTP/{version}",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {TOKEN}",
        *lines,
    )
    return ("\r\n".join(head) + "\r\n\r\n").encode()


HEALTH = get("/v1/health")


@dataclass
class Serving:
    """A server on a port of the system's choice, and those who talk to it."""

    listener: Listener
    port: int
    face: Face
    wires: list[Wire] = field(default_factory=list)

    async def connect(self, *, receive_buffer: int | None = None) -> Wire:
        """A new client; with a small ``receive_buffer`` it takes little that it has not read."""
        client = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_buffer is not None:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        client.setblocking(False)
        try:
            await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self.port))
        except OSError:
            client.close()
            raise
        limit = receive_buffer or 2**16
        wire = Wire(*await asyncio.open_connection(sock=client, limit=limit))
        self.wires.append(wire)
        return wire

    async def works(self) -> None:
        """Asserts that a good request is answered."""
        wire = await self.connect()
        assert (await wire.ask(HEALTH)).status == 200
        await wire.close()

    @property
    def connections(self) -> set[Any]:
        return self.listener._state.connections


@contextlib.asynccontextmanager
async def serving(
    provider: SecretsProvider | None = None,
    *,
    bounds: Bounds | None = None,
    descriptors: int = 20_000,
) -> AsyncIterator[Serving]:
    """A server until the end of the block."""
    listening = bind_port(0)
    port = listening.getsockname()[1]
    listener = Listener(descriptors=descriptors, bounds=bounds or Bounds())
    face = Face(provider or FakeProvider(), port=port)
    await listener.serve(face.app, listening)
    server = Serving(listener, port, face)
    try:
        yield server
    finally:
        for wire in server.wires:
            await wire.close()
        await listener.drain(5.0)
