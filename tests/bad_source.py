"""An http source that can be made to do what no web server should."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

#: Writes an answer to a socket; gets the artifact that a good source would send.
Fault = Callable[[socket.socket, bytes], None]

_DRIP_S = 0.05


@dataclass
class BadSource:
    """What is answered from now on: ``body``, or what ``fault`` makes of it."""

    body: bytes
    fault: Fault | None = None
    port: int = 0
    asked: int = 0
    _connections: list[socket.socket] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/artifact.json"

    def converse(self, connection: socket.socket) -> None:
        self._connections.append(connection)
        with contextlib.suppress(OSError), connection:
            request = b""
            while b"\r\n\r\n" not in request:
                request += (received := connection.recv(65_536))
                if not received:
                    return
            self.asked += 1
            (self.fault or good)(connection, self.body)

    def hang_up(self) -> None:
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def serving(source: BadSource, port: int = 0) -> Iterator[BadSource]:
    """``source``, listening on ``port``, or on one of the system's choice."""
    with socket.create_server(("127.0.0.1", port)) as listening:
        source.port = listening.getsockname()[1]

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    connection, _ = listening.accept()
                    threading.Thread(
                        target=source.converse, args=(connection,), daemon=True
                    ).start()

        thread = threading.Thread(target=accept, daemon=True)
        thread.start()
        try:
            yield source
        finally:
            with contextlib.suppress(OSError):
                listening.shutdown(socket.SHUT_RDWR)
            thread.join(10)
            source.hang_up()


# --- answers ----------------------------------------------------------------------------------


def head(length: int | None, *lines: str, status: str = "200 OK") -> bytes:
    lengths = () if length is None else (f"Content-Length: {length}",)
    return "\r\n".join(
        (f"HTTP/1.1 {status}", "Connection: close", *lengths, *lines, "", "")
    ).encode()


def says(data: bytes) -> Fault:
    return lambda connection, _: connection.sendall(data)


def good(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body)) + body)


def _wait_for_hang_up(connection: socket.socket) -> None:
    while connection.recv(65_536):
        pass


def stalls(connection: socket.socket, _: bytes) -> None:
    _wait_for_hang_up(connection)


def stalls_in_the_body(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body)) + body[:-1])
    _wait_for_hang_up(connection)


def promises_more_and_stalls(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body) + 1) + body)
    _wait_for_hang_up(connection)


def _drip(connection: socket.socket, piece: bytes) -> None:
    while True:
        connection.sendall(piece)
        time.sleep(_DRIP_S)


def drips_the_head(connection: socket.socket, _: bytes) -> None:
    connection.sendall(b"HTTP/1.1 200 OK\r\n")
    _drip(connection, b"X: y\r\n")


def drips_the_body(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(1_000_000) + body)
    _drip(connection, b" ")


def drips_early_hints(connection: socket.socket, _: bytes) -> None:
    _drip(connection, b"HTTP/1.1 103 Early Hints\r\n\r\n")


def truncates(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body)) + body[: len(body) // 2])


def truncates_chunks(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(None, "Transfer-Encoding: chunked") + b"%x\r\n" % len(body) + body)


def cuts_without_a_length(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(None) + body[:-2])  # the last byte is a line end


def promises_less(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body) // 2) + body)


def promises_more(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body) + 1) + body)


def promises_two_lengths(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body), "Content-Length: 10") + body)


def promises_a_gigabyte(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(2**30) + body)


def _reset(connection: socket.socket) -> None:
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def resets(connection: socket.socket, _: bytes) -> None:
    _reset(connection)


def resets_in_the_body(connection: socket.socket, body: bytes) -> None:
    connection.sendall(head(len(body)) + body[:-1])
    _reset(connection)


def hangs_up(_: socket.socket, __: bytes) -> None:
    pass


def redirects_in_circles(connection: socket.socket, _: bytes) -> None:
    connection.sendall(head(0, "Location: /artifact.json", status="302 Found"))


def redirects_elsewhere(connection: socket.socket, _: bytes) -> None:
    connection.sendall(head(0, "Location: http://127.0.0.2:9/", status="307 Temporary Redirect"))


def repeats(beginning: bytes, piece: bytes) -> Fault:
    """``beginning``, and then ``piece`` without end."""

    def flood(connection: socket.socket, _: bytes) -> None:
        connection.sendall(beginning)
        many = piece * max(65_536 // len(piece), 1)
        while True:
            connection.sendall(many)

    return flood


floods_the_body = repeats(head(None), b"x")
floods_tiny_chunks = repeats(head(None, "Transfer-Encoding: chunked"), b"1\r\nx\r\n")
floods_headers = repeats(b"HTTP/1.1 200 OK\r\n", b"X: y\r\n")
floods_one_header = repeats(b"HTTP/1.1 200 OK\r\nX: ", b"y")
floods_early_hints = repeats(b"", b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n")
floods_line_ends = repeats(b"", b"\r\n")
