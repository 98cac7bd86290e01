"""The routes: what each request is answered with."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Final, TypeAlias
from urllib.parse import parse_qsl, unquote_to_bytes

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.routing import Route

from clef_agent import errors
from clef_agent.decrypt.secrets import Entry, NamesCollide, Secrets
from clef_agent.provider import Opened, SecretsProvider
from clef_agent.server.replies import (
    NO_STORE,
    Header,
    Reply,
    json_reply,
    raw_json_reply,
    send_reply,
)
from clef_agent.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.types import ASGIApp, Receive, Scope, Send

RenderMetrics: TypeAlias = Callable[[], bytes]
_Handler: TypeAlias = "Callable[[Request], Awaitable[Reply]]"

MIN_WAIT_S: Final = 1
MAX_WAIT_S: Final = 60
_FORMATS: Final = ("nested", "flat")


class BadRequest(ValueError):
    """A query parameter is out of its bounds; the text says which."""


class _Replying:
    """An ASGI application from a function that returns a :class:`Reply` or raises."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        from starlette.requests import Request

        try:
            reply = await self._handler(Request(scope, receive))
        except _EXPECTED as exc:
            reply = reply_to(exc)
        await send_reply(reply, send)


class SecretsEndpoint:
    """``GET /v1/secrets``: the payload as packed, or flat; conditional, and waiting for a change.

    Plain ASGI, because it is the one route whose speed matters.
    """

    def __init__(self, provider: SecretsProvider) -> None:
        self._provider = provider

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            reply = await self._reply(scope, receive)
        except _EXPECTED as exc:
            reply = reply_to(exc)
        await send_reply(reply, send)

    async def _reply(self, scope: Scope, receive: Receive) -> Reply:
        flat, wait_s = False, 0
        if scope["query_string"]:
            flat, wait_s = _parse_query(scope["query_string"])
        known = _if_none_match(scope["headers"])
        opened = await self._provider.open()
        if known is None:
            return _render(opened, flat=flat)
        if wait_s and _matches(known, _etag(opened, flat=flat)):
            digest = opened.digest
            # Not held while waiting: in just-in-time mode it is this request's own plaintext.
            del opened
            await _unless_disconnected(self._provider.wait_for_change(digest, wait_s), receive)
            opened = await self._provider.open()
        etag = _etag(opened, flat=flat)
        if _matches(known, etag):
            return Reply(304, [(b"etag", etag), NO_STORE])
        return _render(opened, flat=flat)


def create_routes(
    provider: SecretsProvider, secrets: SecretsEndpoint, render_metrics: RenderMetrics
) -> ASGIApp:
    """Every route behind the guards, with JSON for whatever has no route."""

    async def health(_: Request) -> Reply:
        status = provider.status()
        content = {
            "status": "ok",
            "mode": status.mode,
            "revision": status.revision,
            "lastRefreshAt": status.last_success_ms,
            "expired": status.why_not in (errors.CacheExpired, errors.ArtifactExpired),
        }
        return json_reply(200, content)

    async def ready(_: Request) -> Reply:
        why_not = provider.status().why_not
        if why_not is None:
            return json_reply(200, {"ready": True})
        return json_reply(503, {"ready": False, "reason": why_not.reason})

    async def secret(request: Request) -> Reply:
        name = _decode(request.path_params["key"])
        opened = await provider.open()
        return _render_value(opened.secrets, opened.secrets.find(name) if name else None)

    async def namespaced_secret(request: Request) -> Reply:
        namespace = _decode(request.path_params["namespace"])
        key = _decode(request.path_params["key"])
        opened = await provider.open()
        found = opened.secrets.find_in(namespace, key) if namespace and key else None
        return _render_value(opened.secrets, found)

    async def keys(_: Request) -> Reply:
        opened = await provider.open()
        return json_reply(200, opened.secrets.names())

    async def refresh(_: Request) -> Reply:
        refreshed = await provider.refresh_on_demand()
        content = {"revision": refreshed.revision, "changed": refreshed.changed}
        return json_reply(200, content)

    async def metrics(_: Request) -> Reply:
        body = render_metrics()
        length = (b"content-length", b"%d" % len(body))
        return Reply(200, [(b"content-type", CONTENT_TYPE.encode()), NO_STORE, length], body)

    app = Starlette(
        routes=[
            Route("/v1/secrets", secrets, methods=["GET"]),
            Route("/v1/secrets/{key}", _Replying(secret), methods=["GET"]),
            Route("/v1/secrets/{namespace}/{key}", _Replying(namespaced_secret), methods=["GET"]),
            Route("/v1/keys", _Replying(keys), methods=["GET"]),
            Route("/v1/health", _Replying(health), methods=["GET"]),
            Route("/v1/ready", _Replying(ready), methods=["GET"]),
            Route("/v1/refresh", _Replying(refresh), methods=["POST"]),
            Route("/v1/metrics", _Replying(metrics), methods=["GET"]),
        ],
        exception_handlers={HTTPException: _no_route},  # type: ignore[dict-item]  # Starlette asks for handlers of Exception
    )
    app.router.redirect_slashes = False
    return app


# --- errors as replies --------------------------------------------------------------------------

_EXPECTED: Final = (errors.Unavailable, errors.RefreshTooSoon, NamesCollide, BadRequest)


def reply_to(error: Exception) -> Reply:
    """What a client is told of an error that is not its own connection's."""
    match error:
        case errors.Unavailable():
            content = {"error": str(error), "reason": error.reason}
            if error.detail:
                content["detail"] = error.detail
            return json_reply(503, content, headers=_retry_after(error.retry_after_s))
        case errors.RefreshTooSoon():
            content = {"error": str(error), "reason": error.reason}
            return json_reply(429, content, headers=_retry_after(error.retry_after_s))
        case NamesCollide():
            return json_reply(409, {"error": str(error), "candidates": error.candidates})
        case BadRequest():
            return json_reply(400, {"error": str(error)})
    raise TypeError("not an error that clients are told of") from error


async def _no_route(_: Request, exc: HTTPException) -> ASGIApp:
    words = {404: "Not found", 405: "Method not allowed"}.get(exc.status_code, "Bad request")
    allow = (exc.headers or {}).get("Allow", "")
    headers: tuple[Header, ...] = ()
    if allow:
        headers = ((b"allow", ", ".join(sorted(allow.split(", "))).encode()),)
    reply = json_reply(exc.status_code, {"error": words}, headers=headers)

    async def respond(_: Scope, __: Receive, send: Send) -> None:
        await send_reply(reply, send)

    return respond


def _retry_after(seconds: float | None) -> tuple[Header, ...]:
    return () if seconds is None else ((b"retry-after", b"%d" % math.ceil(max(seconds, 0))),)


# --- secrets as replies -------------------------------------------------------------------------


def _render(opened: Opened, *, flat: bool) -> Reply:
    body = opened.secrets.flat_json() if flat else opened.secrets.json
    return raw_json_reply(200, body, headers=((b"etag", _etag(opened, flat=flat)),))


def _render_value(secrets: Secrets, entry: Entry | None) -> Reply:
    if entry is None:
        return json_reply(404, {"error": "Not found"})
    return raw_json_reply(200, b'{"value":' + secrets.value_json(entry) + b"}")


def _etag(opened: Opened, *, flat: bool) -> bytes:
    """A hash of the artifact's bytes and the format; nothing of the plaintext."""
    return b'"%s%s"' % (opened.digest[:40].encode(), b"-flat" if flat else b"")


def _if_none_match(headers: list[Header]) -> bytes | None:
    values = [value for name, value in headers if name == b"if-none-match"]
    return b",".join(values) if values else None


def _matches(if_none_match: bytes, etag: bytes) -> bool:
    """Weak comparison, RFC 9110 section 13.1.2."""
    tags = [tag.strip().removeprefix(b"W/") for tag in if_none_match.split(b",")]
    return etag in tags or b"*" in tags


# --- requests -----------------------------------------------------------------------------------


def _parse_query(query: bytes) -> tuple[bool, int]:
    """``format`` and ``wait`` of a query; others are ignored."""
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


def _decode(segment: str) -> str | None:
    """A path segment, percent-decoded once; None when that is no UTF-8, and so no key's name."""
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        return None


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
