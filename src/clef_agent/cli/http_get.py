"""One GET over one connection, for commands that live for a tenth of a second.

httptools parses the answer: it is loaded by the agent anyway, in a tenth of ``http.client``'s time.
"""

from __future__ import annotations

import time
from typing import Final

import httptools

from clef_agent.client import Endpoint

_CHUNK_BYTES: Final = 256 * 1024
#: Of the reads that bring the head, to the end of the last one.
_MAX_HEAD_BYTES: Final = 320 * 1024
_CONTINUE, _SWITCHING, _OK = 100, 101, 200


class NotHttp(Exception):
    """What came is no answer in HTTP, or only a part of one."""


class TooLong(Exception):
    """The answer has more bytes than it may have."""


class Response:
    """An answer; the names of ``headers`` are in lower case."""

    def __init__(self) -> None:
        self.status = 0
        self.headers: dict[str, str] = {}
        self.body = b""


def get(
    endpoint: Endpoint,
    path: str,
    headers: dict[str, bytes],
    *,
    timeout_s: float,
    max_bytes: int,
) -> Response:
    """The answer to ``GET path`` at ``endpoint``, whatever its status, within ``timeout_s``.

    Raises:
        OSError: nobody listens, or not all of the answer came in time.
        NotHttp, TooLong: something else came.
    """
    deadline = time.monotonic() + timeout_s
    request = _request(endpoint, path, headers)
    reader = _Reader(max_bytes)
    with endpoint.open(timeout_s) as connection:
        connection.sendall(request)
        while not reader.is_complete:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                raise TimeoutError
            connection.settimeout(left_s)
            reader.take(connection.recv(_CHUNK_BYTES))
    return reader.response


def _request(endpoint: Endpoint, path: str, headers: dict[str, bytes]) -> bytes:
    lines = {"Host": endpoint.host_header.encode("ascii"), "Connection": b"close", **headers}
    target = (endpoint.base_path + path).encode("utf-8")
    if any(byte in value for value in (target, *lines.values()) for byte in b"\r\n\0"):
        raise ValueError("a line break or NUL would end the line that it stands in")
    head = [b"GET " + target + b" HTTP/1.1"]
    head += [name.encode("ascii") + b": " + value for name, value in lines.items()]
    return b"\r\n".join(head) + b"\r\n\r\n"


class _Reader:
    """Collects an answer from its bytes; its callbacks are the parser's."""

    def __init__(self, max_bytes: int) -> None:
        self.response = Response()
        self.is_complete = False
        self._parser = httptools.HttpResponseParser(self)
        self._body: list[bytes] = []
        self._left_bytes = max_bytes
        self._head_bytes = 0
        self._is_headed = False

    def take(self, data: bytes) -> None:
        """Takes what came, nothing at the end.

        Raises:
            NotHttp, TooLong
        """
        if not data:
            self._end()
            return
        self._head_bytes += 0 if self._is_headed else len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            raise NotHttp("its answer is not HTTP") from None
        if self._left_bytes < 0:
            raise TooLong
        if self._head_bytes > _MAX_HEAD_BYTES:
            raise NotHttp("its answer has no end of its head")

    def _end(self) -> None:
        framing = self.response.headers.keys() & {"content-length", "transfer-encoding"}
        if not self._is_headed or framing:
            raise NotHttp("it broke off its answer")
        self.on_message_complete()  # an answer that only the connection's end ends

    def on_header(self, name: bytes, value: bytes) -> None:
        self.response.headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        self.response.status = self._parser.get_status_code()
        self._is_headed = True

    def on_body(self, body: bytes) -> None:
        self._left_bytes -= len(body)
        if self._left_bytes >= 0:
            self._body.append(body)

    def on_message_complete(self) -> None:
        if _CONTINUE <= self.response.status < _OK and self.response.status != _SWITCHING:
            self.response, self._is_headed = Response(), False  # word of one that is to come
            return
        self.response.body = b"".join(self._body)
        self.is_complete = True
