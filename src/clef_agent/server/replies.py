"""Replies as data: a status, headers and bytes, made once and sent as often as needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cached_property
from http import HTTPStatus
from typing import Final, TypeAlias

Header: TypeAlias = tuple[bytes, bytes]

NO_STORE: Final[Header] = (b"cache-control", b"no-store")
JSON: Final[Header] = (b"content-type", b"application/json")


class Reply:
    """One whole response, which nobody may store; ``headers`` as given need not say so.

    ``body`` may be a view of a buffer that is zeroed once nobody holds it: the transport holds it
    until it has written it.
    """

    def __init__(
        self, status: int, headers: Sequence[Header], body: bytes | memoryview = b""
    ) -> None:
        self.status = status
        self.headers = [*headers, NO_STORE]
        self.body = body

    @cached_property
    def head(self) -> bytes:
        """Status line and headers as they are sent on a connection that stays open."""
        phrase = HTTPStatus(self.status).phrase.encode()
        lines = [b"%s: %s\r\n" % header for header in self.headers]
        return b"".join((b"HTTP/1.1 %d %s\r\n" % (self.status, phrase), *lines, b"\r\n"))


def json_reply(
    status: int,
    content: object,
    *,
    headers: Sequence[Header] = (),
) -> Reply:
    """``content`` as JSON."""
    return raw_json_reply(
        status,
        json.dumps(content, ensure_ascii=False, separators=(",", ":")).encode(),
        headers=headers,
    )


def raw_json_reply(
    status: int, body: bytes | memoryview, *, headers: Sequence[Header] = ()
) -> Reply:
    """``body``, which is JSON already."""
    length = (b"content-length", b"%d" % len(body))
    return Reply(status, (JSON, length, *headers), body)
