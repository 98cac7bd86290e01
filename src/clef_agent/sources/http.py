"""An artifact behind an http or https URL, presigned ones included."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from clef_agent.clock import Clock, SystemClock
from clef_agent.config import HttpSourceConfig, ReadFile
from clef_agent.errors import SourceUnusable
from clef_agent.sources.base import (
    FETCH_DEADLINE_S,
    MAX_FETCH_BYTES,
    Fetched,
    NotModified,
    SourceType,
    Validator,
)
from clef_agent.sources.conversation import Conversation, Correspondent, as_header
from clef_agent.sources.status import http_date, refusal
from clef_agent.web.address import Address, parse_url
from clef_agent.web.exchange import Answer, Precondition, Request

if TYPE_CHECKING:
    import httpx

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
        self._clock = clock or SystemClock()
        self._correspondent = Correspondent(
            self._address,
            config.token,
            read_file,
            transport=transport,
            deadline_s=deadline_s,
            max_bytes=max_bytes,
        )

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        """The artifact, unless it is still the one that ``previous`` stands for.

        Raises:
            SourceError: one of its subclasses. No message holds userinfo, token or query.
        """
        return await self._correspondent.hold(partial(self._conversation, previous))

    def describe(self) -> str:
        """The URL without userinfo and query."""
        return str(self._address)

    def warm_up(self) -> None:
        """Loads the web client."""
        self._correspondent.warm_up()

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._correspondent.aclose()

    def _conversation(self, previous: Validator | None, token: str | None) -> Conversation:
        answer = yield Request(
            self._address,
            credentials=self._credentials(token),
            precondition=Precondition.from_text(previous.token) if previous else None,
        )
        return read_answer(answer, home=self._address, wall=self._clock.now().wall)

    def _credentials(self, token: str | None) -> dict[str, str]:
        if self._userinfo is not None:
            return {"authorization": self._userinfo.basic()}
        return {} if token is None else {"authorization": as_header(f"Bearer {token}")}


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
