"""``GET /v1/secrets``: the payload as packed, or flat; conditional, and waiting for a change."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Awaitable
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from clef_agent.decrypt import Secrets
from clef_agent.provider import Opened, SecretsProvider
from clef_agent.server.large import beside_loop
from clef_agent.server.refusals import BadRequest
from clef_agent.server.replies import Header, Reply, raw_json_reply

if TYPE_CHECKING:
    from clef_agent.server.asgi import Receive, Scope

MIN_WAIT_S: Final = 1
MAX_WAIT_S: Final = 60
_FORMATS: Final = ("nested", "flat")


class SecretsEndpoint:
    """The one route whose speed matters: the reply is made once per revision."""

    def __init__(self, provider: SecretsProvider) -> None:
        self._provider = provider
        self._made: Reply | None = None
        self._made_of: weakref.ref[Secrets] | None = None

    async def reply(self, scope: Scope, receive: Receive) -> Reply:
        """The reply to one request that has passed the guards.

        Raises:
            Unavailable: there is nothing to serve.
            NamesCollide: two secrets would have one flat name.
            BadRequest: a parameter is out of its bounds.
        """
        flat, wait_s = False, 0
        if scope["query_string"]:
            flat, wait_s = _parse_query(scope["query_string"])
        known = _if_none_match(scope["headers"])
        opened = await self._provider.open()
        if known is None:
            return await _flat(opened) if flat else self._nested(opened)
        if wait_s and _matches(known, _etag(opened, flat=flat)):
            digest = opened.digest
            # Not held while waiting: in just-in-time mode it is this request's own plaintext.
            del opened
            await _unless_disconnected(self._provider.wait_for_change(digest, wait_s), receive)
            opened = await self._provider.open()
        etag = _etag(opened, flat=flat)
        if _matches(known, etag):
            return Reply(304, ((b"etag", etag),))
        return await _flat(opened) if flat else self._nested(opened)

    def reply_at_once(self, headers: list[Header]) -> Reply | None:
        """What :meth:`reply` gives to a request without a query, where nothing is waited for and
        nothing in ``headers`` makes it conditional; else None.
        """
        if _if_none_match(headers) is not None:
            return None
        try:
            opened = self._provider.at_hand()
            return None if opened is None else self._nested(opened)
        except Exception:  # noqa: BLE001  # the usual way meets it again, and answers in JSON
            return None

    def _nested(self, opened: Opened) -> Reply:
        """The payload as packed. The reply of the last revision is kept for as long as its
        secrets are: not a moment longer, or a wipe would leave the plaintext here.
        """
        secrets = opened.secrets
        if self._made is not None and self._made_of is not None and self._made_of() is secrets:
            return self._made
        reply = raw_json_reply(200, secrets.json, headers=((b"etag", _etag(opened, flat=False)),))
        self._made, self._made_of = reply, weakref.ref(secrets, self._forget)
        return reply

    def _forget(self, _: weakref.ref[Secrets]) -> None:
        # A reference that has been replaced tells nobody: what goes is what the reply was made of.
        self._made = self._made_of = None


async def _flat(opened: Opened) -> Reply:
    body = await beside_loop(opened.secrets, opened.secrets.flat_json)
    return raw_json_reply(200, body, headers=((b"etag", _etag(opened, flat=True)),))


def _etag(opened: Opened, *, flat: bool) -> bytes:
    """A hash of the artifact's bytes and the format; nothing of the plaintext."""
    return b'"%s%s"' % (opened.digest[:40].encode(), b"-flat" if flat else b"")


def _if_none_match(headers: list[Header]) -> bytes | None:
    known: bytes | None = None
    for name, value in headers:
        if name == b"if-none-match":
            known = value if known is None else known + b"," + value
    return known


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    """Weak comparison, RFC 9110 section 13.1.2."""
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return etag in tags or b"*" in tags


def _parse_query(query: bytes) -> tuple[bool, int]:
    """Whether the flat format is asked for, and how many seconds to wait; 0 means not at all.

    Raises:
        BadRequest: an unknown format, or a wait out of bounds.
    """
    parameters = dict(parse_qsl(query.decode("latin-1"), keep_blank_values=True))
    kind = parameters.get("format", "nested")
    if kind not in _FORMATS:
        raise BadRequest(f"format must be one of {', '.join(_FORMATS)}")
    wait = parameters.get("wait")
    if wait is None:
        return kind == "flat", 0
    seconds = int(wait) if wait.isascii() and wait.isdecimal() and len(wait) <= len("60") else 0
    if not MIN_WAIT_S <= seconds <= MAX_WAIT_S:
        raise BadRequest(f"wait must be a whole number of seconds, {MIN_WAIT_S} to {MAX_WAIT_S}")
    return kind == "flat", seconds


async def _unless_disconnected(waiting: Awaitable[None], receive: Receive) -> None:
    """Waits, but not for a client that has gone: its place is one of few."""

    async def disconnected() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass

    waiter, gone = asyncio.ensure_future(waiting), asyncio.ensure_future(disconnected())
    try:
        await asyncio.wait((waiter, gone), return_when=asyncio.FIRST_COMPLETED)
        if waiter.done():
            await waiter
    finally:
        for task in (waiter, gone):
            task.cancel()
