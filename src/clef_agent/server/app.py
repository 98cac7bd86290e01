"""The routes: what each request is answered with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias
from urllib.parse import unquote_to_bytes

from clef_agent import errors
from clef_agent.decrypt.places import Entry
from clef_agent.decrypt.secrets import Secrets, joined
from clef_agent.provider import SecretsProvider
from clef_agent.server.large import beside_loop
from clef_agent.server.refusals import retry_after
from clef_agent.server.replies import Reply, json_reply, raw_json_reply
from clef_agent.server.routes import Request, Route
from clef_agent.server.secrets_endpoint import SecretsEndpoint
from clef_agent.telemetry.metrics import CONTENT_TYPE

RenderMetrics: TypeAlias = Callable[[], bytes]


def create_routes(
    provider: SecretsProvider, secrets: SecretsEndpoint, render_metrics: RenderMetrics
) -> tuple[Route, ...]:
    """Every route that there is."""

    async def all_secrets(request: Request) -> Reply:
        return await secrets.reply(request.scope, request.receive)

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
        name = _decode(*request.values)
        opened = await provider.open()
        return _render_value(opened.secrets, opened.secrets.find(name) if name else None)

    async def namespaced_secret(request: Request) -> Reply:
        namespace, key = map(_decode, request.values)
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
        return Reply(200, ((b"content-type", CONTENT_TYPE.encode()), length), body)

    return (
        Route("GET", "/v1/secrets", all_secrets),
        Route("GET", "/v1/secrets/{key}", secret),
        Route("GET", "/v1/secrets/{namespace}/{key}", namespaced_secret),
        Route("GET", "/v1/keys", keys),
        Route("GET", "/v1/health", health, needs_token=False),
        Route("GET", "/v1/ready", ready, needs_token=False),
        Route("POST", "/v1/refresh", refresh),
        Route("GET", "/v1/metrics", metrics, needs_token=False),
    )


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
