"""The program that ``exec`` runs: from the first secrets to its exit code."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine, Sequence
from typing import Any, Final, Literal, NoReturn, TypeAlias, TypeVar

from clef_agent.cli.child import Child, become, environment_for
from clef_agent.cli.failure import Failure
from clef_agent.cli.supply import Supplied, Supply, supply_for
from clef_agent.cli.variables import Naming, variables_of
from clef_agent.log import LOGGER

T = TypeVar("T")

#: What new secrets do to the program; None: nothing.
OnChange: TypeAlias = Literal["restart"] | signal.Signals | None

#: How soon a wish to end is seen while the first secrets are awaited, in seconds.
_LOOK_S: Final = 0.05


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
    return asyncio.run(_supervise(command, naming, on_change))


async def _supervise(command: Sequence[str], naming: Naming, on_change: OnChange) -> int:
    child = Child(command)
    child.watch_signals()
    supply = supply_for(os.environ)
    supplied = await _unless_stopped(child, supply.first())
    if supplied is None:
        return child.stop_code
    child.start(_environment(supplied, naming))
    following: asyncio.Task[None] | None = None
    if on_change is not None:
        following = asyncio.create_task(_follow(child, supply, supplied, naming, on_change))
    try:
        return await child.final_code()
    finally:
        if following is not None:
            following.cancel()
        await supply.aclose()


async def _unless_stopped(child: Child, coming: Coroutine[Any, Any, T]) -> T | None:
    """What ``coming`` brings, or None where somebody asks for the end before that."""
    task = asyncio.ensure_future(coming)
    while not task.done():
        await asyncio.wait((task,), timeout=_LOOK_S)
        if child.is_stopping:
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
        if child.is_stopping:
            return
        if isinstance(on_change, signal.Signals):
            child.send(on_change)
            continue
        try:
            env = _environment(changed, naming)
        except Failure as exc:
            LOGGER.error("the program goes on with the secrets that it has: %s", exc)
            continue
        await child.replace(env)


def _environment(supplied: Supplied, naming: Naming) -> dict[str, str]:
    variables = variables_of(supplied.payload, naming)
    for sentence in variables.skipped:
        LOGGER.warning("%s", sentence)
    return environment_for(variables.values, os.environ)
