from __future__ import annotations

import asyncio
import os
import socket
import stat
from pathlib import Path

import pytest

from clef_agent.errors import ListenFailed, PortInUse
from clef_agent.server.listener import Listener, bind_port, bind_unix, takes_connections
from server_fakes import (
    HEALTH,
    Face,
    FakeProvider,
    LoopFactory,
    Wire,
    get,
    run,
    serving,
    until,
)
from unprivileged import first_free_port, without_rights

BIG = {"big": {"BLOB": "x" * 10_000_000}}


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    # A socket's path has 107 bytes at most, and a test's folder may have more.
    monkeypatch.chdir(tmp_path)
    return "s"


# --- binding ----------------------------------------------------------------------------------


def test_a_port_in_use_is_refused() -> None:  # case 3
    with bind_port(0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortInUse, match=f"port {port} "):
            bind_port(port)


def test_only_loopback_is_bound() -> None:
    with bind_port(0) as listening:
        assert listening.getsockname()[0] == "127.0.0.1"
        assert listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)


def test_a_port_that_a_closed_connection_lingers_on_can_be_had_again() -> None:
    with bind_port(0) as listening:
        port = listening.getsockname()[1]
        with socket.create_connection(("127.0.0.1", port)):
            accepted, _ = listening.accept()
            accepted.close()  # ours first: TIME_WAIT is on our side
    bind_port(port).close()


@pytest.mark.skipif(first_free_port() <= 1, reason="this system lets everybody bind every port")
def test_a_port_of_the_system_cannot_be_listened_on() -> None:
    with without_rights(), pytest.raises(ListenFailed, match=r"127\.0\.0\.1:1:"):
        bind_port(1)


def test_a_unix_socket_is_ours_alone(path: str) -> None:
    previous = os.umask(0)
    try:
        with bind_unix(path):
            assert stat.S_IMODE(Path(path).stat().st_mode) == 0o600
    finally:
        os.umask(previous)


def test_a_stale_unix_socket_is_replaced(path: str) -> None:
    bind_unix(path).close()
    assert Path(path).is_socket()
    with bind_unix(path), socket.socket(socket.AF_UNIX) as client:
        client.connect(path)


@pytest.mark.parametrize("backlog_is_full", [False, True])
def test_a_live_unix_socket_is_refused_and_left_alone(path: str, backlog_is_full: bool) -> None:
    with socket.socket(socket.AF_UNIX) as other, socket.socket(socket.AF_UNIX) as client:
        other.bind(path)
        other.listen(0)
        if backlog_is_full:
            client.connect(path)
        with pytest.raises(PortInUse):
            bind_unix(path)
        assert Path(path).is_socket()


def test_what_is_no_socket_is_refused_and_left_alone(path: str) -> None:
    Path(path).write_text("precious")
    with pytest.raises(ListenFailed, match="not a socket"):
        bind_unix(path)
    assert Path(path).read_text() == "precious"


def test_a_symlink_is_refused_and_not_followed(path: str) -> None:
    with bind_unix("real"):
        Path(path).symlink_to("real")
        with pytest.raises(ListenFailed, match="not a socket"):
            bind_unix(path)


@pytest.mark.parametrize("where", ["missing/s", "x" * 200])
def test_a_path_that_cannot_be_bound_is_refused(path: str, where: str) -> None:
    with pytest.raises(ListenFailed, match="cannot listen on"):
        bind_unix(where)


def test_only_a_socket_that_listens_takes_connections(path: str) -> None:
    with bind_port(0) as listening, bind_unix(path) as unix:
        assert takes_connections(listening)
        assert takes_connections(unix)
        listening.shutdown(socket.SHUT_RDWR)
        assert not takes_connections(listening)
    assert not takes_connections(unix)


# --- serving and draining ---------------------------------------------------------------------


def test_a_unix_socket_serves_whatever_the_host_and_is_removed_at_the_end(
    path: str, loop_factory: LoopFactory
) -> None:
    async def test() -> None:
        listener, face = Listener(descriptors=1_000), Face(FakeProvider(), port=None)
        await listener.serve(face.app, bind_unix(path))
        wire = Wire(*await asyncio.open_unix_connection(path))
        wire.send(get("/v1/secrets").replace(b"127.0.0.1", b"anything"))
        assert (await wire.answer()).status == 200
        await wire.close()
        await listener.drain(5.0)
        assert not os.path.lexists(path)  # noqa: ASYNC240  # nobody else is served meanwhile

    run(test(), loop_factory)


def test_it_serves_until_it_is_drained(loop_factory: LoopFactory) -> None:
    async def test() -> None:
        async with serving() as server:
            assert server.listener.is_serving()
            await server.listener.drain(5.0)
            assert not server.listener.is_serving()

    run(test(), loop_factory)


def test_a_unix_socket_removed_by_others_is_no_trouble(path: str) -> None:
    async def test() -> None:
        listener = Listener(descriptors=1_000)
        await listener.serve(Face(FakeProvider(), port=None).app, bind_unix(path))
        os.unlink(path)  # noqa: PTH108  # nobody else is served meanwhile
        await listener.drain(5.0)

    run(test())


def test_a_drain_takes_no_new_connections_and_ends_idle_ones(loop_factory: LoopFactory) -> None:
    async def test() -> None:
        async with serving() as server:
            idle, used = await server.connect(), await server.connect()
            assert (await used.ask(HEALTH)).status == 200
            await server.listener.drain(5.0)
            assert await idle.rest() == await used.rest() == b""
            with pytest.raises(ConnectionError):
                await server.connect()

    run(test(), loop_factory)


def test_a_drain_sends_home_who_waits_with_503(loop_factory: LoopFactory) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with serving(provider) as server:
            wire = await server.connect()
            etag = ((await wire.ask(get("/v1/secrets"))).header(b"etag") or b"").decode()
            wire.send(get("/v1/secrets?wait=60", f"If-None-Match: {etag}"))
            await until(lambda: provider.waiting)
            provider.drain()
            await server.listener.drain(5.0)
            answer = await wire.answer()
            assert (answer.status, answer.json["reason"]) == (503, "shutting_down")
            assert answer.header(b"connection") == b"close"
            assert await wire.rest() == b""

    run(test(), loop_factory)


def test_a_drain_lets_a_large_response_be_read_to_its_end(loop_factory: LoopFactory) -> None:
    async def test() -> None:
        async with serving(FakeProvider(BIG)) as server:
            wire = await server.connect(receive_buffer=65_536)
            wire.send(get("/v1/secrets"))
            await until(lambda: server.face.requests["/v1/secrets", 200])
            draining = asyncio.ensure_future(server.listener.drain(10.0))
            assert (await wire.answer()).json == BIG
            await draining

    run(test(), loop_factory)


def test_a_drain_ends_at_its_deadline(loop_factory: LoopFactory) -> None:
    async def test() -> None:
        async with serving(FakeProvider(BIG)) as server:
            wire = await server.connect(receive_buffer=4_096)
            wire.writer.transport.pause_reading()  # type: ignore[attr-defined]  # a transport that reads
            wire.send(get("/v1/secrets"))
            await until(lambda: server.face.requests["/v1/secrets", 200])
            loop = asyncio.get_running_loop()
            began = loop.time()
            await server.listener.drain(0.1)
            assert 0.1 <= loop.time() - began < 5
            await until(lambda: not server.connections)

    run(test(), loop_factory)
