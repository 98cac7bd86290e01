"""The routes: what each request is answered with."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias
from urllib.parse import unquote_to_bytes

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.routing import Route

from clef_agent import errors
from clef_agent.decrypt.places import Entry
from clef_agent.decrypt.secrets import Secrets, joined
from clef_agent.provider import SecretsProvider
from clef_agent.server.large import beside_loop
from clef_agent.server.refusals import refusal, retry_after
from clef_agent.server.replies import (
    NO_STORE,
    Header,
    Reply,
    json_reply,
    raw_json_reply,
    send_reply,
)
from clef_agent.server.secrets_endpoint import SecretsEndpoint
from clef_agent.telemetry.metrics import CONTENT_TYPE

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

RenderMetrics: TypeAlias = Callable[[], bytes]
_Handler: TypeAlias = Callable[[Request], Awaitable[Reply]]


class _Replying:
    """An ASGI application from a function that returns a :class:`Reply` or raises."""

    def __init__(self, handler: _Handler) -> None:
        self._handler = handler

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            reply = await self._handler(Request(scope, receive))
        except Exception as exc:  # noqa: BLE001  # a fault of ours is answered in JSON too
            reply = refusal(exc)
        await send_reply(reply, send)


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
        content = {"ready": False, "reason": why_not.reason}
        return json_reply(503, content, headers=retry_after(None))

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
        secrets = (await provider.open()).secrets
        return await beside_loop(secrets, lambda: json_reply(200, secrets.names()))

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


def _render_value(secrets: Secrets, entry: Entry | None) -> Reply:
    if entry is None:
        return json_reply(404, {"error": "Not found"})
    body = joined(b'{"value":', secrets.value_json(entry), b"}")
    return raw_json_reply(200, memoryview(body))


def _decode(segment: str) -> str | None:
    """A path segment, percent-decoded once; None when that is no UTF-8, and so no key's name."""
    try:
        return unquote_to_bytes(segment).decode("utf-8")
    except UnicodeDecodeError:
        return None
