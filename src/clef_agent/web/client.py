"""The web, asked through httpx: one whole answer, or an error that gives nothing away.

Importing this module imports httpx: whoever asks does so at the first request, never at start.
Failures are those of a source; a key service's client translates them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import httpx

from clef_agent.clock import Clock, Instant, SystemClock
from clef_agent.config import is_loopback
from clef_agent.errors import (
    SourceMisdirected,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.web.address import Address
from clef_agent.web.exchange import Answer, Request
from clef_agent.web.trouble import network_words

MAX_REDIRECTS = 5

#: Idle connections are worth keeping between the polls of just-in-time mode (5 s). Kept longer,
#: more of them would be found dead: NAT gateways forget them, frozen sandboxes lose them.
_KEPT_S = 15.0
_LIMITS = httpx.Limits(max_connections=8, max_keepalive_connections=4, keepalive_expiry=_KEPT_S)

_OK = 200

#: Where the answer's headers are kept out of httpx's own reach.
_HEADERS_KEPT = "clef_agent.headers"


class WebClient:
    """Follows redirects itself, because who may see what is decided per hop.

    Honours HTTP_PROXY, HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and SSL_CERT_DIR; but the way to
    ``home`` is direct where that is this machine, so that a proxy does not get to read what may
    be sent over plain http to loopback only. Keeps no cookies, and is used by one event loop.
    ``clock`` tells of freezes that the loop's own clock stood still in.
    """

    def __init__(
        self,
        home: Address,
        transport: httpx.AsyncBaseTransport | None = None,
        *,
        clock: Clock | None = None,
    ) -> None:
        """Opens no connection yet.

        Raises:
            SourceUnreachable: the certificates of SSL_CERT_FILE or the proxy variables are
                unusable.
        """
        # They log each URL, query included, and at DEBUG the headers too.
        for name in ("httpx", "httpcore"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # A proxy would read what goes to loopback in the clear.
        is_clear = home.scheme == "http" and is_loopback(home.host)
        direct = {_origin_pattern(home): None} if is_clear else {}
        self._clock = clock or SystemClock()
        self._last_asked: tuple[Instant, float] | None = None
        self._under_way = 0
        try:
            self._open = partial(
                httpx.AsyncClient,
                transport=transport,
                # One set of certificates for all connections, proxied or not.
                verify=httpx.create_ssl_context() if transport is None else True,
                mounts=direct,
                limits=_LIMITS,
                cookies=CookieJar(DefaultCookiePolicy(allowed_domains=())),
                event_hooks={"response": [_keep_headers]},
            )
            self._client = self._open()
        except (OSError, ValueError, ImportError, httpx.InvalidURL) as exc:
            raise SourceUnreachable(
                "the certificates of SSL_CERT_FILE, or the proxy that the environment names,"
                f" cannot be used ({type(exc).__name__})"
            ) from None

    async def ask(self, request: Request, *, max_bytes: int, until: float) -> Answer:
        """The answer to ``request``, or to the last request that redirects made of it.

        The body is read for the status 200, or as far as the request wants it of another one.
        ``until`` is the loop's time at which the caller
        cancels: no phase of an exchange is given longer than a part of what is left.

        Raises:
            SourceUnreachable: no answer, or a part of one.
            SourceTooLarge: a body of over ``max_bytes``.
            SourceMisdirected: a redirect that must not be followed, or too many.
            SourceUnusable: the URL cannot be asked, or the body is compressed.
        """
        await self._drop_frozen_connections()
        self._under_way += 1
        try:
            return await self._follow(request, max_bytes, until)
        finally:
            self._under_way -= 1

    async def _follow(self, request: Request, max_bytes: int, until: float) -> Answer:
        for _ in range(MAX_REDIRECTS + 1):
            answer = await self._exchange(request, max_bytes, until)
            following = request.following(answer)
            if following is None:
                return answer
            request = following
        raise SourceMisdirected(f"{request.address.origin}: over {MAX_REDIRECTS} redirects")

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._client.aclose()

    async def _drop_frozen_connections(self) -> None:
        """Begins with new connections after a freeze in which the loop's clock stood still.

        To httpx its idle ones still look young. Those at the other end are long gone, and what is
        sent to them may be answered by nobody at all.
        """
        asked = self._clock.now(), asyncio.get_running_loop().time()
        last, self._last_asked = self._last_asked, asked
        if last is None or self._under_way:
            return
        frozen_s = last[0].age_s(asked[0]) - (asked[1] - last[1])
        if frozen_s > _KEPT_S:
            await self._client.aclose()
            self._client = self._open()

    async def _exchange(self, request: Request, max_bytes: int, until: float) -> Answer:
        where = request.address.origin
        try:
            async with self._response(request, until) as response:
                headers = response.extensions[_HEADERS_KEPT]
                body = b""
                if response.status_code == _OK and request.method != "HEAD":
                    body = await _body(response, headers, where=where, max_bytes=max_bytes)
                elif request.max_error_bytes:
                    body = await _beginning(response, request.max_error_bytes)
                return Answer(request, response.status_code, headers, body)
        # The causes are dropped: their texts and attributes hold URLs and headers.
        except httpx.InvalidURL:
            raise SourceUnusable(f"{where} is no address that can be asked") from None
        except (httpx.HTTPError, httpx.StreamError, OSError, UnicodeError) as exc:
            raise SourceUnreachable(f"{where}: {_explain(exc)}") from None

    @asynccontextmanager
    async def _response(self, request: Request, until: float) -> AsyncIterator[httpx.Response]:
        """The head of the answer, its body not read yet."""
        try:
            response = await self._send(request, connection := _Connection(), until)
        except httpx.TransportError:
            # The server may have closed an idle connection while we began to use it, or the
            # network forgotten it: that says nothing about the server. A GET can be repeated, and
            # so can all that is posted here: it changes nothing where it arrives.
            if not connection.was_idle:
                raise
            response = await self._send(request, _Connection(), until)
        try:
            yield response
        finally:
            await response.aclose()

    async def _send(
        self, request: Request, connection: _Connection, until: float
    ) -> httpx.Response:
        message = httpx.Request(
            request.method,
            request.address.origin,
            headers=[
                (name.encode("ascii"), value.encode("latin-1"))
                for name, value in request.wire_headers().items()
            ],
            content=request.content or None,
            extensions={"trace": connection.trace, "timeout": _phases(until).as_dict()},
        )
        message.url = _VerbatimURL(request.address)
        return await self._client.send(message, stream=True, follow_redirects=False)


def _phases(until: float) -> httpx.Timeout:
    """How long each phase of an exchange may take, if the whole is cancelled at ``until``.

    httpcore 1.0 leaves a socket open when it is cancelled within a TLS handshake; connecting and
    the handshake, ``connect`` each, have therefore given up by then.
    """
    left_s = max(0.0, until - asyncio.get_running_loop().time())
    phase_s = min(5.0, left_s / 3)
    return httpx.Timeout(connect=phase_s, read=2 * phase_s, write=phase_s, pool=phase_s)


class _VerbatimURL(httpx.URL):
    """A URL whose path and query are sent as they are.

    httpx.URL alone removes dot segments and encodes ``{``, ``"`` and others anew: a signature over
    the original would not match.
    """

    def __init__(self, address: Address) -> None:
        super().__init__(address.origin)
        self._target = address.target.encode("ascii")

    @property
    def raw_path(self) -> bytes:
        """Path and query for the request line."""
        return self._target


class _Connection:
    """Watches whether a request goes out on a new connection, or on one that lay idle.

    Source: https://www.encode.io/httpcore/extensions/#trace
    """

    def __init__(self) -> None:
        self._is_new = False
        self._is_used = False

    @property
    def was_idle(self) -> bool:
        return self._is_used and not self._is_new

    async def trace(self, event: str, _info: dict[str, Any]) -> None:
        if event == "connection.connect_tcp.started":
            self._is_new = True
        elif event == "http11.send_request_headers.started":
            self._is_used = True


async def _keep_headers(response: httpx.Response) -> None:
    """Takes the headers, and hides ``Location`` from httpx.

    It parses every ``Location`` even where it follows none, and raises what it could not parse.
    """
    kept: dict[str, str] = {}
    for name, value in response.headers.raw:
        kept.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))
    response.extensions[_HEADERS_KEPT] = kept
    response.headers.pop("location", None)


async def _body(
    response: httpx.Response, headers: dict[str, str], *, where: str, max_bytes: int
) -> bytes:
    codings = response.headers.get_list("content-encoding", split_commas=True)
    if any(coding.strip().lower() not in ("", "identity") for coding in codings):
        # What it unpacks to has no bound that is known before, and nobody asked for it.
        raise SourceUnusable(f"{where} sends the artifact with a content coding")
    too_large = SourceTooLarge(f"{where} sends more than {max_bytes} bytes")
    length = headers.get("content-length", "")
    if length.isdecimal() and int(length) > max_bytes:
        raise too_large
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) > max_bytes:
            raise too_large
        # One read can bring thousands of tiny chunks: the loop serves others in between.
        await asyncio.sleep(0)
    return bytes(body)


async def _beginning(response: httpx.Response, max_bytes: int) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_raw():
        body += chunk
        if len(body) >= max_bytes:
            break
        await asyncio.sleep(0)
    return bytes(body[:max_bytes])


def _origin_pattern(address: Address) -> str:
    host = f"[{address.host}]" if ":" in address.host else address.host
    return f"all://{host}"


def _explain(exc: BaseException) -> str:
    """What went wrong, in words that are not taken from an HTTP library's text."""
    words = network_words(exc)
    if words is not None:
        return words
    kinds = {
        httpx.ConnectTimeout: "no connection in time",
        httpx.TimeoutException: "no answer in time",
        httpx.ProxyError: "the proxy does not let the request pass",
        httpx.ConnectError: "no connection",
        httpx.RemoteProtocolError: "the answer broke off, or is not HTTP",
    }
    words = next((text for kind, text in kinds.items() if isinstance(exc, kind)), "no answer")
    return f"{words} ({type(exc).__name__})"
