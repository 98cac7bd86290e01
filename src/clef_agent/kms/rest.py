"""Calls of key services that speak JSON over https, each one POST."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from clef_agent.errors import SourceError, UnwrapFailed, UnwrapUnavailable
from clef_agent.kms.base import DEADLINE_S
from clef_agent.lane import Lane, LaneBlocked
from clef_agent.web.address import Address
from clef_agent.web.exchange import Request

if TYPE_CHECKING:  # httpx is loaded at the first call, not at start
    from clef_agent.web.client import WebClient

#: A wrapped key and what is around it fill some hundred bytes.
_MAX_ANSWER_BYTES: Final = 64 * 1024
_OK: Final = 200
_SERVER_ERRORS: Final = range(500, 600)
#: 408 and 429 ask for the same call again, later.
_PATIENCE: Final = frozenset({408, 429})


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's status and its JSON object; {} where the body is none."""

    status: int
    document: Mapping[str, Any] = field(repr=False)


class Rest:
    """Posts to one origin at a time, over connections that are kept."""

    def __init__(self) -> None:
        """Opens no connection yet."""
        self._clients: dict[str, WebClient] = {}
        self._lane = Lane("key service")
        self._turn = asyncio.Lock()

    async def post(
        self, address: Address, credentials: Mapping[str, str], document: Mapping[str, object]
    ) -> Reply:
        """The answer to ``document``. No redirect is followed.

        Raises:
            UnwrapUnavailable: there is none.
        """
        request = Request(
            address,
            credentials=credentials,
            headers={"content-type": "application/json", "accept": "application/json"},
            method="POST",
            content=json.dumps(document).encode(),
            max_error_bytes=_MAX_ANSWER_BYTES,
        )
        until = asyncio.get_running_loop().time() + DEADLINE_S
        try:
            async with asyncio.timeout_at(until):
                client = await self._client(address)
                answer = await client.ask(request, max_bytes=_MAX_ANSWER_BYTES, until=until)
        except TimeoutError:
            raise UnwrapUnavailable(f"{address.origin}: no answer in time") from None
        except SourceError as exc:  # the web client speaks of sources
            raise UnwrapUnavailable(str(exc)) from None
        return Reply(answer.status, _object(answer.body))

    async def aclose(self) -> None:
        """Closes all connections."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.aclose()

    async def _client(self, address: Address) -> WebClient:
        async with self._turn:
            client = self._clients.get(address.origin)
            if client is None:
                make = partial(_web_client, address)
                client = await self._lane.run(make, deadline_s=DEADLINE_S)
                self._clients[address.origin] = client
            return client


def accepted(reply: Reply, who: str, words: str) -> Mapping[str, Any]:
    """The object that a 200 brought.

    ``who`` names the service; ``words`` is what it says of a refusal, safe to log.

    Raises:
        UnwrapUnavailable: the service asks for patience.
        UnwrapFailed: any other refusal.
    """
    if reply.status == _OK:
        return reply.document
    message = f"{who} answered {reply.status}" + (f" ({words})" if words else "")
    if reply.status in _PATIENCE or reply.status in _SERVER_ERRORS:
        raise UnwrapUnavailable(message)
    raise UnwrapFailed(message)


async def beside(lane: Lane, call: Any, who: str) -> Any:
    """What ``call`` returns, run in ``lane``.

    Raises:
        UnwrapUnavailable: it does not come back in time.
    """
    try:
        return await lane.run(call, deadline_s=DEADLINE_S)
    except LaneBlocked as exc:
        raise UnwrapUnavailable(f"{who} gives no access token: {exc}") from None


def _object(body: bytes) -> Mapping[str, Any]:
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return document if isinstance(document, dict) else {}


def _web_client(home: Address) -> WebClient:
    from clef_agent.web.client import WebClient

    return WebClient(home)
