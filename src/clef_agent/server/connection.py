"""One connection: uvicorn's HTTP protocol, with bounds on what a client may hold.

uvicorn bounds neither a request's head, nor the time in which it arrives, nor connections that
never send anything; a process on the same machine could hold all of them for ever.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import socket
import termios
from array import array
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from clef_agent.server.bounds import Bounds
from clef_agent.server.crowd import Crowd
from clef_agent.server.joined_writes import JoinedWrites
from clef_agent.server.replies import Header, Reply, json_reply

if TYPE_CHECKING:
    from uvicorn.config import Config
    from uvicorn.server import ServerState

#: The reply to a GET of a target with these headers, if nothing has to be waited for.
AnswerAtOnce: TypeAlias = Callable[[bytes, list[Header]], Reply | None]
#: A request that has one of them is more than its head, or waits for a word of ours.
_UNUSUAL: Final = frozenset((b"content-length", b"transfer-encoding", b"expect"))

#: A timer that is later than this was frozen, together with the process and its clients, in
#: seconds. It rings before what arrives meanwhile is read.
_FROZEN_S: Final = 1.0

_TOO_LARGE: Final = json_reply(
    431, {"error": "Request head too large"}, headers=((b"connection", b"close"),)
)


class BoundedConnection(HttpToolsProtocol):
    """A connection that is closed when it holds more, or for longer, than it may.

    At the limit of connections, the one that has made no progress for longest makes room, idle or
    within a request; where every one is owed an answer, the new one goes.

    What ``answer_at_once`` answers never becomes a task of uvicorn's: that is half of the cost of a
    request.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        bounds: Bounds,
        crowd: Crowd,
        answer_at_once: AnswerAtOnce,
    ) -> None:
        super().__init__(config=config, server_state=server_state, app_state={})
        self._bounds = bounds
        self._crowd = crowd
        self._answer_at_once = answer_at_once
        self._has_answered_at_once = False
        self._max_head_bytes = bounds.head_bytes
        self._in_head = False
        self._in_request = False
        self._has_body = False
        self._head_bytes = 0
        self._deadline: asyncio.TimerHandle | None = None
        self._stall: asyncio.TimerHandle | None = None
        self._untaken_bytes = 0
        self._read_on: Callable[[], None]

    # --- connections ----------------------------------------------------------------------------

    def connection_made(  # type: ignore[override]  # uvicorn's, which knows its transports
        self, transport: asyncio.Transport
    ) -> None:
        """A client has connected."""
        if len(self.connections) >= self._bounds.max_connections and not self._crowd.make_room():
            self.transport = transport
            transport.abort()
            return
        joined = JoinedWrites(transport, on_close=self._watch_unsent)
        self._flush = joined.flush
        self._read_on = transport.resume_reading
        joined.resume_reading = self._resume_reading
        super().connection_made(cast("asyncio.Transport", joined))
        self._crowd.has_moved(self)
        self._await_request()

    def connection_lost(self, exc: Exception | None) -> None:
        """The connection is gone, by whose doing ever."""
        super().connection_lost(exc)
        self._crowd.is_gone(self)
        for timer in (self._deadline, self._stall, self.timeout_keep_alive_task):
            if timer is not None:
                timer.cancel()

    def eof_received(self) -> None:
        """The client sends no more; the loop closes once everything has been written."""
        self._watch_unsent()

    def abort(self) -> None:
        """Ends the connection at once, unsent bytes included."""
        self.transport.abort()

    def give_way(self) -> None:
        """Ends the connection at once, and counts no more among those that there are."""
        self.abort()
        self.connections.discard(self)

    @property
    def owes_nothing(self) -> bool:
        """Whether all that was asked, to its end, has been answered and sent."""
        return self._is_answered and not self.transport.get_write_buffer_size()

    @property
    def _is_answered(self) -> bool:
        cycle: RequestResponseCycle | None = self.cycle  # None until the first request
        return cycle is None or cycle.response_complete

    # --- requests -------------------------------------------------------------------------------

    def data_received(self, data: bytes) -> None:
        """Bytes of a request, or of several."""
        expects_head = self._in_head or not self._in_request
        room = self._max_head_bytes - self._head_bytes
        if expects_head and len(data) > room and data.find(b"\r\n\r\n", 0, room) < 0:
            self._refuse_head()
            return
        self._has_answered_at_once = False
        super().data_received(data)
        if self._in_request:
            self._expect_rest(data)
            return
        self._head_bytes = 0
        if self.timeout_keep_alive_task is None and self._is_answered:
            # Line ends before a request begin none, and would stop the clock for good.
            self._await_request()

    def _await_request(self) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(
            self._bounds.idle_s, self.timeout_keep_alive_handler
        )

    def timeout_keep_alive_handler(self) -> None:
        """Nothing was asked for a while. A client that was frozen with us has its time anew."""
        if self._was_frozen(self.timeout_keep_alive_task):
            self._await_request()
        else:
            super().timeout_keep_alive_handler()

    def _was_frozen(self, rung: asyncio.TimerHandle | None) -> bool:
        return rung is not None and self.loop.time() - rung.when() > _FROZEN_S

    def _expect_rest(self, data: bytes) -> None:
        """Bounds what is not whole yet. What a body holds is dropped; trailers are kept."""
        if self._deadline is None and not self.transport.is_closing():
            self._deadline = self.loop.call_later(self._bounds.request_s, self._request_is_late)
        self._head_bytes = 0 if self._has_body else self._head_bytes + len(data)
        self._has_body = False
        if not self._in_head and self._head_bytes > self._max_head_bytes:
            self.transport.close()

    def on_message_begin(self) -> None:
        """A request's first byte."""
        self._in_head = self._in_request = True
        self._crowd.has_moved(self)
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """A request's head is whole."""
        if len(self.pipeline) >= self._bounds.pipelined:
            raise OverflowError("too many requests at once")  # answered with 400, and closed
        self._in_head = False
        self._has_body = True  # what follows is counted anew
        if not self._answer_now():
            super().on_headers_complete()

    def _answer_now(self) -> bool:
        """Answers the request, whose head is whole, if nothing has to be waited for; says whether.

        One for each time that bytes come in: the rest of a flood takes its turn with others.
        """
        if (
            self._has_answered_at_once
            or not self._is_answered
            or self.flow.write_paused
            or self.parser.get_method() != b"GET"
            or self.parser.get_http_version() != "1.1"
            or not self.parser.should_keep_alive()
            or self.parser.should_upgrade()
            or any(name in _UNUSUAL for name, _ in self.headers)
        ):
            return False
        reply = self._answer_at_once(self.url, self.headers)
        if reply is None:
            return False
        self._has_answered_at_once = True
        self._write(reply)
        return True

    def _write(self, reply: Reply) -> None:
        self.transport.write(reply.head)
        self.transport.write(reply.body)

    def on_body(self, body: bytes) -> None:
        """A part of a request's body, which no route reads."""
        self._has_body = True
        super().on_body(body)

    def on_message_complete(self) -> None:
        """A request is whole."""
        self._in_request = False
        self._crowd.has_moved(self)
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        if not self._is_answered:
            super().on_message_complete()

    def _resume_reading(self) -> None:
        """Reads on where reading was paused, but not before all that was asked is answered.

        uvicorn reads on after each answer, and each time thousands of small requests may come in
        at once: the queue of a client that pipelines would grow without end.
        """
        if self.pipeline:
            self.flow.read_paused = True
        else:
            self._read_on()

    def _refuse_head(self) -> None:
        if self._is_answered:
            self._write(_TOO_LARGE)
        self.transport.close()

    def _request_is_late(self) -> None:
        rung, self._deadline = self._deadline, None
        if self._was_frozen(rung) or (self.pipeline and not self._is_answered):
            # We are the slow ones: a request is read no further while another is answered.
            self._deadline = self.loop.call_later(self._bounds.request_s, self._request_is_late)
            return
        self.transport.close()

    def on_response_complete(self) -> None:
        """A response is whole; a reply to HEAD has had no body to take its head along."""
        self._flush()
        super().on_response_complete()

    # --- responses ------------------------------------------------------------------------------

    def pause_writing(self) -> None:
        """The client takes the response more slowly than we make it."""
        super().pause_writing()
        self._watch_unsent()

    def resume_writing(self) -> None:
        """The client has caught up, but for the little that lets us go on writing."""
        if not self.transport.is_closing():
            self._forget_stall()
        super().resume_writing()

    def _watch_unsent(self) -> None:
        """From now on the client must take some of what is unsent, or is cut.

        A closed connection is watched too: it stays, with its descriptor and its part of a
        response, until the last byte is taken.
        """
        self._forget_stall()
        if self.transport.get_write_buffer_size():
            self._untaken_bytes = self._count_untaken()
            self._stall = self.loop.call_later(self._bounds.idle_s, self._check_reader)

    def _forget_stall(self) -> None:
        if self._stall is not None:
            self._stall.cancel()
            self._stall = None

    def _check_reader(self) -> None:
        # Slow is fine, and gets all it was promised; standing still holds old secrets in memory.
        if self._count_untaken() >= self._untaken_bytes and not self._was_frozen(self._stall):
            self.abort()
        else:
            self._watch_unsent()

    def _count_untaken(self) -> int:
        """Bytes that the client has not taken, those that wait in the kernel included.

        The kernel asks for more only once a third of its buffer is free, and that may be megabytes:
        by our own buffer alone, whoever reads a few kilobytes a second would seem to stand still.
        """
        return self.transport.get_write_buffer_size() + _kernel_queue_bytes(
            self.transport.get_extra_info("socket")
        )


def _kernel_queue_bytes(connected: socket.socket) -> int:
    """Bytes in the send queue of ``connected``; 0 where the system does not tell.

    Source: https://man7.org/linux/man-pages/man7/tcp.7.html, SIOCOUTQ (TIOCOUTQ is its number)
    """
    count = array("i", [0])
    with contextlib.suppress(OSError, ValueError):  # macOS does not, nor does a closed socket
        fcntl.ioctl(connected.fileno(), termios.TIOCOUTQ, count)
    return count[0]


def connection_factory(
    config: Config, state: ServerState, bounds: Bounds, answer_at_once: AnswerAtOnce
) -> Any:
    """What ``loop.create_server`` calls for each client."""
    crowd = Crowd()
    return lambda: BoundedConnection(config, state, bounds, crowd, answer_at_once)
