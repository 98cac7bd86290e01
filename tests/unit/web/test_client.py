"""The web's client, over connections that a freeze has left dead."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import TypeAlias

import pytest

from clef_agent.web.address import parse_url
from clef_agent.web.client import WebClient
from clef_agent.web.exchange import Request
from fakes import FakeClock

Ask: TypeAlias = Callable[[], Awaitable[bytes]]

_ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


class Counting:
    """A server that answers the first request of each connection, and is silent to all others."""

    def __init__(self) -> None:
        self.connections = 0
        self.closed = asyncio.Semaphore(0)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        await reader.readuntil(b"\r\n\r\n")
        writer.write(_ANSWER)
        await reader.read()
        writer.close()
        await writer.wait_closed()
        self.closed.release()


@asynccontextmanager
async def client_of(server: Counting, clock: FakeClock) -> AsyncIterator[Ask]:
    listening = await asyncio.start_server(server.serve, "127.0.0.1", 0)
    port = listening.sockets[0].getsockname()[1]
    address, _ = parse_url(f"http://127.0.0.1:{port}/a")
    client = WebClient(address, clock=clock)

    async def ask() -> bytes:
        until = asyncio.get_running_loop().time() + 20
        return (await client.ask(Request(address), max_bytes=10, until=until)).body

    try:
        yield ask
    finally:
        await client.aclose()
        for _ in range(server.connections):
            await server.closed.acquire()
        listening.close()


# case 17
@pytest.mark.parametrize("frozen_s", [3600, 20])
def test_a_connection_that_lay_idle_in_a_freeze_is_not_used_again(frozen_s: float) -> None:
    server, clock = Counting(), FakeClock()

    async def test() -> None:
        async with client_of(server, clock) as ask:
            assert await ask() == b"ok"
            clock.advance(frozen_s)  # and the loop's clock has stood still
            assert await asyncio.wait_for(ask(), 2) == b"ok"

    asyncio.run(test())
    assert server.connections == 2
