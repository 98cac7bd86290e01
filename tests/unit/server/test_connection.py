from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from functools import partial

import pytest

from clef_agent import errors
from clef_agent.server.bounds import Bounds
from fakes import PAYLOAD
from server_fakes import (
    HEALTH,
    TOKEN,
    FakeProvider,
    LoopFactory,
    Run,
    Serving,
    Wire,
    get,
    run,
    serving,
    until,
)

SECRETS = get("/v1/secrets")
BIG = {"big": {"BLOB": "x" * 10_000_000}}
SHORT = Bounds(request_s=0.15, idle_s=0.15)


@asynccontextmanager
async def one(
    bounds: Bounds | None = None, provider: FakeProvider | None = None
) -> AsyncIterator[tuple[Serving, Wire]]:
    async with serving(provider, bounds=bounds) as server:
        yield server, await server.connect()


def short() -> AbstractAsyncContextManager[tuple[Serving, Wire]]:
    return one(SHORT)


# --- requests ---------------------------------------------------------------------------------


def test_one_connection_serves_many_requests(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            for _ in range(3):
                assert (await wire.ask(SECRETS)).json == PAYLOAD

    on_loop(test())


def test_pipelined_requests_are_answered_in_order(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            wire.send(SECRETS + HEALTH + get("/v1/nothing") + get("/v1/keys"))
            answers = [await wire.answer() for _ in range(4)]
            assert [answer.status for answer in answers] == [200, 200, 404, 200]
            assert answers[0].json == PAYLOAD
            assert answers[1].json["status"] == "ok"

    on_loop(test())


def test_a_request_may_come_byte_by_byte(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            for byte in HEALTH:
                wire.send(bytes([byte]))
                await wire.writer.drain()
                await asyncio.sleep(0)
            assert (await wire.answer()).status == 200

    on_loop(test())


def test_http_1_0_gets_its_answer_and_the_end_of_the_connection(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            answer = await wire.ask(get("/v1/secrets", version="1.0"))
            assert (answer.json, answer.header(b"connection")) == (PAYLOAD, b"close")
            assert await wire.rest() == b""

    on_loop(test())


def test_http_1_0_without_host_is_refused(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            answer = await wire.ask(b"GET /v1/health HTTP/1.0\r\n\r\n")
            assert answer.status == 403

    on_loop(test())


def test_the_absolute_form_of_a_target_is_understood(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            assert (await wire.ask(get("http://127.0.0.1/v1/secrets?format=flat"))).status == 200
            assert (await wire.ask(get("http://127.0.0.1/v1/secrets/app%2FKEY"))).status == 404

    on_loop(test())


def test_head_has_the_headers_of_get_and_no_body(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            for path in (
                "/v1/secrets",
                "/v1/keys",
                "/v1/health",
                "/v1/ready",
                "/v1/secrets/app/API_KEY",
            ):
                full = await wire.ask(get(path))
                wire.send(get(path, method="HEAD"))
                bare = await wire.answer(has_body=False)
                assert (bare.status, bare.headers) == (full.status, full.headers)
            # The next answer stands where a body would have been.
            assert (await wire.ask(HEALTH)).status == 200

    on_loop(test())


def test_a_304_has_no_body_and_keeps_the_connection(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            etag = (await wire.ask(SECRETS)).header(b"etag")
            assert etag is not None
            answer = await wire.ask(get("/v1/secrets", f"If-None-Match: {etag.decode()}"))
            assert (answer.status, answer.header(b"etag"), answer.body) == (304, etag, b"")
            assert answer.header(b"transfer-encoding") is None
            assert (await wire.ask(HEALTH)).status == 200

    on_loop(test())


def test_a_request_for_an_upgrade_is_answered_without_one(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            upgrade = get("/v1/health", "Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c")
            assert (await wire.ask(upgrade)).status == 200
            websocket = get("/v1/keys", "Connection: Upgrade", "Upgrade: websocket")
            assert (await wire.ask(websocket)).status == 200
            assert (await wire.ask(HEALTH)).status == 200

    on_loop(test())


def test_a_body_that_nobody_asked_for_is_passed_over(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            refresh = get("/v1/refresh", "Content-Length: 200000", method="POST")
            wire.send(refresh + b"x" * 100_000)
            wire.send(b"x" * 100_000)
            assert (await wire.answer()).status == 200
            chunked = get("/v1/refresh", "Transfer-Encoding: chunked", method="POST")
            wire.send(chunked + b"2\r\nab\r\n" * 100_000 + b"0\r\nX-Trailer: yes\r\n\r\n")
            assert (await wire.answer()).status == 200
            assert (await wire.ask(HEALTH)).status == 200

    on_loop(test())


@pytest.mark.parametrize(
    "broken",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # a TLS client
        b"hello\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /v1/health HTTP/9.9\r\n\r\n",
        b"GET /v1/se\xffcrets HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET http://127.0.0.1 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost : 127.0.0.1\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\x00\r\n\r\n",
        b"POST /v1/refresh HTTP/1.1\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
        b"POST /v1/refresh HTTP/1.1\r\nContent-Length: -1\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"CONNECT 127.0.0.1:22 HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
def test_a_broken_request_is_refused_and_the_server_goes_on(on_loop: Run, broken: bytes) -> None:
    async def test() -> None:
        async with one() as (server, wire):
            wire.send(broken)
            assert (await wire.rest()).startswith(b"HTTP/1.1 400 ")
            await server.works()
            await until(lambda: not server.connections)

    on_loop(test())


# --- bounds -----------------------------------------------------------------------------------

TOO_LARGE = (b"HTTP/1.1 431 ", b'{"error":"Request head too large"}')


@pytest.mark.parametrize(
    "head",
    [
        b"GET /v1/health HTTP/1.1\r\nHost: 127.0.0.1\r\nX: " + b"a" * 40_000 + b"\r\n\r\n",
        b"GET /v1/health HTTP/1.1\r\n" + b"X: a\r\n" * 10_000 + b"\r\n",
        b"GET /" + b"a" * 40_000 + b" HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n",
    ],
)
@pytest.mark.parametrize("piece_bytes", [100_000, 1_000])
def test_a_head_over_32_kib_is_refused_in_one_piece_and_dripped(
    on_loop: Run, head: bytes, piece_bytes: int
) -> None:
    async def test() -> None:
        async with one() as (server, wire):
            for at in range(0, len(head), piece_bytes):
                wire.send(head[at : at + piece_bytes])
                await asyncio.sleep(0)
            try:
                got = await wire.answer()
            except (asyncio.IncompleteReadError, ConnectionError):
                pass  # a reset overtook the answer, because not all of the head was read
            else:
                assert (got.status, got.json) == (431, {"error": "Request head too large"})
                assert got.header(b"cache-control") == b"no-store"
            await server.works()
            await until(lambda: not server.connections)

    on_loop(test())


def test_a_head_of_just_under_32_kib_is_answered(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            padding = 32 * 1024 - len(get("/v1/health", "X: "))
            request = get("/v1/health", "X: " + "a" * padding)
            assert len(request) == 32 * 1024
            assert (await wire.ask(request)).status == 200
            # Each request has a bound of its own, however many came before.
            wire.send(request * 5)
            assert [(await wire.answer()).status for _ in range(5)] == [200] * 5
            assert (await wire.ask(request[:-1] + b"\n")).status == 200

    on_loop(test())


def test_a_large_head_behind_an_unanswered_request_ends_the_connection(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with one(provider=provider) as (server, wire):
            etag = (await wire.ask(SECRETS)).header(b"etag") or b""
            wire.send(get("/v1/secrets?wait=60", f"If-None-Match: {etag.decode()}"))
            await until(lambda: provider.waiting)
            wire.send(b"GET / HTTP/1.1\r\nX: " + b"a" * 40_000)
            assert b"431" not in await wire.rest()  # it would be taken for the first one's answer
            await until(lambda: not provider.waiting)
            await until(lambda: not server.connections)

    on_loop(test())


def test_trailers_without_end_end_the_connection(on_loop: Run) -> None:
    async def test() -> None:
        async with one(Bounds(request_s=60)) as (server, wire):
            wire.send(get("/v1/refresh", "Transfer-Encoding: chunked", method="POST"))
            wire.send(b"1\r\nx\r\n0\r\nX: ")
            assert (await wire.answer()).status == 200
            with pytest.raises(ConnectionError):
                await wire.flood(b"a" * 8_000)
            await until(lambda: not server.connections)
            await server.works()

    on_loop(test())


@pytest.mark.parametrize("begun", [b"G", b"GET /v1/health HTTP/1.1\r\nHost: 127", b"\r\nGET /"])
def test_a_head_that_is_never_whole_is_not_waited_for(on_loop: Run, begun: bytes) -> None:
    async def test() -> None:
        async with one(Bounds(request_s=0.1, idle_s=60)) as (server, wire):
            wire.send(begun)
            assert await wire.rest() == b""
            await server.works()

    on_loop(test())


def test_dripping_does_not_prolong_the_deadline_of_a_head(on_loop: Run) -> None:
    async def test() -> None:
        async with one(Bounds(request_s=0.1, idle_s=60)) as (server, wire):
            wire.send(b"GET /v1/health HTTP/1.1\r\n")
            while server.connections:
                wire.send(b"X: a\r\n")
                await asyncio.sleep(0.005)

    on_loop(test())


def test_a_body_that_never_ends_is_not_waited_for(on_loop: Run) -> None:
    async def test() -> None:
        async with one(Bounds(request_s=0.1, idle_s=60)) as (_, wire):
            wire.send(get("/v1/refresh", "Content-Length: 10", method="POST") + b"abc")
            assert (await wire.answer()).status == 200
            assert await wire.rest() == b""

    on_loop(test())


def test_a_request_read_no_further_because_of_us_is_not_late(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with one(Bounds(request_s=0.5, idle_s=60), provider) as (_, wire):
            etag = ((await wire.ask(SECRETS)).header(b"etag") or b"").decode()
            wait = get("/v1/secrets?wait=60", f"If-None-Match: {etag}")
            wire.send(wait + HEALTH + HEALTH[:-5])
            await until(lambda: provider.waiting)
            loop = asyncio.get_running_loop()
            late = loop.time() + 0.8
            await until(lambda: loop.time() > late)
            wire.send(HEALTH[-5:])
            provider.swap({"app": {"KEY": "new"}})
            answers = [await wire.answer() for _ in range(3)]
            assert [answer.status for answer in answers] == [200] * 3

    on_loop(test())


@pytest.mark.parametrize("sent", [b"", b"\r\n", b"\r\n\r\n\n"])
def test_a_connection_that_asks_nothing_is_closed(on_loop: Run, sent: bytes) -> None:
    async def test() -> None:
        async with one(Bounds(idle_s=0.1)) as (server, wire):
            wire.send(sent)
            assert await wire.rest() == b""
            assert not server.connections

    on_loop(test())


@pytest.mark.parametrize("after", [b"", b"\r\n"])
def test_a_connection_is_closed_when_idle_after_a_request(on_loop: Run, after: bytes) -> None:
    async def test() -> None:
        async with one(Bounds(idle_s=0.1)) as (_, wire):
            assert (await wire.ask(HEALTH)).status == 200
            wire.send(after)
            assert await wire.rest() == b""

    on_loop(test())


# case 17
@pytest.mark.parametrize("sent", [b"", HEALTH[:20]], ids=["idle", "in a request"])
def test_a_client_that_was_frozen_with_the_server_has_its_time_anew(
    on_loop: Run, sent: bytes
) -> None:
    async def test() -> None:
        async with one(Bounds(idle_s=0.5, request_s=0.5)) as (server, wire):
            assert (await wire.ask(HEALTH)).status == 200
            wire.send(sent)
            (connection,) = server.connections
            await until(lambda: connection._in_request == bool(sent))
            time.sleep(2)  # noqa: ASYNC251  # nothing runs: neither the client nor the server
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            answer = await wire.ask(HEALTH[len(sent) :])
            assert answer.status == 200

    on_loop(test())


def test_a_flood_of_pipelined_requests_is_cut(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (server, wire):
            longest = 0
            flood = asyncio.ensure_future(wire.flood(HEALTH * 1_000))
            await until(lambda: server.connections)
            (connection,) = server.connections
            while server.connections:
                longest = max(longest, len(connection.pipeline))
                await asyncio.sleep(0)
            await asyncio.wait([flood])
            assert flood.cancelled() or isinstance(flood.exception(), ConnectionError | None)
            assert longest <= Bounds().pipelined
            other = await server.connect()
            other.send(HEALTH)
            assert (await other.answer()).status == 200

    on_loop(test())


def test_as_many_pipelined_requests_as_may_be_are_answered(on_loop: Run) -> None:
    async def test() -> None:
        async with one() as (_, wire):
            wire.send(HEALTH * Bounds().pipelined)
            for _ in range(Bounds().pipelined):
                assert (await wire.answer()).status == 200

    on_loop(test())


# --- slow readers -----------------------------------------------------------------------------


def test_a_reader_that_stands_still_is_cut(on_loop: Run) -> None:
    async def test() -> None:
        async with serving(FakeProvider(BIG), bounds=SHORT) as server:
            wire = await server.connect(receive_buffer=4096)
            wire.send(SECRETS)
            await until(lambda: server.face.requests["/v1/secrets", 200])
            await until(lambda: not server.connections)
            assert len(await wire.rest()) < 10_000_000

    on_loop(test())


def test_a_reader_that_stands_still_after_a_while_is_cut(on_loop: Run) -> None:
    async def test() -> None:
        async with serving(FakeProvider(BIG), bounds=SHORT) as server:
            wire = await server.connect(receive_buffer=65_536)
            wire.send(SECRETS)
            await until(lambda: server.face.requests["/v1/secrets", 200])
            (connection,) = server.connections
            await until(lambda: connection._untaken_bytes)
            connection.timeout_keep_alive_task.cancel()  # it would look as well
            at_first = connection._untaken_bytes
            while connection._untaken_bytes == at_first:
                assert await wire.reader.read(65_536)  # as long as it moves, it is not cut
                await asyncio.sleep(0.01)
            await until(lambda: not server.connections)

    on_loop(test())


@pytest.mark.parametrize("close", [(), ("Connection: close",)])
def test_a_reader_that_stands_still_before_the_last_bytes_is_cut(
    on_loop: Run, close: tuple[str, ...]
) -> None:
    # Too little to be told of by the transport, which waits for ever to write it.
    async def test() -> None:
        async with serving(FakeProvider(BIG), bounds=SHORT) as server:
            wire = await server.connect(receive_buffer=4096)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
            wire.send(get("/v1/secrets", *close))
            await until(lambda: server.connections)
            (connection,) = server.connections
            await until(lambda: connection.transport.get_write_buffer_size() > 1_000_000)
            connection.resume_writing()  # as if all but the last bytes had been taken
            connection.timeout_keep_alive_handler()
            await until(lambda: not server.connections)

    on_loop(test())


def test_a_client_that_only_asks_and_never_reads_is_cut(on_loop: Run) -> None:
    async def test() -> None:
        async with serving(bounds=SHORT) as server:
            wire = await server.connect(receive_buffer=2048)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
            await until(lambda: server.connections)
            with pytest.raises(ConnectionError):
                await wire.flood(SECRETS * 100)
            await until(lambda: not server.connections)

    on_loop(test())


def test_a_client_that_says_goodbye_and_never_reads_is_cut(on_loop: Run) -> None:
    async def test() -> None:
        async with serving(FakeProvider(BIG), bounds=SHORT) as server:
            wire = await server.connect(receive_buffer=4096)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
            wire.send(SECRETS)
            await until(lambda: server.face.requests["/v1/secrets", 200])
            (connection,) = server.connections
            connection.resume_writing()  # as if all but the last bytes had been taken
            connection.timeout_keep_alive_task.cancel()  # it ends what is open only
            wire.writer.write_eof()
            await until(lambda: not server.connections)

    on_loop(test())


def test_a_slow_reader_gets_every_byte(on_loop: Run) -> None:
    async def test() -> None:
        bounds = Bounds(idle_s=0.3)
        async with serving(FakeProvider(BIG), bounds=bounds) as server:
            wire = await server.connect(receive_buffer=65_536)
            wire.send(SECRETS)
            loop = asyncio.get_running_loop()
            began, got = loop.time(), bytearray()
            head = await wire.reader.readuntil(b"\r\n\r\n")
            length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
            while len(got) < length:
                got += await wire.reader.read(65_536)
                if loop.time() - began < 0.8:
                    await asyncio.sleep(0.01)  # slower than the bound allows to stand still
            assert json.loads(got) == BIG

    on_loop(test())


# --- the limit --------------------------------------------------------------------------------


def test_at_the_limit_an_idle_connection_makes_room(on_loop: Run) -> None:
    async def test() -> None:
        async with serving(bounds=Bounds(max_connections=3)) as server:
            idle = [await server.connect() for _ in range(3)]
            for wire in idle:
                assert (await wire.ask(HEALTH)).status == 200
            newest = await server.connect()
            assert (await newest.ask(HEALTH)).status == 200
            assert len(server.connections) == 3

    on_loop(test())


def test_where_all_are_owed_an_answer_the_newest_connection_goes(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with serving(provider, bounds=Bounds(max_connections=2)) as server:
            wires = [await server.connect() for _ in range(2)]
            for wire in wires:
                etag = ((await wire.ask(SECRETS)).header(b"etag") or b"").decode()
                wire.send(get("/v1/secrets?wait=60", f"If-None-Match: {etag}"))
            await until(lambda: provider.waiting == 2)
            newest = await server.connect()
            assert await newest.rest() == b""
            provider.swap({"app": {"KEY": "new"}})
            for wire in wires:
                assert (await wire.answer()).status == 200

    on_loop(test())


@pytest.mark.parametrize(
    "begun",
    [
        b"GET /v1/secrets HTTP/1.1\r\nHost: 127",
        get("/v1/refresh", "Content-Length: 9", method="POST") + b"half",
    ],
    ids=["half a head", "half a body"],
)
def test_the_oldest_unfinished_request_makes_room(on_loop: Run, begun: bytes) -> None:
    async def test() -> None:
        async with serving(bounds=Bounds(max_connections=3)) as server:
            flood = []
            for number in range(3):
                wire = await server.connect()
                wire.send(begun)
                flood.append(wire)
                await until(partial(_are_asking, server, number + 1))
            await server.works()
            assert (await flood[0].rest()).count(b"HTTP/1.1") <= 1
            for wire in flood[1:]:
                wire.send(b"x" if b"half" in begun else b".0.0.1\r\n\r\n")
            assert b"HTTP/1.1" in await flood[1].reader.readuntil(b"\r\n\r\n")

    on_loop(test())


def _are_asking(server: Serving, number: int) -> bool:
    """Whether so many connections hold a request that is not whole, and are owed nothing."""
    asking = [c for c in server.connections if c._in_request and c.owes_nothing]
    return len(asking) == number


def test_who_has_just_connected_is_kept_by_a_flood_of_half_requests(on_loop: Run) -> None:
    async def test() -> None:
        async with serving(bounds=Bounds(max_connections=3)) as server:
            flood = [await server.connect() for _ in range(2)]
            for wire in flood:
                wire.send(HEALTH[:20])
            await until(partial(_are_asking, server, 2))
            good = await server.connect()
            await until(lambda: len(server.connections) == 3)
            await (await server.connect()).ask(HEALTH)
            assert (await good.ask(HEALTH)).status == 200

    on_loop(test())


def test_an_unfinished_request_behind_an_unanswered_one_makes_no_room(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with serving(provider, bounds=Bounds(max_connections=1)) as server:
            wire = await server.connect()
            etag = (await wire.ask(SECRETS)).header(b"etag")
            assert etag is not None
            waiting = get("/v1/secrets?wait=60", f"If-None-Match: {etag.decode()}")
            wire.send(waiting + b"GET /v1/sec")
            await until(lambda: provider.waiting == 1)
            late = await server.connect()
            assert await late.rest() == b""
            provider.swap({"app": {"KEY": "new"}})
            assert (await wire.answer()).status == 200

    on_loop(test())


def test_descriptors_bound_the_connections_too(on_loop: Run) -> None:
    async def test() -> None:
        for descriptors, limit in ((64 + 2, 2), (10, 1)):
            async with serving(descriptors=descriptors) as server:
                for _ in range(4):
                    assert (await (await server.connect()).ask(HEALTH)).status == 200
                assert len(server.connections) == limit

    on_loop(test())


# --- faults -----------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["/v1/secrets", "/v1/keys"])
def test_a_fault_of_ours_is_a_500_that_says_nothing(
    path: str, loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture
) -> None:
    async def test() -> None:
        provider = FakeProvider()
        provider.failure = ValueError(f"a text with {TOKEN}")
        async with one(provider=provider) as (server, wire):
            answer = await wire.ask(get(path))
            assert (answer.status, answer.json) == (500, {"error": "Internal error"})
            assert answer.header(b"cache-control") == b"no-store"
            await server.works()

    run(test(), loop_factory)
    assert TOKEN not in caplog.text
    assert "ValueError at server_fakes.py:" in caplog.text


def test_a_waiter_whose_client_hangs_up_gives_its_place_free(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with one(provider=provider) as (_, wire):
            etag = ((await wire.ask(SECRETS)).header(b"etag") or b"").decode()
            wire.send(get("/v1/secrets?wait=60", f"If-None-Match: {etag}"))
            await until(lambda: provider.waiting)
            await wire.close()
            await until(lambda: not provider.waiting)

    on_loop(test())


def test_a_wipe_answers_those_who_wait(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with one(provider=provider) as (_, wire):
            etag = ((await wire.ask(SECRETS)).header(b"etag") or b"").decode()
            wire.send(get("/v1/secrets?wait=60", f"If-None-Match: {etag}"))
            await until(lambda: provider.waiting)
            provider.wipe(errors.ArtifactRevoked("revoked", retry_after_s=2.5))
            answer = await wire.answer()
            assert (answer.status, answer.header(b"retry-after")) == (503, b"3")
            assert answer.json == {"error": "revoked", "reason": "revoked"}

    on_loop(test())
