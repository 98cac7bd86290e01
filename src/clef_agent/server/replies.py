"""Replies as data: a status, headers and bytes, made once and sent as often as needed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, TypeAlias

if TYPE_CHECKING:
    from starlette.types import Send

Header: TypeAlias = tuple[bytes, bytes]

NO_STORE: Final[Header] = (b"cache-control", b"no-store")
JSON: Final[Header] = (b"content-type", b"application/json")


@dataclass(frozen=True, slots=True)
class Reply:
    """One whole response. ``body`` may be a view of a buffer that is zeroed once nobody holds it:
    the transport holds it until it has written it.
    """

    status: int
    headers: list[Header]
    body: bytes | memoryview = b""


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
    return Reply(status, [JSON, NO_STORE, length, *headers], body)


async def send_reply(reply: Reply, send: Send) -> None:
    """Sends ``reply``; for a HEAD request the server leaves the body out."""
    await send({"type": "http.response.start", "status": reply.status, "headers": reply.headers})
    await send({"type": "http.response.body", "body": reply.body})
