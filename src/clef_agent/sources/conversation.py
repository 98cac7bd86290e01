"""Requests and answers of one fetch: what a source asks is pure, and this asks it.

A source of the web writes a fetch as a generator: it yields requests, is sent their answers, and
returns what they amount to. Whoever tests it needs no network.
"""

from __future__ import annotations

import asyncio
import importlib
from collections.abc import Callable, Generator
from functools import partial
from typing import TYPE_CHECKING, TypeAlias, TypeVar

from clef_agent.config import Credential, ReadFile
from clef_agent.errors import SourceDenied, SourceUnreachable
from clef_agent.lane import Lane, LaneBlocked
from clef_agent.sources.base import FETCH_DEADLINE_S, MAX_FETCH_BYTES, Fetched, NotModified
from clef_agent.sources.credential import read_token
from clef_agent.web.address import Address
from clef_agent.web.exchange import Answer, Request

if TYPE_CHECKING:  # httpx is loaded at the first fetch, not at start
    import httpx

    from clef_agent.web.client import WebClient

T = TypeVar("T")

#: One fetch, as the requests that it makes of the answers that it gets.
Conversation: TypeAlias = Generator[Request, Answer, Fetched | NotModified]


class Correspondent:
    """Holds conversations with one origin, each within one deadline.

    ``token`` is read anew for each: a file may have another by then.
    """

    def __init__(
        self,
        home: Address,
        token: Credential | None,
        read_file: ReadFile,
        *,
        transport: httpx.AsyncBaseTransport | None = None,
        deadline_s: float = FETCH_DEADLINE_S,
        max_bytes: int = MAX_FETCH_BYTES,
    ) -> None:
        """Opens no connection and reads no file yet."""
        self._home = home
        self._token = token
        self._read_file = read_file
        self._transport = transport
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._client: WebClient | None = None
        self._lane = Lane("source")
        self._turn = asyncio.Lock()

    async def hold(
        self, conversation: Callable[[str | None], Conversation]
    ) -> Fetched | NotModified:
        """What ``conversation``, begun with the token as it is now, ends with.

        Raises:
            SourceError: one of its subclasses. No message holds userinfo, token or query.
        """
        until = asyncio.get_running_loop().time() + self._deadline_s
        try:
            async with asyncio.timeout_at(until):
                client = await self._connected()
                return await self._hold(conversation(await self._read_token()), client, until)
        except TimeoutError:
            raise SourceUnreachable(
                f"{self._home.origin}: no complete answer within {self._deadline_s:g} s"
            ) from None

    @staticmethod
    def warm_up() -> None:
        """Loads the web client."""
        importlib.import_module("clef_agent.web.client")

    async def aclose(self) -> None:
        """Closes all connections."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _hold(
        self, conversation: Conversation, client: WebClient, until: float
    ) -> Fetched | NotModified:
        request = next(conversation)
        while True:
            answer = await client.ask(request, max_bytes=self._max_bytes, until=until)
            try:
                request = conversation.send(answer)
            except StopIteration as end:
                result: Fetched | NotModified = end.value
                return result

    async def _connected(self) -> WebClient:
        if self._client is None:
            self._client = await self._beside(partial(_web_client, self._home, self._transport))
        return self._client

    async def _read_token(self) -> str | None:
        if self._token is None:
            return None
        try:
            return await self._beside(partial(read_token, self._token, self._read_file))
        except LaneBlocked as exc:
            raise SourceDenied(f"the token file {self._token.path} cannot be read: {exc}") from exc

    async def _beside(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, though it may block: an import, a file that hangs."""
        async with self._turn:
            return await self._lane.run(call, deadline_s=self._deadline_s)


def as_header(text: str) -> str:
    """``text`` for a header's value, in which each character stands for one byte on its way."""
    return text.encode().decode("latin-1")


def _web_client(home: Address, transport: httpx.AsyncBaseTransport | None) -> WebClient:
    from clef_agent.web.client import WebClient

    return WebClient(home, transport)
