"""The server under load, under attack, and while what it serves is exchanged."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clef_agent import errors
from clef_agent.decrypt.secrets import Secrets
from clef_agent.server.bounds import Bounds
from server_fakes import (
    HEALTH,
    TOKEN,
    FakeProvider,
    Serving,
    get,
    run,
    serving,
    until,
)

SECRETS = get("/v1/secrets")
BIG = {"big": {"BLOB": "x" * 10_000_000}}


def test_a_thousand_idle_connections_do_not_stop_a_request() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 4_096:
        pytest.skip("the machine gives too few descriptors")

    async def test() -> None:
        async with serving() as server:
            for _ in range(1_000):
                await server.connect()
            await until(lambda: len(server.connections) == 1_000)
            await server.works()

    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 65_536), hard))
    try:
        run(test())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.mark.parametrize("event", ["swap", "wipe"])
def test_a_slow_reader_gets_what_it_was_promised_and_then_it_is_zeroed(event: str) -> None:
    zeroed: list[int] = []

    class Witnessed(bytearray):
        """Stands in for the buffer, and tells when nobody holds it any more."""

        def __del__(self) -> None:
            zeroed.append(len(self))

    async def test() -> None:
        provider = FakeProvider(BIG)
        secrets: Secrets = (await provider.open()).secrets
        body = bytes(secrets.json)
        secrets.json = memoryview(Witnessed(body)).toreadonly()
        del secrets
        async with serving(provider) as server:
            wire = await server.connect(receive_buffer=65_536)
            wire.send(SECRETS)
            head = await wire.reader.readuntil(b"\r\n\r\n")
            assert b"content-length: %d\r\n" % len(body) in head
            got = bytearray(await wire.reader.read(65_536))
            if event == "swap":
                provider.swap({"app": {"KEY": "new"}})
            else:
                provider.wipe(errors.ArtifactRevoked("revoked"))
            assert not zeroed
            while len(got) < len(body):
                got += await wire.reader.read(65_536)
                await asyncio.sleep(0)
            assert bytes(got) == body
            await until(lambda: zeroed == [len(body)])

    run(test())


# --- whatever comes ---------------------------------------------------------------------------

GOOD = (
    SECRETS,
    HEALTH,
    get("/v1/secrets/app__API_KEY"),
    get("/v1/refresh", "Content-Length: 2", method="POST") + b"{}",
    get("/v1/refresh", "Transfer-Encoding: chunked", method="POST") + b"2\r\n{}\r\n0\r\n\r\n",
    get("/v1/keys", "Expect: 100-continue", "Connection: close"),
    get("/v1/secrets?format=flat", "If-None-Match: *", method="HEAD"),
)
pieces = st.sampled_from(
    [b"\r\n", b"\r", b"\n", b":", b" ", b"\x00", b"\xff", b"%", b"%2F", b"Host: x\r\n", b"0\r\n"]
) | st.binary(max_size=8)


@st.composite
def mutated(draw: st.DrawFn) -> bytes:
    """One or two good requests with a few bytes put in, left out or doubled."""
    data = b"".join(draw(st.lists(st.sampled_from(GOOD), min_size=1, max_size=2)))
    for _ in range(draw(st.integers(0, 4))):
        start = draw(st.integers(0, len(data)))
        end = min(start + draw(st.integers(0, 6)), len(data))
        data = data[:start] + draw(pieces) + data[end:]
    return data


lines = st.builds(
    lambda method, target, headers: (
        b"%s %s HTTP/1.1\r\nHost: 127.0.0.1\r\n" % (method, target)
        + b"".join(b"%s: %s\r\n" % header for header in headers)
        + b"\r\n"
    ),
    st.sampled_from([b"GET", b"HEAD", b"POST", b"OPTIONS", b"CONNECT", b"PURGE", b"get"]),
    st.sampled_from([b"/v1/secrets", b"/v1/keys?", b"*", b"http://a/v1/keys", b"/%", b"//"])
    | st.binary(min_size=1, max_size=20).map(b"/v1/secrets/".__add__),
    st.lists(
        st.tuples(st.sampled_from([b"Authorization", b"Content-Length", b"X"]), st.binary()),
        max_size=3,
    ),
)


async def throw(server: Serving, data: bytes) -> bytes:
    wire = await server.connect()
    wire.send(data)
    with contextlib.suppress(OSError, RuntimeError):
        wire.writer.write_eof()
    got = await wire.rest()
    await wire.close()
    server.wires.remove(wire)
    return got


@settings(max_examples=40)
@given(st.lists(mutated() | lines | st.binary(max_size=200), min_size=5, max_size=20))
def test_no_bytes_whatever_bring_a_500_a_hang_or_the_end(
    attacks: list[bytes],
) -> None:
    async def test() -> None:
        async with serving(bounds=Bounds(request_s=1.0, idle_s=1.0)) as server:
            for attack in attacks:
                got = await throw(server, attack)
                assert b"HTTP/1.1 500" not in got
                if TOKEN.encode() not in attack:
                    assert b"app-key" not in got
            wire = await server.connect()
            answer = await wire.ask(SECRETS)
            assert (answer.status, "app" in json.loads(answer.body)) == (200, True)

    run(test())
