"""The program that ``exec`` runs: from the first secrets to its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, Literal, NoReturn, TypeAlias, TypeVar

from clef_agent.cli.child import (
    SIGNAL_BASE,
    Child,
    Environment,
    become,
    environment_for,
    is_first_process,
)
from clef_agent.cli.failure import Failure
from clef_agent.cli.signals import HeldSignals
from clef_agent.cli.supply import Supplied, Supply, supply_for
from clef_agent.cli.variables import Naming, variables_of
from clef_agent.log import LOGGER

T = TypeVar("T")

#: What new secrets do to the program; None: nothing.
OnChange: TypeAlias = Literal["restart"] | signal.Signals | None


def run_instead(command: Sequence[str], naming: Naming) -> NoReturn:
    """Fetches the secrets, and makes this process the program.

    Raises:
        Failure, ClefError: there are no secrets, or they cannot be variables.
        CommandUnusable: the program cannot be run.
    """

    async def supplied() -> Supplied:
        supply = supply_for(os.environ)
        try:
            return await supply.first()
        finally:
            await supply.aclose()

    become(command, _environment(asyncio.run(supplied()), naming))


def run_under(command: Sequence[str], naming: Naming, on_change: OnChange) -> int:
    """Runs the program under this process, follows changes, and returns its exit code.

    Raises:
        Failure, ClefError, CommandUnusable: as for ``run_instead``.
    """
    held = HeldSignals()
    return asyncio.run(_supervise(command, naming, on_change, held))


async def _supervise(
    command: Sequence[str], naming: Naming, on_change: OnChange, held: HeldSignals
) -> int:
    child = Child(command, held, buries_orphans=is_first_process())
    supply = supply_for(os.environ)
    supplied = await _unless_asked_to_end(child, supply.first())
    if supplied is None:
        return SIGNAL_BASE + child.asked_to_end.result()
    child.start(_environment(supplied, naming))
    following: asyncio.Task[None] | None = None
    if on_change is not None:
        following = asyncio.create_task(_follow(child, supply, supplied, naming, on_change))
        following.add_done_callback(_tell_of_fault)
    try:
        return await child.final_code()
    finally:
        if following is not None:
            following.cancel()
        await supply.aclose()


async def _unless_asked_to_end(child: Child, coming: Coroutine[Any, Any, T]) -> T | None:
    """What ``coming`` brings, or None where somebody asks for the end before that."""
    task = asyncio.ensure_future(coming)
    await asyncio.wait((task, child.asked_to_end), return_when=asyncio.FIRST_COMPLETED)
    if child.asked_to_end.done():
        task.cancel()
        return None
    return task.result()


async def _follow(
    child: Child,
    supply: Supply,
    supplied: Supplied,
    naming: Naming,
    on_change: OnChange,
) -> None:
    async for changed in supply.changes(supplied):
        if isinstance(on_change, signal.Signals):
            child.send(on_change)
            continue
        try:
            env = _environment(changed, naming)
        except Failure as exc:
            LOGGER.error("the program goes on with the secrets that it has: %s", exc)
            continue
        await child.replace(env)


def _tell_of_fault(following: asyncio.Task[None]) -> None:
    if not following.cancelled() and (exc := following.exception()) is not None:
        # The text of an unforeseen exception may hold anything; its type does not.
        LOGGER.error("the secrets are not followed any more: unexpected %s", type(exc).__name__)


def _environment(supplied: Supplied, naming: Naming) -> Environment:
    variables = variables_of(supplied.payload, naming)
    for sentence in variables.skipped:
        LOGGER.warning("%s", sentence)
    return environment_for(variables.values, os.environb)
