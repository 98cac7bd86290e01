"""The one way in to every route: Host, bearer token, counting."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from clef_agent.server.refusals import refusal
from clef_agent.server.replies import Header, Reply, json_reply
from clef_agent.server.routes import Request, Route, Routes

if TYPE_CHECKING:
    from collections import Counter

    from clef_agent.server.asgi import Receive, Scope, Send
    from clef_agent.server.secrets_endpoint import SecretsEndpoint

#: The route whose speed matters.
_SECRETS: Final = "/v1/secrets"
_SECRETS_TARGET: Final = _SECRETS.encode()
_BEARER: Final = b"bearer "

_FORBIDDEN: Final = json_reply(403, {"error": "Forbidden: invalid Host header"})
_UNAUTHORIZED: Final = json_reply(
    401, {"error": "Unauthorized"}, headers=((b"www-authenticate", b"Bearer"),)
)
_NOT_FOUND: Final = json_reply(404, {"error": "Not found"})


class BearerToken:
    """The token that clients must show. It can be replaced while the server runs."""

    def __init__(self, value: str) -> None:
        self.replace(value)

    def replace(self, value: str) -> None:
        """From now on, ``value`` is the token."""
        self._value = value.encode("utf-8")
        self._usual = b"Bearer " + self._value

    def is_shown_by(self, authorization: bytes | None) -> bool:
        """Whether a header's value is ``Bearer TOKEN``, compared in constant time."""
        if authorization is None:
            return False
        if hmac.compare_digest(authorization, self._usual):
            return True
        if authorization[:7].lower() != _BEARER:
            return False
        return hmac.compare_digest(authorization[7:].strip(), self._value)


def allowed_hosts(port: int) -> frozenset[bytes]:
    """The Host headers that mean this listener. Anything else is a page in a browser that got a
    name of its own to point at 127.0.0.1 (DNS rebinding).
    """
    names = (b"127.0.0.1", b"localhost")
    return frozenset((*names, *(name + b":%d" % port for name in names)))


class Guards:
    """The ASGI application: lets a request through to its route, or answers it.

    ``secrets`` are what may be answered at once. ``hosts`` is None on a Unix socket, which no
    browser reaches.
    """

    def __init__(
        self,
        routes: Sequence[Route],
        secrets: SecretsEndpoint,
        *,
        token: BearerToken,
        hosts: frozenset[bytes] | None,
        requests: Counter[tuple[str, int]],
    ) -> None:
        self._routes = Routes(routes)
        self._secrets = secrets
        self._token = token
        self._hosts = hosts
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        found = self._routes.find(scope["raw_path"].decode("latin-1"))
        route, values = found or (None, ())
        try:
            reply = await self._reply(route, Request(scope, receive, values))
            self._requests[route.path if route else "other", reply.status] += 1
            await send(
                {"type": "http.response.start", "status": reply.status, "headers": reply.headers}
            )
            # For a HEAD request the server leaves the body out.
            await send({"type": "http.response.body", "body": reply.body})
        except asyncio.CancelledError:
            # The process ends, and has cut the connection: uvicorn would call it a fault of ours.
            return

    async def _reply(self, route: Route | None, request: Request) -> Reply:
        method = request.scope["method"]
        # Without a token, an unknown path is 404 and another method 405: neither is a secret.
        needs_token = route is not None and route.needs_token and method in route.methods
        refused = self._refusal(request.scope["headers"], needs_token=needs_token)
        if refused is not None:
            return refused
        if route is None:
            return _NOT_FOUND
        if method not in route.methods:
            return route.not_allowed()
        try:
            return await route.handler(request)
        except Exception as exc:  # noqa: BLE001  # a fault of ours is answered in JSON too
            return refusal(exc)

    def answer_at_once(self, target: bytes, headers: list[Header]) -> Reply | None:
        """The reply to a GET of ``target``, if it is one that nothing has to be waited for: the
        plain ``GET /v1/secrets``, let through, of secrets that are at hand. Else None, and the
        request goes its way through :meth:`__call__`, which says what is wrong with it.
        """
        if target != _SECRETS_TARGET or self._refusal(headers, needs_token=True) is not None:
            return None
        reply = self._secrets.reply_at_once(headers)
        if reply is not None:
            self._requests[_SECRETS, reply.status] += 1
        return reply

    def _refusal(self, headers: list[Header], *, needs_token: bool) -> Reply | None:
        """What is said to a request that is not let through."""
        host: bytes | None = None
        authorization: bytes | None = None
        hosts = authorizations = 0
        for name, value in headers:
            if name == b"host":
                host, hosts = value, hosts + 1
            elif name == b"authorization":
                authorization, authorizations = value, authorizations + 1
        if self._hosts is not None and (
            host is None or hosts != 1 or host.lower() not in self._hosts
        ):
            return _FORBIDDEN
        # Two Authorization headers are nobody's: which one counts would be a guess.
        if needs_token and (authorizations != 1 or not self._token.is_shown_by(authorization)):
            return _UNAUTHORIZED
        return None
