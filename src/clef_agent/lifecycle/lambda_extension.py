"""The agent beside a function in AWS Lambda, which freezes it whenever nothing is invoked.

Nothing may rely on a timer here: it stands still in a freeze, or is overdue after it. What looks
for a new artifact is an invocation, or a request that comes when a look is due.

Source: https://docs.aws.amazon.com/lambda/latest/dg/lambda-runtime-environment.html
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Final, TypeVar

from clef_agent.errors import (
    ClefError,
    ConfigInvalid,
    ExtensionsApiFailed,
    SourceUnreachable,
    StartFailed,
)
from clef_agent.lane import Lane, LaneBlocked
from clef_agent.lifecycle.agent import Agent
from clef_agent.lifecycle.extensions_api import (
    EventType,
    ExtensionsApi,
    Invoke,
    Shutdown,
    Unknown,
)
from clef_agent.lifecycle.polling import Polling
from clef_agent.lifecycle.startup import Retries, first_load
from clef_agent.lifecycle.stop_signals import StopSignals
from clef_agent.log import LOGGER
from clef_agent.provider import RefreshedOnRequest
from clef_agent.sources.base import FETCH_DEADLINE_S
from clef_agent.telemetry.events import StopReason

#: Of the ten seconds that Lambda gives to the start of a sandbox, these are for the first load.
LOAD_S: Final = 5.0
#: A fetch gives up while there is still time to read the copy on disk, on a part of a processor.
_INIT_FETCH_S: Final = 4.0
_RETRIES: Final = Retries(delays_s=(1.0, 2.0), max_retry_after_s=2.0)

#: A request waits for a refresh that is due until so long after it began, in seconds. Functions
#: have three seconds, unless somebody chose otherwise.
REQUEST_S: Final = 2.0
#: An invocation ends when the agent asks for the next event. It holds it no longer than this for
#: a refresh and for telemetry, in seconds: the time is paid for, and a sandbox that is to end
#: meanwhile ends two seconds later, whether the agent has heard of it or not.
REFRESH_S: Final = 1.0
FLUSH_S: Final = 0.4
#: Before the function's own end, which must not find the agent busy, in seconds.
_MARGIN_S: Final = 0.3

#: SHUTDOWN leaves two seconds until SIGKILL. Source: the page above, "Shutdown phase".
LEAVE_S: Final = 1.6
_SHORTEST_LEAVE_S: Final = 0.1
#: The function is gone by then; what is left to answer is little. In seconds.
_DRAIN_S: Final = 0.2
_SETTLE_S: Final = 0.3

T = TypeVar("T")


class LambdaExtension:
    """Listens, loads, registers, and serves one invocation after another until it is shut down."""

    def __init__(self, agent: Agent, api: ExtensionsApi) -> None:
        core = agent.core
        self._secrets = RefreshedOnRequest(core.provider, core.refresher, patience_s=REQUEST_S)
        self._core = replace(core, provider=self._secrets)
        self._agent = replace(agent, core=self._core)
        self._api = api
        self._lane = Lane("Extensions API")
        self._signals = StopSignals()
        self._polling: asyncio.Task[None] | None = None  # held, or it might be collected

    async def run(self) -> ClefError | None:
        """None after SHUTDOWN or a signal, or the failure that made serving pointless.

        Lambda has been told of it, where it listens.
        """
        loop = asyncio.get_running_loop()
        self._signals.catch()
        await self._agent.listen()
        serving = loop.create_task(self._serve())
        stopping = loop.create_task(self._signals.wait())
        await asyncio.wait((serving, stopping), return_when=asyncio.FIRST_COMPLETED)
        stopping.cancel()
        end = await serving if serving.done() else None
        serving.cancel()
        await self._leave(end)
        failure = end if isinstance(end, ClefError) else None
        self._signals.leave_to_exit(0 if failure is None else 1)
        return failure

    async def _serve(self) -> Shutdown | ClefError:
        """What ended it: the end of the sandbox, or a failure."""
        failure = await self._load()
        if failure is not None:
            await self._call(partial(report_failed_start, self._api, failure))
            return failure
        try:
            return await self._attend(await self._call(self._api.register))
        except ExtensionsApiFailed as exc:
            await self._call(partial(_report_failure, self._api, exc))
            return exc

    # --- the start ------------------------------------------------------------------------------

    async def _load(self) -> ClefError | None:
        """None as soon as secrets can be served, else the failure; within ``LOAD_S``."""
        core = self._core
        LOGGER.info("source: %s", core.source.describe())
        LOGGER.info("mode: %s", core.provider.mode)
        core.refresher.fetch_deadline_s = _INIT_FETCH_S
        try:
            async with asyncio.timeout(LOAD_S):
                return await first_load(core.refresher, core.memory, asyncio.sleep, _RETRIES)
        except TimeoutError:
            if core.memory.held is not None:
                return None
            late = SourceUnreachable(f"nothing was loaded within {LOAD_S:g} s")
            return core.refresher.last_failure or late
        finally:
            core.refresher.fetch_deadline_s = FETCH_DEADLINE_S

    def _poll(self) -> None:
        """Leaves the looking to a timer: this sandbox is never frozen."""
        core = self._core
        self._secrets.leave_to_timer()
        polling = Polling(core.refresher, core.memory, core.clock)
        self._polling = asyncio.get_running_loop().create_task(polling.run())

    # --- invocations ----------------------------------------------------------------------------

    async def _attend(self, events: frozenset[EventType]) -> Shutdown:
        """Serves until the sandbox is to end. ``events`` are those that Lambda tells of."""
        LOGGER.info("token: [set]")
        LOGGER.info("lifecycle: lambda-extension")
        LOGGER.info("Agent ready. Polling for updates.")
        self._agent.started()
        if "INVOKE" not in events:
            self._poll()
        while True:
            match await self._call(self._api.next_event):
                case Shutdown() as shutdown:
                    LOGGER.info("stopping: the sandbox ends (%s)", shutdown.reason)
                    return shutdown
                case Invoke() as invoke:
                    await self._look_after(invoke)
                case Unknown() as event:
                    LOGGER.warning("an event of the unknown type %r is passed over", event.type)

    async def _look_after(self, invoke: Invoke) -> None:
        """Refreshes where the mode wants it, and sends what there is to tell; both in bounds."""
        loop, core = asyncio.get_running_loop(), self._core
        until = loop.time() + self._left_s(invoke.deadline_ms, at_most_s=REFRESH_S + FLUSH_S)
        core.refresher.enforce()
        if core.provider.wants_refresh():
            await core.refresher.refresh_within(min(REFRESH_S, until - loop.time()))
        await core.telemetry.flush(max(min(FLUSH_S, until - loop.time()), 0.0))

    # --- the end --------------------------------------------------------------------------------

    async def _leave(self, end: Shutdown | ClefError | None) -> None:
        """Lets go of everything, in the time that is left; ``end`` None stands for a signal."""
        agent, reason, left_s = self._agent, _stop_reason(end), LEAVE_S
        if isinstance(end, Shutdown):
            left_s = max(self._left_s(end.deadline_ms, at_most_s=LEAVE_S), _SHORTEST_LEAVE_S)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(left_s):
                agent.stopped(reason)
                self._core.provider.drain()
                await agent.listener.drain(_DRAIN_S)
                await self._core.keeper.settle(_SETTLE_S)
                await agent.close()

    def _left_s(self, deadline_ms: float | None, *, at_most_s: float) -> float:
        """Seconds until shortly before a deadline of Lambda's."""
        if deadline_ms is None:
            return at_most_s
        left_s = deadline_ms / 1000 - self._core.clock.now().wall - _MARGIN_S
        return min(max(left_s, 0.0), at_most_s)

    async def _call(self, call: Callable[[], T]) -> T:
        """What ``call`` returns, which has a timeout of its own or must not have any."""
        try:
            return await self._lane.run(call, deadline_s=None)
        except LaneBlocked as exc:
            raise ExtensionsApiFailed(f"Lambda's Extensions API cannot be asked: {exc}") from exc


def report_failed_start(api: ExtensionsApi, error: ClefError) -> None:
    """Tells Lambda why there will be no agent. Blocks, and raises nothing.

    Who reports must have registered: that is done first, for whatever came before it.
    """
    try:
        if not api.is_registered:
            api.register()
        api.init_error(_error_type(error), str(error))
    except ExtensionsApiFailed as exc:
        LOGGER.error("Lambda could not be told of it: %s", exc)


def _report_failure(api: ExtensionsApi, error: ExtensionsApiFailed) -> None:
    """Tells Lambda, as far as it still listens, that the agent ends. Blocks, and raises nothing."""
    if api.is_registered:
        with contextlib.suppress(ExtensionsApiFailed):  # which is why it ends
            api.exit_error(_error_type(error), str(error))


def _error_type(error: ClefError) -> str:
    if isinstance(error, ConfigInvalid | StartFailed | ExtensionsApiFailed):
        return f"Extension.{type(error).__name__}"
    return "Extension.LoadFailed"


def _stop_reason(end: Shutdown | ClefError | None) -> StopReason:
    match end:
        case None:
            return "signal"
        case Shutdown():
            return "lambda_shutdown"
    return "error"
