"""The agent as a process of its own: a container's sidecar, or a service."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from typing import Final

from clef_agent.errors import ClefError
from clef_agent.lifecycle.agent import Agent
from clef_agent.lifecycle.polling import Polling
from clef_agent.lifecycle.startup import first_load
from clef_agent.lifecycle.stop_signals import StopSignals
from clef_agent.lifecycle.supervisor import UNSUPERVISED, Supervisor
from clef_agent.log import LOGGER

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
        self._core = core = agent.core
        self._on_ready = on_ready
        self._supervisor = supervisor
        self._polling = Polling(core.refresher, core.memory, core.clock)
        self._signals = StopSignals()

    async def run(self) -> ClefError | None:
        """None after a signal to stop, or the failure that made serving pointless."""
        loop = asyncio.get_running_loop()
        self._signals.catch()
        loop.add_signal_handler(signal.SIGHUP, self._reload)
        await self._agent.listen()
        serving = loop.create_task(self._serve())
        watching = loop.create_task(self._supervisor.watch(self._agent.listener.is_serving))
        stopping = loop.create_task(self._signals.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        watching.cancel()
        failure = await serving if serving.done() else None
        serving.cancel()
        self._supervisor.stopping(failure)
        self._agent.stopped("signal" if failure is None else "error")
        self._core.provider.drain()
        await self._agent.listener.drain(DRAIN_S if failure is None else 0.0)
        await self._core.keeper.settle(_SETTLE_S)
        await self._agent.close()
        self._signals.leave_to_exit(0 if failure is None else 1)
        return failure

    async def _serve(self) -> ClefError | None:
        core = self._core
        LOGGER.info("source: %s", core.source.describe())
        LOGGER.info("mode: %s", core.provider.mode)
        failure = await first_load(core.refresher, core.memory, self._pause)
        if failure is not None:
            return failure
        LOGGER.info("token: [set]")
        LOGGER.info("lifecycle: daemon")
        LOGGER.info("Agent ready. Polling for updates.")
        self._agent.started()
        self._on_ready()
        self._supervisor.serving(core.provider.status())
        core.refresher.when_landed(self._tell_supervisor)
        await self._polling.run()
        raise AssertionError("polling ends by cancellation only")

    async def _pause(self, seconds: float) -> None:
        self._supervisor.retrying(seconds)
        await asyncio.sleep(seconds)

    def _tell_supervisor(self) -> None:
        if not self._polling.is_awaited:  # else the refresh that a reload waits for is yet to come
            self._supervisor.serving(self._core.provider.status())

    def _reload(self) -> None:
        if self._signals.have_come:
            return
        LOGGER.info("reloading keys and token, and refreshing")
        self._supervisor.reloading()
        self._agent.reload()
        self._polling.wake()
