"""The agent as a process of its own: a container's sidecar, or a service."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from typing import Final

from clef_agent.errors import ClefError
from clef_agent.lifecycle.agent import Agent
from clef_agent.lifecycle.polling import Polling
from clef_agent.lifecycle.startup import first_load
from clef_agent.lifecycle.supervisor import UNSUPERVISED, Supervisor
from clef_agent.log import LOGGER

_STOPPING_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT)
#: Requests under way get so long to end, in seconds.
DRAIN_S: Final = 3.0
#: Writing the last state of the copy on disk must not hold up an end, in seconds.
_SETTLE_S: Final = 0.5


class Daemon:
    """Listens, loads, polls, and leaves when told to.

    ``on_ready`` is called once, when the first secrets can be served; ``supervisor`` hears of that
    and of all that comes after.
    """

    def __init__(
        self,
        agent: Agent,
        *,
        on_ready: Callable[[], None],
        supervisor: Supervisor = UNSUPERVISED,
    ) -> None:
        self._agent = agent
        self._on_ready = on_ready
        self._supervisor = supervisor
        self._polling = Polling(agent.refresher, agent.memory, agent.clock)
        self._stopping = asyncio.Event()

    async def run(self) -> ClefError | None:
        """None after a signal to stop, or the failure that made serving pointless."""
        loop = asyncio.get_running_loop()
        for number in _STOPPING_SIGNALS:
            loop.add_signal_handler(number, self._stop)
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        await self._agent.listen()
        serving = loop.create_task(self._serve())
        watching = loop.create_task(self._supervisor.watch(self._agent.listener.is_serving))
        stopping = loop.create_task(self._stopping.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        watching.cancel()
        failure = await serving if serving.done() else None
        serving.cancel()
        self._supervisor.stopping(failure)
        self._agent.stopped("signal" if failure is None else "error")
        self._agent.provider.drain()
        await self._agent.listener.drain(DRAIN_S if failure is None else 0.0)
        await self._agent.keeper.settle(_SETTLE_S)
        await self._agent.close()
        for number in _STOPPING_SIGNALS:
            # The loop would leave the default behind: to die by the signal, or as PID 1 to go on.
            loop.remove_signal_handler(number)
            signal.signal(number, lambda *_: os._exit(0 if failure is None else 1))
        return failure

    async def _serve(self) -> ClefError | None:
        agent = self._agent
        LOGGER.info("source: %s", agent.source.describe())
        LOGGER.info("mode: %s", agent.provider.mode)
        failure = await first_load(agent.refresher, agent.memory, self._pause)
        if failure is not None:
            return failure
        LOGGER.info("token: [set]")
        LOGGER.info("lifecycle: daemon")
        LOGGER.info("Agent ready. Polling for updates.")
        agent.started()
        self._on_ready()
        self._supervisor.serving(agent.provider.status())
        agent.refresher.when_landed(self._tell_supervisor)
        await self._polling.run()
        raise AssertionError("polling ends by cancellation only")

    async def _pause(self, seconds: float) -> None:
        self._supervisor.retrying(seconds)
        await asyncio.sleep(seconds)

    def _tell_supervisor(self) -> None:
        if not self._polling.is_awaited:  # else the refresh that a reload waits for is yet to come
            self._supervisor.serving(self._agent.provider.status())

    def _stop(self) -> None:
        if self._stopping.is_set():
            # Asked twice: whoever waits for us has no more patience. Nothing is half-written that
            # a rename does not make whole.
            os._exit(0)
        LOGGER.info("stopping")
        self._stopping.set()

    def _reload(self) -> None:
        if self._stopping.is_set():
            return
        LOGGER.info("reloading keys and token, and refreshing")
        self._supervisor.reloading()
        self._agent.reload()
        self._polling.wake()
