"""An assembled agent: what a lifecycle drives."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

from clef_agent import __version__
from clef_agent.clock import Instant
from clef_agent.errors import TokenUnusable
from clef_agent.lifecycle.core import Core
from clef_agent.log import LOGGER
from clef_agent.server.guards import BearerToken, Guards, allowed_hosts
from clef_agent.server.listener import Listener
from clef_agent.telemetry import events
from clef_agent.telemetry.metrics import Gauges
from clef_agent.token_file import ServedToken, discard

#: Of the loop's pool, which has five at the least.
_THREADS: Final = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class Agent:
    """A core, and what serves it on sockets; each part already made, none yet at work.

    ``began`` is when it was made. ``read_token`` reads the token anew, or gives None for one
    that is in no file. ``warm_ups`` load what the first fetch needs, beside the
    listener's coming up.
    """

    core: Core
    began: Instant
    listener: Listener
    sockets: tuple[socket.socket, ...]
    token: ServedToken
    read_token: Callable[[], str | None]
    bearer: BearerToken = field(repr=False)
    warm_ups: tuple[Callable[[], None], ...] = ()

    async def listen(self) -> None:
        """Begins to answer on every socket."""
        _begin_pool()
        if self.warm_ups:
            threading.Thread(target=_warm_up, args=(self.warm_ups,), daemon=True).start()
        for listening in self.sockets:
            await self.listener.serve(self._application(listening), listening)
        if not gc.isenabled():  # see __main__.py
            # What has been loaded stays: no look for garbage has to go through all of it.
            gc.freeze()
            gc.enable()

    def started(self) -> None:
        """To be called once, when the first secrets can be served."""
        self.core.emit(events.AgentStarted(__version__))
        self.core.telemetry.begin()

    def stopped(self, reason: events.StopReason) -> None:
        """To be called once, when the agent begins to leave; what it tells is sent meanwhile."""
        uptime_s = self.core.clock.now().boot - self.began.boot
        self.core.emit(events.AgentStopped(reason, uptime_s))
        self.core.telemetry.hurry()

    def reload(self) -> None:
        """Reads key and token files anew; what cannot be read stays as it was."""
        problem = self.core.decryptor.reload_keys()
        if problem is not None:
            LOGGER.error("the age keys stay as they were: %s", problem)
        try:
            token = self.read_token()
            if token is not None:
                self.bearer.replace(token)
        except TokenUnusable as exc:
            LOGGER.error("the token stays as it was: %s", exc)

    async def close(self) -> None:
        """Lets go of secrets, of a token's file, and of connections to others.

        Takes as long as telemetry may at the most.
        """
        discard(self.token)
        await self.core.aclose()

    def _application(self, listening: socket.socket) -> Guards:
        from clef_agent.server.app import create_routes
        from clef_agent.server.secrets_endpoint import SecretsEndpoint

        provider = self.core.provider
        endpoint = SecretsEndpoint(provider)
        is_unix = listening.family == socket.AF_UNIX
        return Guards(
            create_routes(provider, endpoint, self._render_metrics),
            endpoint,
            token=self.bearer,
            hosts=None if is_unix else allowed_hosts(listening.getsockname()[1]),
            requests=self.core.metrics.requests,
        )

    def _render_metrics(self) -> bytes:
        core = self.core
        status, last_success = core.provider.status(), core.memory.last_success
        return core.metrics.render(
            Gauges(
                mode=status.mode,
                ready=status.why_not is None,
                last_success_age_s=last_success.age_s(core.clock.now()) if last_success else None,
                telemetry=core.telemetry.counts,
            )
        )


def _begin_pool() -> None:
    """Begins threads of the loop's pool, before anybody is told that the agent is ready.

    Where one begins when memory is short, its beginner may wait for ever, and that would be the
    loop. Several, because one that has done its work may not have said so when the next piece
    comes.

    Source: https://github.com/python/cpython/blob/3.11/Lib/threading.py, Thread.start
    """
    all_have_begun = threading.Event()
    with contextlib.suppress(RuntimeError):  # the system allows no more of them
        for _ in range(_THREADS):
            asyncio.get_running_loop().run_in_executor(None, all_have_begun.wait)
    all_have_begun.set()


def _warm_up(calls: tuple[Callable[[], None], ...]) -> None:
    for call in calls:
        with contextlib.suppress(Exception):  # the first fetch meets it again, and says so
            call()
