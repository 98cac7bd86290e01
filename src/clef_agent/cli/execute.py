"""``clef-agent exec``: runs a program with the secrets as its environment variables."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from clef_agent.cli.failure import Failure, report

if TYPE_CHECKING:
    from clef_agent.cli.child import Child
    from clef_agent.cli.supply import Supplied, Supply
    from clef_agent.cli.variables import Naming

T = TypeVar("T")

_RESTART: Final = "restart"
#: How soon a wish to end is seen while the first secrets are awaited, in seconds.
_LOOK_S: Final = 0.05


def execute(
    command: Annotated[
        list[str], typer.Argument(metavar="CMD [ARGS]...", help="What to run, after --.")
    ],
    watch: Annotated[
        str | None,
        typer.Option(
            metavar="restart|signal=HUP",
            help="On new secrets, start it anew, or send it a signal.",
        ),
    ] = None,
    only: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Only this secret. Repeatable."),
    ] = None,
    prefix: Annotated[str, typer.Option(help="Before the name of each variable.")] = "",
    strip_namespace: Annotated[
        bool, typer.Option("--strip-namespace", help="KEY instead of NAMESPACE__KEY.")
    ] = False,
    skip_invalid: Annotated[
        bool,
        typer.Option("--skip-invalid", help="Leave out what cannot, or must not, be a variable."),
    ] = False,
) -> None:
    """Run a program with the secrets as environment variables.

    They come straight from the source that CLEF_AGENT_SOURCE or CLEF_AGENT_VCS_* name, else from
    the running agent.
    """
    from clef_agent.cli.child import CommandUnusable
    from clef_agent.cli.run import leave
    from clef_agent.cli.variables import Naming
    from clef_agent.hardening import forbid_dumps
    from clef_agent.log import configure as configure_log

    on_change = _on_change(watch)
    naming = Naming(tuple(only or ()), prefix, strip_namespace, skip_invalid)
    forbid_dumps()
    # Standard output is the program's: what the agent has to say is worth a warning, or nothing.
    configure_log(level="warn")
    try:
        if on_change is None and os.getpid() != 1:
            _become(command, naming)
        leave(asyncio.run(_supervise(command, naming, on_change)))
    except CommandUnusable as exc:
        report(exc)
        leave(exc.exit_code)


def _on_change(watch: str | None) -> str | signal.Signals | None:
    """What a change does: restart, a signal, or nothing."""
    if watch is None or watch == _RESTART:
        return watch
    kind, _, name = watch.partition("=")
    number = signal.Signals.__members__.get(f"SIG{name.upper().removeprefix('SIG')}")
    if kind != "signal" or number is None:
        raise typer.BadParameter("it is restart, or signal=NAME as in signal=HUP")
    return number


def _become(command: list[str], naming: Naming) -> None:
    """Fetches the secrets, and makes this process the program."""
    from clef_agent.cli.child import become
    from clef_agent.cli.supply import supply_for

    async def supplied() -> Supplied:
        supply = supply_for(os.environ)
        try:
            return await supply.first()
        finally:
            await supply.aclose()

    become(command, _environment(asyncio.run(supplied()), naming))


async def _supervise(
    command: list[str], naming: Naming, on_change: str | signal.Signals | None
) -> int:
    """Runs the program, follows changes, and returns its exit code."""
    from clef_agent.cli.child import Child
    from clef_agent.cli.supply import supply_for

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
    on_change: str | signal.Signals,
) -> None:
    from clef_agent.log import LOGGER

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
    from clef_agent.cli.child import environment_for
    from clef_agent.cli.variables import variables_of
    from clef_agent.log import LOGGER

    variables = variables_of(supplied.payload, naming)
    for sentence in variables.skipped:
        LOGGER.warning("%s", sentence)
    return environment_for(variables.values, os.environ)
