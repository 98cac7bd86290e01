"""An assembled agent: what a lifecycle drives."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clef_agent import __version__
from clef_agent.cache.keeper import CopyKeeper
from clef_agent.cache.memory import Memory
from clef_agent.clock import Clock, Instant
from clef_agent.decrypt import Decryptor
from clef_agent.errors import NotLoaded, TokenUnusable
from clef_agent.kms.base import KeyService
from clef_agent.log import LOGGER
from clef_agent.provider import SecretsProvider
from clef_agent.refresh import Refresher
from clef_agent.server.guards import BearerToken, Guards, allowed_hosts
from clef_agent.server.listener import Listener
from clef_agent.sources.base import Source
from clef_agent.telemetry import events
from clef_agent.telemetry.metrics import Gauges, Metrics
from clef_agent.telemetry.sending import Telemetry
from clef_agent.token_file import ServedToken, discard

if TYPE_CHECKING:
    from starlette.types import ASGIApp


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """The parts of one agent, each already made, none yet at work.

    ``began`` is when it was made; ``emit`` tells all who listen. ``read_token`` reads the token
    anew from where it was configured, or gives the one in use.
    ``warm_ups`` load what the first fetch needs, beside the listener's coming up.
    """

    source: Source
    provider: SecretsProvider
    refresher: Refresher
    memory: Memory
    keeper: CopyKeeper
    decryptor: Decryptor
    clock: Clock
    began: Instant
    emit: events.Emit
    metrics: Metrics
    telemetry: Telemetry
    listener: Listener
    sockets: tuple[socket.socket, ...]
    key_services: tuple[KeyService, ...]
    token: ServedToken
    read_token: Callable[[], ServedToken]
    bearer: BearerToken = field(repr=False)
    warm_ups: tuple[Callable[[], None], ...] = ()

    async def listen(self) -> None:
        """Begins to answer on every socket."""
        if self.warm_ups:
            threading.Thread(target=_warm_up, args=(self.warm_ups,), daemon=True).start()
        for listening in self.sockets:
            await self.listener.serve(self._application(listening), listening)

    def started(self) -> None:
        """To be called once, when the first secrets can be served."""
        # A thread of the loop's pool, now: where one begins when memory is short, its beginner
        # may wait for ever, and that would be the loop.
        # Source: https://github.com/python/cpython/blob/3.11/Lib/threading.py, Thread.start
        with contextlib.suppress(RuntimeError):
            asyncio.get_running_loop().run_in_executor(None, _nothing)
        self.emit(events.AgentStarted(__version__))
        self.telemetry.begin()

    def stopped(self, reason: events.StopReason) -> None:
        """To be called once, when the agent begins to leave; what it tells is sent meanwhile."""
        uptime_s = self.clock.now().boot - self.began.boot
        self.emit(events.AgentStopped(reason, uptime_s))
        self.telemetry.hurry()

    def reload(self) -> None:
        """Reads key and token files anew; what cannot be read stays as it was."""
        problem = self.decryptor.reload_keys()
        if problem is not None:
            LOGGER.error("the age keys stay as they were: %s", problem)
        try:
            self.bearer.replace(self.read_token().value)
        except TokenUnusable as exc:
            LOGGER.error("the token stays as it was: %s", exc)

    async def close(self) -> None:
        """Lets go of secrets, of a token's file, and of connections to others.

        Takes as long as telemetry may at the most.
        """
        discard(self.token)
        self.memory.wipe(NotLoaded)
        await self.source.aclose()
        for service in self.key_services:
            await service.aclose()
        await self.telemetry.close()

    def _application(self, listening: socket.socket) -> ASGIApp:
        from clef_agent.server.app import create_routes
        from clef_agent.server.secrets_endpoint import SecretsEndpoint

        endpoint = SecretsEndpoint(self.provider)
        is_unix = listening.family == socket.AF_UNIX
        return Guards(
            create_routes(self.provider, endpoint, self._render_metrics),
            endpoint,
            token=self.bearer,
            hosts=None if is_unix else allowed_hosts(listening.getsockname()[1]),
            requests=self.metrics.requests,
        )

    def _render_metrics(self) -> bytes:
        status, last_success = self.provider.status(), self.memory.last_success
        return self.metrics.render(
            Gauges(
                mode=status.mode,
                ready=status.why_not is None,
                last_success_age_s=last_success.age_s(self.clock.now()) if last_success else None,
                telemetry=self.telemetry.counts,
            )
        )


def _warm_up(calls: tuple[Callable[[], None], ...]) -> None:
    for call in calls:
        with contextlib.suppress(Exception):  # the first fetch meets it again, and says so
            call()


def _nothing() -> None:
    pass
