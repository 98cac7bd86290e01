"""The http source against real sockets, most of which misbehave."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import resource
import ssl
import sys
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from clef_agent.config import Credential, HttpSourceConfig
from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMisdirected,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.sources.base import Fetched, NotModified
from clef_agent.sources.http import HttpSource
from tls import Tls, certified

Answerer = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]

BODY = b'{"version":1}'


@pytest.fixture(autouse=True)
def no_proxy_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY", "SSL_CERT_FILE"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)


@pytest.fixture(autouse=True)
def no_socket_left_open() -> Iterator[None]:
    """Makes a forgotten connection warn, and so fail, in the test that forgot it."""
    yield
    gc.collect()


# --- servers --------------------------------------------------------------------------------------


@dataclass
class Request:
    line: str
    headers: dict[str, str]

    @property
    def target(self) -> str:
        return self.line.split(" ")[1]


@dataclass
class Server:
    """An HTTP/1.1 server, as far as its answerer makes it one."""

    answer: Answerer
    port: int = 0
    connections: int = 0
    requests: list[Request] = field(default_factory=list)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.tasks.append(asyncio.create_task(self._serve(reader, writer)))

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            await self._answer_all(reader, writer)
        finally:
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    async def _answer_all(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError, asyncio.IncompleteReadError, ssl.SSLError):
            while not writer.is_closing():
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                line, *lines = head.rstrip().split("\r\n")
                pairs = (text.partition(": ") for text in lines)
                request = Request(line, {name.lower(): value for name, _, value in pairs})
                self.requests.append(request)
                await self.answer(request, writer)
                await writer.drain()


@contextlib.asynccontextmanager
async def serving(answer: Answerer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    server = Server(answer)
    listener = await asyncio.start_server(server.accept, "127.0.0.1", 0, ssl=tls)
    server.port = listener.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)
        await listener.wait_closed()


def says(head: str, body: bytes = b"") -> Answerer:
    """Answers each request with ``head``, its line ends as given by newlines, and ``body``."""

    async def answer(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(head.replace("\n", "\r\n").encode("latin-1") + b"\r\n\r\n" + body)

    return answer


def then_closes(answerer: Answerer) -> Answerer:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await answerer(request, writer)
        await writer.drain()
        writer.close()

    return answer


def good(body: bytes = BODY) -> Answerer:
    return says(f'HTTP/1.1 200 OK\nContent-Length: {len(body)}\nETag: W/"1"', body)


def in_turn(*answerers: Answerer) -> Answerer:
    left = list(answerers)

    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await left.pop(0)(request, writer)

    return answer


async def hangs(_request: Request, _writer: asyncio.StreamWriter) -> None:
    await asyncio.Event().wait()


async def hangs_up(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.close()


async def resets(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def resets_within_the_body(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    writer.transport.abort()


async def drips_the_head(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"X: y\r\n")
        await asyncio.sleep(0.01)


async def drips_the_body(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x")
        await asyncio.sleep(0.01)


async def floods(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"x" * 65536)
        await writer.drain()


async def floods_in_tiny_chunks(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while not writer.is_closing():
        writer.write(b"1\r\nx\r\n" * 5000)
        await writer.drain()


async def floods_the_head(_request: Request, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while not writer.is_closing():
        writer.write(b"X: " + b"y" * 65536 + b"\r\n")
        await writer.drain()


def source_of(
    url: str,
    *,
    token: Credential | None = None,
    deadline_s: float = 10.0,
    max_bytes: int = 1_000_000,
) -> HttpSource:
    return HttpSource(
        HttpSourceConfig(url, token), read_file, deadline_s=deadline_s, max_bytes=max_bytes
    )


def read_file(path: str) -> bytes:
    return Path(path).read_bytes()


async def refused(source: HttpSource) -> SourceError:
    try:
        with pytest.raises(SourceError) as caught:
            await source.fetch(None)
    finally:
        await source.aclose()
    return caught.value


def refused_by(
    answer: Answerer, *, deadline_s: float = 10.0, max_bytes: int = 1_000_000
) -> SourceError:
    async def ask() -> SourceError:
        async with serving(answer) as server:
            url = f"http://127.0.0.1:{server.port}/a.json"
            return await refused(source_of(url, deadline_s=deadline_s, max_bytes=max_bytes))

    return asyncio.run(ask())


# --- what is asked --------------------------------------------------------------------------------


def test_an_artifact_is_fetched_once_and_then_only_asked_about() -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        if request.headers.get("if-none-match") == 'W/"1"':
            await says('HTTP/1.1 304 Not Modified\nETag: W/"1"')(request, writer)
        else:
            await good()(request, writer)

    async def ask() -> None:
        async with serving(answer) as server:
            source = source_of(f"http://127.0.0.1:{server.port}/a.json")
            first = await source.fetch(None)
            assert isinstance(first, Fetched)
            assert first.data == BODY
            assert await source.fetch(first.validator) == NotModified()
            assert server.connections == 1
            await source.aclose()

    asyncio.run(ask())


def test_a_presigned_target_arrives_byte_for_byte() -> None:
    target = "/b/../a%2Fb/{k}+%20.json?X-Amz-Signature=a%2Fb+c/%3d&n=\"<>'&e="

    async def ask() -> None:
        async with serving(good()) as server:
            source = source_of(f"http://127.0.0.1:{server.port}{target}")
            assert isinstance(await source.fetch(None), Fetched)
            await source.aclose()
            assert server.requests[0].line == f"GET {target} HTTP/1.1"

    asyncio.run(ask())


@pytest.mark.parametrize("body", [b"", b"x" * 1_000_000])
def test_a_chunked_body_arrives_whole(body: bytes) -> None:
    chunks = b"".join(
        b"%x\r\n%b\r\n" % (len(body[i : i + 4096]), body[i : i + 4096])
        for i in range(0, len(body), 4096)
    )

    async def ask() -> None:
        answer = says("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunks + b"0\r\n\r\n")
        async with serving(answer) as server:
            source = source_of(f"http://127.0.0.1:{server.port}/")
            result = await source.fetch(None)
            assert isinstance(result, Fetched)
            assert result.data == body
            await source.aclose()

    asyncio.run(ask())


def test_a_page_is_handed_out_for_the_parser_to_refuse() -> None:
    async def ask() -> None:
        answer = says("HTTP/1.0 200 OK\nContent-Type: text/html", b"<html>login</html>")
        async with serving(then_closes(answer)) as server:
            source = source_of(f"http://127.0.0.1:{server.port}/")
            result = await source.fetch(None)
            assert isinstance(result, Fetched)
            assert result.data == b"<html>login</html>"
            await source.aclose()

    asyncio.run(ask())


# --- servers that misbehave -----------------------------------------------------------------------


# case 16
@pytest.mark.parametrize("answer", [hangs, drips_the_head, drips_the_body])
def test_a_source_that_does_not_finish_ends_at_the_deadline(answer: Answerer) -> None:
    started = time.monotonic()
    failure = refused_by(answer, deadline_s=0.3)
    assert type(failure) is SourceUnreachable
    assert "in time" in str(failure) or "within 0.3 s" in str(failure)
    assert time.monotonic() - started < 5


# case 16
def test_the_deadline_covers_the_redirects_together() -> None:
    async def answer(request: Request, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(0.2)
        await says("HTTP/1.1 302 Found\nLocation: /next\nContent-Length: 0")(request, writer)

    failure = refused_by(answer, deadline_s=0.5)
    assert type(failure) is SourceUnreachable


# case 16
def test_the_deadline_covers_the_reading_of_a_token_file_that_hangs() -> None:
    async def ask() -> None:
        hung = asyncio.Event()
        loop = asyncio.get_running_loop()

        def read_hung(_path: str) -> bytes:
            asyncio.run_coroutine_threadsafe(hung.wait(), loop).result(timeout=30)
            return b"token"

        config = HttpSourceConfig("http://127.0.0.1:1/", Credential(path="/run/token"))
        source = HttpSource(config, read_hung, deadline_s=0.2)
        with pytest.raises(SourceUnreachable):
            await source.fetch(None)
        with pytest.raises(SourceDenied, match="/run/token cannot be read"):
            await source.fetch(None)
        hung.set()
        await source.aclose()

    asyncio.run(ask())


@pytest.mark.parametrize(
    ("answer", "kind"),
    [
        (hangs_up, SourceUnreachable),
        (resets, SourceUnreachable),
        (resets_within_the_body, SourceUnreachable),
        (
            then_closes(says("HTTP/1.1 200 OK\nContent-Length: 100", b"half")),
            SourceUnreachable,
        ),
        (
            then_closes(says("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"4\r\nhalf\r\n")),
            SourceUnreachable,
        ),
        (says("HTTP/1.1 200 OK\nContent-Length: -1"), SourceUnreachable),
        (says("HTTP/1.1 200 OK\nContent-Length: 1\nContent-Length: 2", b"xx"), SourceUnreachable),
        (says("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", b"zz\r\n"), SourceUnreachable),
        (says("SSH-2.0-OpenSSH_9.6"), SourceUnreachable),
        (says("HTTP/1.1 200 OK\nBad Header"), SourceUnreachable),
        (floods_the_head, SourceUnreachable),
        (floods, SourceTooLarge),
        (says("HTTP/1.1 200 OK\nContent-Length: 1000001"), SourceTooLarge),
        (says("HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 9"), SourceUnusable),
        (says("HTTP/1.1 206 Partial Content\nContent-Length: 1", b"x"), SourceUnusable),
        (says("HTTP/1.1 204 No Content"), SourceUnusable),
        (says("HTTP/1.1 304 Not Modified"), SourceUnusable),
        (says("HTTP/1.1 401 Unauthorized\nContent-Length: 0"), SourceDenied),
        (says("HTTP/1.1 403 Forbidden\nContent-Length: 0"), SourceDenied),
        (says("HTTP/1.1 403 Forbidden\nContent-Length: 0\nRetry-After: 9"), SourceBusy),
        (says("HTTP/1.1 404 Not Found\nContent-Length: 0"), SourceMissing),
        (says("HTTP/1.1 429 Slow Down\nContent-Length: 0"), SourceBusy),
        (says("HTTP/1.1 502 Bad Gateway\nContent-Length: 0"), SourceBusy),
        (says("HTTP/1.1 302 Found\nLocation: /again\nContent-Length: 0"), SourceMisdirected),
        (says("HTTP/1.1 302 Found\nContent-Length: 0"), SourceMisdirected),
        (says("HTTP/1.1 302 Found\nLocation: http://127.0.0.1:1/\n"), SourceMisdirected),
        (says("HTTP/1.1 302 Found\nLocation: http://[::1\n"), SourceMisdirected),
    ],
)
def test_what_a_server_may_do_wrong_is_told_apart(
    answer: Answerer, kind: type[SourceError]
) -> None:
    assert type(refused_by(answer)) is kind


def test_a_flood_beyond_the_cap_leaves_memory_bounded() -> None:
    unit = 1 if sys.platform == "darwin" else 1024
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert type(refused_by(floods)) is SourceTooLarge
    assert type(refused_by(floods_in_tiny_chunks, max_bytes=20_000)) is SourceTooLarge
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit - before
    assert grown < 64 * 1024 * 1024  # the cap of this source is 1 MB, the flood has no end


def test_a_flood_of_tiny_chunks_does_not_hold_the_loop() -> None:
    async def ask() -> float:
        longest = 0.0

        async def tick() -> None:
            nonlocal longest
            last = time.perf_counter()
            while True:
                await asyncio.sleep(0)
                now = time.perf_counter()
                longest, last = max(longest, now - last), now

        # A 60 KB response head to tail: about 10,000 chunks that come with one read.
        chunks = b"1\r\nx\r\n" * 10_000 + b"0\r\n\r\n"
        answer = says("HTTP/1.1 200 OK\nTransfer-Encoding: chunked", chunks)
        async with serving(answer) as server:
            source = source_of(f"http://127.0.0.1:{server.port}/")
            await source.fetch(None)  # httpx is imported now
            ticker = asyncio.create_task(tick())
            result = await source.fetch(None)
            ticker.cancel()
            assert isinstance(result, Fetched)
            assert result.data == b"x" * 10_000
            await source.aclose()
        return longest

    assert min(asyncio.run(ask()) for _ in range(3)) < 0.05


def test_nobody_there_is_said_in_a_word() -> None:
    async def ask() -> SourceError:
        async with serving(good()) as server:
            port = server.port
        return await refused(source_of(f"http://127.0.0.1:{port}/"))

    failure = asyncio.run(ask())
    assert type(failure) is SourceUnreachable
    assert "refused" in str(failure)


def test_a_name_that_does_not_exist_is_said_to_be() -> None:
    # The label is too long for any resolver to be asked.
    failure = asyncio.run(refused(source_of(f"http://{'a' * 64}.invalid/")))
    assert type(failure) is SourceUnreachable


# --- kept connections -----------------------------------------------------------------------------


@pytest.mark.parametrize("end", [hangs_up, resets])
def test_an_idle_connection_found_dead_is_replaced_without_a_word(end: Answerer) -> None:
    async def ask() -> None:
        # The second request finds its connection closed, as after a server's idle timeout.
        async with serving(in_turn(good(), end, good())) as server:
            source = source_of(f"http://127.0.0.1:{server.port}/")
            for _ in range(2):
                assert isinstance(await source.fetch(None), Fetched)
            await source.aclose()
            assert (server.connections, len(server.requests)) == (2, 3)

    asyncio.run(ask())


def test_a_fresh_connection_that_dies_is_not_tried_twice() -> None:
    async def ask() -> None:
        async with serving(hangs_up) as server:
            failure = await refused(source_of(f"http://127.0.0.1:{server.port}/"))
            assert type(failure) is SourceUnreachable
            assert len(server.requests) == 1

    asyncio.run(ask())


def test_a_replacement_that_dies_too_is_an_error() -> None:
    async def ask() -> None:
        async with serving(in_turn(good(), hangs_up, hangs_up)) as server:
            source = source_of(f"http://127.0.0.1:{server.port}/")
            await source.fetch(None)
            assert type(await refused(source)) is SourceUnreachable
            assert len(server.requests) == 3

    asyncio.run(ask())


# --- TLS ------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tls(tmp_path_factory: pytest.TempPathFactory) -> Tls:
    return certified(tmp_path_factory.mktemp("tls"))


def test_the_authorities_of_ssl_cert_file_are_trusted(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def ask() -> None:
        async with serving(good(), tls.server) as server:
            url = f"https://127.0.0.1:{server.port}/"
            failure = await refused(source_of(url))
            assert type(failure) is SourceUnreachable
            assert "certificate is not trusted" in str(failure)
            assert server.requests == []
            monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca_file))
            source = source_of(url)
            assert isinstance(await source.fetch(None), Fetched)
            await source.aclose()

    asyncio.run(ask())


def test_plain_http_behind_an_https_url_is_an_error_of_tls() -> None:
    async def ask() -> SourceError:
        async with serving(says("HTTP/1.1 400 Bad Request")) as server:
            return await refused(source_of(f"https://127.0.0.1:{server.port}/", deadline_s=2))

    assert type(asyncio.run(ask())) is SourceUnreachable


# case 6
@pytest.mark.parametrize("userinfo", ["", "user:hush@"])
def test_another_origin_never_sees_the_credentials(
    tls: Tls, monkeypatch: pytest.MonkeyPatch, userinfo: str
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca_file))

    async def ask() -> None:
        async with serving(good(b"theirs"), tls.server) as theirs:
            location = f"https://127.0.0.1:{theirs.port}/b?sig=1"
            away = says(f"HTTP/1.1 307 Moved\nLocation: {location}\nContent-Length: 0")
            async with serving(away, tls.server) as ours:
                source = source_of(
                    f"https://{userinfo}127.0.0.1:{ours.port}/a",
                    token=None if userinfo else Credential(value="hush"),
                )
                first = await source.fetch(None)
                assert isinstance(first, Fetched)
                assert first.data == b"theirs"
                await source.fetch(first.validator)
                await source.aclose()
        assert all("authorization" in request.headers for request in ours.requests)
        assert all("authorization" not in request.headers for request in theirs.requests)
        assert all("if-none-match" not in request.headers for request in ours.requests)
        assert len(theirs.requests) == len(ours.requests) == 2

    asyncio.run(ask())


def test_a_step_down_from_https_to_http_is_refused(
    tls: Tls, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tls.ca_file))

    async def ask() -> None:
        async with serving(good()) as plain:
            location = f"http://127.0.0.1:{plain.port}/"
            down = says(f"HTTP/1.1 302 Found\nLocation: {location}\nContent-Length: 0")
            async with serving(down, tls.server) as server:
                url = f"https://127.0.0.1:{server.port}/"
                assert type(await refused(source_of(url))) is SourceMisdirected
            assert plain.requests == []

    asyncio.run(ask())


# --- proxies --------------------------------------------------------------------------------------


def test_a_proxy_is_asked_for_the_whole_url_byte_for_byte(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> None:
        async with serving(good()) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            source = source_of("http://host.invalid/b/../a.json?sig=%2F+")
            assert isinstance(await source.fetch(None), Fetched)
            await source.aclose()
            line = "GET http://host.invalid/b/../a.json?sig=%2F+ HTTP/1.1"
            assert proxy.requests[0].line == line

    asyncio.run(ask())


def test_a_proxy_for_https_learns_the_host_and_nothing_else(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def ask() -> None:
        async with serving(says("HTTP/1.1 407 hush\nContent-Length: 0")) as proxy:
            monkeypatch.setenv("HTTPS_PROXY", f"http://127.0.0.1:{proxy.port}")
            url = "https://host.invalid/a?sig=query"
            failure = await refused(source_of(url, token=Credential(value="bearer")))
            assert type(failure) is SourceUnreachable
            assert "proxy" in str(failure)
            (request,) = proxy.requests
            assert request.line == "CONNECT host.invalid:443 HTTP/1.1"
            assert "authorization" not in request.headers

    asyncio.run(ask())


def test_no_proxy_names_hosts_that_are_asked_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    async def ask() -> SourceError:
        async with serving(good()) as proxy:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            monkeypatch.setenv("NO_PROXY", "invalid")
            failure = await refused(source_of("http://host.invalid/", deadline_s=5))
            assert proxy.requests == []
            return failure

    assert type(asyncio.run(ask())) is SourceUnreachable


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_token_for_loopback_is_not_shown_to_a_proxy(
    monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    async def ask() -> None:
        async with serving(good(b"proxy")) as proxy, serving(good()) as server:
            monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy.port}")
            url = f"http://{host}:{server.port}/"
            source = source_of(url, token=Credential(value="hush"))
            result = await source.fetch(None)
            assert isinstance(result, Fetched)
            assert (result.data, proxy.requests) == (BODY, [])
            await source.aclose()

    asyncio.run(ask())


# --- secrets --------------------------------------------------------------------------------------

TOKEN, NAME, PASSWORD, QUERY, ELSEWHERE = (
    "tok-5ecret-en",
    "name-5ecret-en",
    "pass-5ecret-en",
    "query-5ecret-en",
    "elsewhere-5ecret-en",
)

MISBEHAVIOURS: list[Answerer] = [
    hangs,
    hangs_up,
    resets,
    resets_within_the_body,
    drips_the_head,
    drips_the_body,
    floods,
    floods_the_head,
    then_closes(says("HTTP/1.1 200 OK\nContent-Length: 100", b"half")),
    says("HTTP/1.1 200 OK\nContent-Encoding: gzip\nContent-Length: 9"),
    says(f"HTTP/1.1 999 {ELSEWHERE}\nContent-Length: 0"),
    says(f"HTTP/1.1 200 {ELSEWHERE}\nContent-Length: {ELSEWHERE}"),
    says(f"{ELSEWHERE}"),
    says("HTTP/1.1 304 Not Modified"),
    *(
        says(f"HTTP/1.1 {status} {ELSEWHERE}\nContent-Length: 0\nRetry-After: {ELSEWHERE}")
        for status in (201, 206, 300, 400, 401, 403, 404, 407, 429, 500, 503)
    ),
    *(
        says(f"HTTP/1.1 302 Found\nLocation: {location}\nContent-Length: 0")
        for location in (
            f"/again?sig={ELSEWHERE}",
            f"http://127.0.0.1:1/{ELSEWHERE}?sig={ELSEWHERE}",
            f"https://127.0.0.1:1/{ELSEWHERE}?sig={ELSEWHERE}",
            f"https://{ELSEWHERE}:{ELSEWHERE}@127.0.0.1:1/",
            f"https://[::1/{ELSEWHERE}",
            f"https://127.0.0.1:port{ELSEWHERE}/",
            f"ftp://127.0.0.1/{ELSEWHERE}",
            f"//999.1.1.1/?{ELSEWHERE}",
            f"https://999.1.1.1/?{ELSEWHERE}",
        )
    ),
]


# case 5
@pytest.mark.parametrize("answer", MISBEHAVIOURS)
@pytest.mark.parametrize(
    ("userinfo", "token"), [(f"{NAME}:{PASSWORD}@", None), ("", Credential(value=TOKEN))]
)
def test_no_failure_and_no_log_line_tells_a_secret(
    answer: Answerer,
    userinfo: str,
    token: Credential | None,
    caplog: pytest.LogCaptureFixture,
    capfd: pytest.CaptureFixture[str],
) -> None:
    caplog.set_level(logging.INFO)

    async def ask() -> tuple[HttpSource, SourceError]:
        async with serving(answer) as server:
            url = f"http://{userinfo}127.0.0.1:{server.port}/a.json?X-Amz-Signature={QUERY}"
            source = source_of(url, token=token, deadline_s=0.3)
            return source, await refused(source)

    source, failure = asyncio.run(ask())
    told = [
        source.describe(),
        repr(source),
        str(failure),
        repr(failure),
        *traceback.format_exception(failure),
        caplog.text,
        *capfd.readouterr(),
    ]
    assert "5ecret" not in "\n".join(told)


# case 5
def test_a_success_logs_nothing_at_all(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)

    async def ask() -> None:
        async with serving(good()) as server:
            url = f"http://{NAME}:{PASSWORD}@127.0.0.1:{server.port}/a?sig={QUERY}"
            source = source_of(url)
            assert isinstance(await source.fetch(None), Fetched)
            await source.aclose()

    asyncio.run(ask())
    assert [record.name for record in caplog.records if record.name != "asyncio"] == []
    assert "5ecret" not in caplog.text
