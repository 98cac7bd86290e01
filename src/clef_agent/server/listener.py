"""The sockets, and uvicorn on them.

Binding comes first and needs nothing of the rest: a taken port is known before any secret is
fetched, and no log line claims a port that somebody else listens on.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from dataclasses import replace
from typing import TYPE_CHECKING, Final

from clef_agent.errors import ListenFailed, PortInUse
from clef_agent.server.bounds import Bounds
from clef_agent.server.lean_uvicorn import leave_out_command_line

if TYPE_CHECKING:
    from clef_agent.server.guards import Guards

HOST: Final = "127.0.0.1"
#: Descriptors kept for ourselves: fetching, the disk, key services, standard streams.
RESERVED_DESCRIPTORS: Final = 64
_BACKLOG: Final = 1024
_BOUNDS: Final = Bounds()


def bind_port(port: int) -> socket.socket:
    """A socket that listens on 127.0.0.1; 0 lets the system choose the port.

    Raises:
        PortInUse: somebody else has it.
        ListenFailed: it cannot be had for another reason.
    """
    listening = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        # Ours from the last run may linger in TIME_WAIT; a live listener still refuses.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((HOST, port))
        listening.listen(_BACKLOG)
    except OSError as exc:
        listening.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(f"port {port} on {HOST} is in use by another process") from exc
        raise ListenFailed(f"cannot listen on {HOST}:{port}: {exc.strerror}") from exc
    return listening


def bind_unix(path: str) -> socket.socket:
    """A Unix socket with mode 0600 that listens at ``path``; a stale one is replaced.

    Raises:
        PortInUse: a process listens there.
        ListenFailed: something else is there, or the directory refuses.
    """
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        _remove_stale_socket(path)
        listening.bind(path)
        os.chmod(path, 0o600)  # noqa: PTH101  # a socket's path, next to bind() and the umask
        listening.listen(_BACKLOG)
    except ListenFailed:
        listening.close()
        raise
    except OSError as exc:
        listening.close()
        if exc.errno == errno.EADDRINUSE:
            raise PortInUse(f"another process listens on the Unix socket {path}") from exc
        raise ListenFailed(f"cannot listen on {path}: {exc.strerror or exc}") from exc
    return listening


def _remove_stale_socket(path: str) -> None:
    try:
        mode = os.lstat(path).st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise ListenFailed(f"{path} exists, and is not a socket")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        # Somebody who listens and never accepts would hold a blocking connect() for ever.
        probe.setblocking(False)  # noqa: FBT003  # socket's own signature
        try:
            probe.connect(path)
        except ConnectionRefusedError:
            os.unlink(path)  # noqa: PTH108  # as above
            return
        except BlockingIOError:
            pass
    raise OSError(errno.EADDRINUSE, "in use")


def takes_connections(listening: socket.socket) -> bool:
    """Whether the system takes connections for ``listening``."""
    try:
        return bool(listening.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
    except OSError:  # somebody closed the descriptor
        return False


class Listener:
    """Serves applications on sockets that are bound already.

    ``descriptors`` is the process's limit of open files, which bounds the connections further.
    """

    def __init__(self, *, descriptors: int, bounds: Bounds = _BOUNDS) -> None:
        leave_out_command_line()
        from uvicorn.server import ServerState

        self._state = ServerState()
        self._servers: list[asyncio.Server] = []
        limit = max(min(descriptors - RESERVED_DESCRIPTORS, bounds.max_connections), 1)
        self._bounds = replace(bounds, max_connections=limit)

    async def serve(self, guards: Guards, listening: socket.socket) -> None:
        """From now on ``guards`` answer what comes in by ``listening``."""
        from uvicorn.config import Config

        from clef_agent.server.connection import connection_factory

        config = Config(
            guards,
            interface="asgi3",
            http="httptools",
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            proxy_headers=False,
            server_header=False,
            date_header=False,
            timeout_keep_alive=self._bounds.idle_s,  # type: ignore[arg-type]  # call_later takes a float
        )
        config.load()
        factory = connection_factory(config, self._state, self._bounds, guards.answer_at_once)
        loop = asyncio.get_running_loop()
        if listening.family == socket.AF_UNIX:
            server = await loop.create_unix_server(factory, sock=listening)
        else:
            server = await loop.create_server(factory, sock=listening, backlog=_BACKLOG)
        self._servers.append(server)

    def is_serving(self) -> bool:
        """Whether each of the sockets still takes connections.

        The kernel is asked, and not a connection of our own made: that would fail in a flood of
        others, too, and a restart helps against none.
        """
        return all(
            server.is_serving() and all(map(takes_connections, server.sockets))
            for server in self._servers
        )

    async def drain(self, deadline_s: float) -> None:
        """No new connections; requests under way are finished until the deadline, then cut."""
        paths = [
            listening.getsockname()
            for server in self._servers
            for listening in server.sockets
            if listening.family == socket.AF_UNIX
        ]
        for server in self._servers:
            server.close()
        for path in paths:
            with contextlib.suppress(OSError):
                os.unlink(path)  # noqa: PTH108  # as above
        for connection in tuple(self._state.connections):
            connection.shutdown()
        loop = asyncio.get_running_loop()
        deadline = loop.time() + deadline_s
        while self._state.connections and loop.time() < deadline:  # noqa: ASYNC110  # uvicorn tells nobody
            await asyncio.sleep(0.01)
        for connection in tuple(self._state.connections):
            connection.transport.abort()
