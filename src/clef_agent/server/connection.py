"""One connection: uvicorn's HTTP protocol, with bounds on what a client may hold.

uvicorn bounds neither a request's head, nor the time in which it arrives, nor connections that
never send anything; a process on the same machine could hold all of them for ever.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from clef_agent.server.joined_writes import JoinedWrites
from clef_agent.server.replies import NO_STORE

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

MAX_HEAD_BYTES: Final = 32 * 1024
#: From a request's first byte to its last, in seconds.
REQUEST_DEADLINE_S: Final = 10.0
#: Without a request under way, or without a byte taken of a response, in seconds.
IDLE_DEADLINE_S: Final = 60

_TOO_LARGE: Final = b"".join(
    (
        b"HTTP/1.1 431 Request Header Fields Too Large\r\n",
        b"content-type: application/json\r\n",
        b"%s: %s\r\n" % NO_STORE,
        b"content-length: 34\r\nconnection: close\r\n\r\n",
        b'{"error":"Request head too large"}',
    )
)


class BoundedConnection(HttpToolsProtocol):
    """A connection that is closed when it holds more, or for longer, than it may.

    ``limit`` is how many there may be at once, over all listeners. At the limit an idle one makes
    room; where none is idle, the new one goes.
    """

    def __init__(self, config: Config, server_state: ServerState, *, limit: int) -> None:
        super().__init__(config=config, server_state=server_state, app_state={})
        self._limit = limit
        self._in_head = False
        self._in_request = False
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._unsent_bytes = 0

    # --- connections ----------------------------------------------------------------------------

    def connection_made(  # type: ignore[override]  # uvicorn's, which knows its transports
        self, transport: asyncio.Transport
    ) -> None:
        """A client has connected."""
        if len(self.connections) >= self._limit and not self._make_room():
            self.transport = transport
            transport.abort()
            return
        super().connection_made(cast("asyncio.Transport", JoinedWrites(transport, self.loop)))
        self.timeout_keep_alive_task = self.loop.call_later(
            IDLE_DEADLINE_S, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whose doing ever."""
        for timer in (self._deadline, self._stall, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()
        super().connection_lost(exc)

    def abort(self) -> None:
        """Ends the connection at once, unsent bytes included."""
        self.transport.abort()

    def _make_room(self) -> bool:
        for connection in self.connections:
            if isinstance(connection, BoundedConnection) and connection.is_idle:
                connection.abort()
                self.connections.discard(connection)
                return True
        return False

    @property
    def is_idle(self) -> bool:
        """Whether no request is under way, in neither direction."""
        return (
            self._is_answered
            and not self._in_request
            and not self.transport.get_write_buffer_size()
        )

    @property
    def _is_answered(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request
        return cycle is None or cycle.response_complete

    # --- requests -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        expects_head = self._in_head or not self._in_request
        room = MAX_HEAD_BYTES - self._head_bytes
        if expects_head and len(data) > room and data.find(b"\r\n\r\n", 0, room) < 0:
            self._refuse_head()
            return
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._in_head else 0
        if self._in_request and self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(REQUEST_DEADLINE_S, self._request_is_late)

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_head = self._in_request = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        self._in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._in_request = False
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        super().on_message_complete()

    def _refuse_head(self) -> None:
        if self._is_answered:
            self.transport.write(_TOO_LARGE)
        self.transport.close()

    def _request_is_late(self) -> None:
        self._deadline = None
        if self.pipeline and not self._is_answered:
            # We are the slow ones: a request is read no further while another is answered.
            self._deadline = self.loop.call_later(REQUEST_DEADLINE_S, self._request_is_late)
            return
        self.transport.close()

    # --- responses ------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client takes the response more slowly than we make it."""
        super().pause_writing()
        self._watch_reader()

    def resume_writing(self) -> None:
        """The client has caught up."""
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None
        super().resume_writing()

    def _watch_reader(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._stall = self.loop.call_later(IDLE_DEADLINE_S, self._check_reader)

    def _check_reader(self) -> None:
        # Slow is fine, and gets all it was promised; standing still holds old secrets in memory.
        if self.transport.get_write_buffer_size() >= self._unsent_bytes:
            self.abort()
        else:
            self._watch_reader()


def connection_factory(config: Config, state: ServerState, *, limit: int) -> Any:
    """What ``loop.create_server`` calls for each client."""
    return lambda: BoundedConnection(config, state, limit=limit)
