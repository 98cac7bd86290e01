"""Where ``exec`` has the secrets from: straight from the source, or from the running agent."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final, Protocol

from clef_agent import config as configuration
from clef_agent.artifact.pack import Payload
from clef_agent.cli.endpoint import Agent
from clef_agent.cli.failure import Failure
from clef_agent.cli.probe import failure_of
from clef_agent.errors import ClefError
from clef_agent.lane import Lane
from clef_agent.lifecycle.core import Core
from clef_agent.lifecycle.polling import Polling
from clef_agent.lifecycle.startup import first_load
from clef_agent.log import LOGGER
from clef_agent.regular_file import read_regular_file
from clef_agent.wiring import make_core

#: How long one question to the agent waits for a change, in seconds; the most that it allows.
_WAIT_S: Final = 60
_ANSWER_S: Final = 35.0
#: After a failure, in seconds; doubled up to the last.
_PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0, 5.0)
_OK, _NOT_MODIFIED = 200, 304


@dataclass(frozen=True, slots=True)
class Supplied:
    """Secrets, and a word that is another one when they are."""

    payload: Payload = field(repr=False)
    mark: str


class Supply(Protocol):
    """Gives secrets once, and again whenever they change."""

    async def first(self) -> Supplied:
        """The secrets as they are now.

        Raises:
            Failure, ClefError: there are none.
        """
        ...

    def changes(self, since: Supplied) -> AsyncIterator[Supplied]:
        """Each following version, until cancelled. What keeps it from coming is logged."""
        ...

    async def aclose(self) -> None:
        """Lets go of secrets and connections."""
        ...


def supply_for(env: Mapping[str, str]) -> Supply:
    """The source, where ``env`` configures one, else the running agent.

    Raises:
        ConfigInvalid, Failure: what is configured cannot be used.
    """
    names = [name for name in env if name.startswith("CLEF_AGENT_VCS_")]
    if "CLEF_AGENT_SOURCE" in env or names:
        config = configuration.load(env, read_regular_file)
        for warning in config.warnings:
            LOGGER.warning("%s", warning)
        return FromSource(make_core(config, env))
    return FromAgent(Agent.from_env(env))


class FromSource:
    """By the same way as a running agent's: fetched, proven, decrypted, polled."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._changed = asyncio.Event()

    async def first(self) -> Supplied:
        """See Supply."""
        core = self._core
        failure = await first_load(core.refresher, core.memory, asyncio.sleep)
        if failure is not None:
            raise failure
        return await self._held()

    async def changes(self, since: Supplied) -> AsyncIterator[Supplied]:
        """See Supply."""
        core = self._core
        core.refresher.when_landed(self._changed.set)
        polling = asyncio.create_task(
            Polling(core.refresher, core.memory, core.clock).run(), name="polling"
        )
        try:
            while True:
                await self._changed.wait()
                self._changed.clear()
                held = core.memory.held
                if held is None or held.artifact.digest == since.mark:
                    continue
                try:
                    since = await self._held()
                except ClefError as exc:
                    LOGGER.error("the new secrets cannot be had: %s", exc)
                    continue
                yield since
        finally:
            polling.cancel()

    async def aclose(self) -> None:
        """See Supply."""
        await self._core.keeper.settle(0.5)
        await self._core.aclose()

    async def _held(self) -> Supplied:
        opened = await self._core.provider.open()
        return Supplied(json.loads(bytes(opened.secrets.json)), opened.digest)


class FromAgent:
    """From the agent that runs beside us, over its HTTP API."""

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._lane = Lane("agent", width=2)

    async def first(self) -> Supplied:
        """See Supply."""
        supplied = await self._ask("/v1/secrets", None, _ANSWER_S)
        assert supplied is not None  # nothing was known before
        return supplied

    async def changes(self, since: Supplied) -> AsyncIterator[Supplied]:
        """See Supply."""
        failures = 0
        while True:
            try:
                path = f"/v1/secrets?wait={_WAIT_S}"
                supplied = await self._ask(path, since.mark, _WAIT_S + _ANSWER_S)
            except (Failure, ClefError) as exc:
                if failures == 0:
                    LOGGER.warning("no news of the secrets: %s", exc)
                await asyncio.sleep(_PAUSES_S[min(failures, len(_PAUSES_S) - 1)])
                failures += 1
                continue
            failures = 0
            if supplied is not None and supplied.mark != since.mark:
                since = supplied
                yield supplied

    async def aclose(self) -> None:
        """See Supply."""

    async def _ask(self, path: str, mark: str | None, timeout_s: float) -> Supplied | None:
        """What is there now, or None where it is still that of ``mark``."""
        ask = partial(
            self._agent.ask, path, token=self._agent.token(), etag=mark, timeout_s=timeout_s
        )
        answer = await self._lane.run(ask, deadline_s=timeout_s + 5)
        if answer.status == _NOT_MODIFIED:
            return None
        if answer.status != _OK or not isinstance(answer.value, dict):
            raise failure_of(self._agent, answer)
        return Supplied(answer.value, answer.etag or "")
