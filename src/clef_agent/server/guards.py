"""The one layer in front of every route: Host, bearer token, no-store, counting.

Pure ASGI. It also sets the path to the one that stood in the request line: routes match before
percent-decoding, so that ``%2F`` can be a part of a key.
"""

from __future__ import annotations

import asyncio
import hmac
import re
from typing import TYPE_CHECKING, Final

from clef_agent.server.replies import NO_STORE, Header, Reply, json_reply

if TYPE_CHECKING:
    from collections import Counter

    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from clef_agent.server.secrets_endpoint import SecretsEndpoint

#: Routes whose path has no variable part; what metrics call a request by.
_FIXED_ROUTES: Final = frozenset(
    ("/v1/health", "/v1/ready", "/v1/secrets", "/v1/keys", "/v1/refresh", "/v1/metrics")
)
#: The route whose speed matters.
_SECRETS: Final = "/v1/secrets"
_SECRETS_TARGET: Final = _SECRETS.encode()
_READS: Final = frozenset(("GET", "HEAD"))
#: As the router matches them, to the letter: its `$` also stands before a line's end.
_READ_WITH_TOKEN: Final = re.compile(r"/v1/(?:keys|secrets(?:/[^/]+){0,2})$")
_REFRESH: Final = re.compile(r"/v1/refresh$")
_BEARER: Final = b"bearer "

_FORBIDDEN: Final = json_reply(403, {"error": "Forbidden: invalid Host header"})
_UNAUTHORIZED: Final = json_reply(
    401, {"error": "Unauthorized"}, headers=((b"www-authenticate", b"Bearer"),)
)


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
    """Lets a request through to ``routes``, or answers it.

    The plain ``GET /v1/secrets`` goes straight to ``secrets``: the detour through the router costs
    a fifth of the throughput of the one route that matters. ``hosts`` is None on a Unix socket,
    which no browser reaches.
    """

    def __init__(
        self,
        routes: ASGIApp,
        secrets: SecretsEndpoint,
        *,
        token: BearerToken,
        hosts: frozenset[bytes] | None,
        requests: Counter[tuple[str, int]],
    ) -> None:
        self._routes = routes
        self._secrets = secrets
        self._token = token
        self._hosts = hosts
        self._requests = requests

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request."""
        try:
            await self._respond(scope, receive, send)
        except asyncio.CancelledError:
            # The process ends, and has cut the connection: uvicorn would call it a fault of ours.
            return

    async def _respond(self, scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"] = scope["raw_path"].decode("ascii")
        method = scope["method"]
        is_plain = path == _SECRETS and method == "GET"
        needs_token = is_plain or _needs_token(method, path)
        reply = self._refusal(scope["headers"], needs_token=needs_token)
        if reply is None:
            if not is_plain:
                await self._routes(scope, receive, self._counting(send, path))
                return
            reply = await self._secrets.reply(scope, receive)
        self._requests[path if is_plain else _route(path), reply.status] += 1
        # As send_reply does, but without a coroutine more for each request.
        await send(
            {"type": "http.response.start", "status": reply.status, "headers": reply.headers}
        )
        await send({"type": "http.response.body", "body": reply.body})

    def answer_at_once(self, target: bytes, headers: list[Header]) -> Reply | None:
        """The reply to a GET of ``target``, if it is one that nothing has to be waited for: the
        plain ``GET /v1/secrets``, let through, of secrets that lie ready. Else None, and the
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

    def _counting(self, send: Send, path: str) -> Send:
        requests = self._requests

        async def counting(message: Message) -> None:
            if message["type"] == "http.response.start":
                requests[_route(path), message["status"]] += 1
                headers = message["headers"]
                if NO_STORE not in headers:
                    message["headers"] = [*headers, NO_STORE]
            await send(message)

        return counting


def _needs_token(method: str, path: str) -> bool:
    """Whether the route asks for the token. Other methods get their 405, unknown paths their 404,
    from the router: neither is a secret.
    """
    if path == _SECRETS:
        return method in _READS
    if method == "POST":
        return _REFRESH.match(path) is not None
    return method in _READS and _READ_WITH_TOKEN.match(path) is not None


def _route(path: str) -> str:
    if path in _FIXED_ROUTES:
        return path
    return "/v1/secrets/{key}" if path.startswith("/v1/secrets/") else "other"
