"""An artifact behind an http or https URL, presigned ones included."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar

from clef_agent.clock import Clock, SystemClock
from clef_agent.config import HttpSourceConfig, ReadFile
from clef_agent.errors import SourceDenied, SourceUnreachable, SourceUnusable
from clef_agent.lane import Lane, LaneBlocked
from clef_agent.sources.base import (
    FETCH_DEADLINE_S,
    MAX_FETCH_BYTES,
    Fetched,
    NotModified,
    SourceType,
    Validator,
)
from clef_agent.sources.credential import read_token
from clef_agent.sources.status import http_date, refusal
from clef_agent.web.address import Address, parse_url
from clef_agent.web.exchange import Answer, Precondition, Request

if TYPE_CHECKING:  # httpx is loaded at the first fetch, not at start
    import httpx

    from clef_agent.web.client import WebClient

T = TypeVar("T")

_OK = 200
_NOT_MODIFIED = 304

#: A date says nothing of a second change within its second.
#: Source: https://www.rfc-editor.org/rfc/rfc9110#section-8.8.2.2
_DATE_SETTLES_S = 1.0


class HttpSource:
    """One URL. Userinfo goes as Basic, a token as Bearer, to the URL's own origin only."""

    type: SourceType = "http"
    is_remote = True

    def __init__(
        self,
        config: HttpSourceConfig,
        read_file: ReadFile,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        deadline_s: float = FETCH_DEADLINE_S,
        max_bytes: int = MAX_FETCH_BYTES,
        clock: Clock | None = None,
    ) -> None:
        """Opens no connection and reads no file yet.

        Raises:
            SourceUnusable: the URL is none.
        """
        try:
            self._address, self._userinfo = parse_url(config.url)
        except ValueError as exc:
            raise SourceUnusable(f"the source's URL has {exc}") from None
        self._token = config.token
        self._read_file = read_file
        self._transport = transport
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        self._client: WebClient | None = None
        self._lane = Lane("source")
        self._turn = asyncio.Lock()

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        """The artifact, unless it is still the one that ``previous`` stands for.

        Raises:
            SourceError: one of its subclasses. No message holds userinfo, token or query.
        """
        until = asyncio.get_running_loop().time() + self._deadline_s
        try:
            async with asyncio.timeout_at(until):
                answer = await self._ask(_precondition_of(previous), until)
        except TimeoutError:
            raise SourceUnreachable(
                f"{self._address.origin}: no complete answer within {self._deadline_s:g} s"
            ) from None
        return read_answer(answer, home=self._address, wall=self._clock.now().wall)

    def describe(self) -> str:
        """The URL without userinfo and query."""
        return str(self._address)

    async def aclose(self) -> None:
        """Closes all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _ask(self, precondition: Precondition | None, until: float) -> Answer:
        if self._client is None:
            self._client = await self._beside(partial(_web_client, self._address, self._transport))
        credentials = await self._credentials()
        request = Request(self._address, credentials=credentials, precondition=precondition)
        return await self._client.ask(request, max_bytes=self._max_bytes, until=until)

    async def _credentials(self) -> dict[str, str]:
        if self._userinfo is not None:
            return {"authorization": self._userinfo.basic()}
        if self._token is None:
            return {}
        try:
            token = await self._beside(partial(read_token, self._token, self._read_file))
        except LaneBlocked as exc:
            raise SourceDenied(f"the token file {self._token.path} cannot be read: {exc}") from exc
        # Each character of a header stands for one byte on its way.
        return {"authorization": f"Bearer {token}".encode().decode("latin-1")}

    async def _beside(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, though it may block: an import, a file that hangs."""
        async with self._turn:
            return await self._lane.run(call, deadline_s=self._deadline_s)


def read_answer(answer: Answer, *, home: Address, wall: float) -> Fetched | NotModified:
    """What the last answer to a fetch of ``home`` amounts to.

    ``wall`` is the time at which it came, in seconds since 1970.

    Raises:
        SourceError: the subclass that its status means.
    """
    address = answer.request.address
    # Where a redirect led to, the path may be a capability of its own.
    where = str(home) if address.origin == home.origin else address.origin
    if answer.status == _OK:
        precondition = _precondition(answer, wall)
        return Fetched(answer.body, Validator(precondition.as_text()) if precondition else None)
    if answer.status == _NOT_MODIFIED:
        if answer.request.is_conditional:
            return NotModified()
        raise SourceUnusable(f'{where} answered "not modified" to an unconditional request')
    raise refusal(answer.status, answer.headers, where=where, wall=wall)


def _precondition_of(previous: Validator | None) -> Precondition | None:
    return Precondition.from_text(previous.token) if previous else None


def _precondition(answer: Answer, wall: float) -> Precondition | None:
    """How to ask next time whether this artifact has changed."""
    fingerprint = answer.request.address.fingerprint
    if etag := answer.headers.get("etag"):
        return Precondition(fingerprint, "if-none-match", etag)
    modified = answer.headers.get("last-modified", "")
    modified_at, answered_at = http_date(modified), http_date(answer.headers.get("date", ""))
    if modified_at is None:
        return None
    # Sooner than that, "not modified" might stand for another artifact for ever.
    if (wall if answered_at is None else answered_at) - modified_at < _DATE_SETTLES_S:
        return None
    return Precondition(fingerprint, "if-modified-since", modified)


def _web_client(home: Address, transport: httpx.AsyncBaseTransport | None) -> WebClient:
    from clef_agent.web.client import WebClient

    return WebClient(home, transport)
