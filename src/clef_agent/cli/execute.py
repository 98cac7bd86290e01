"""``clef-agent exec``: runs a program with the secrets as its environment variables."""

from __future__ import annotations

import os
import signal
from typing import Annotated, Final, Literal

import typer

from clef_agent.cli.failure import report

_RESTART: Final = "restart"


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

    From the source that CLEF_AGENT_SOURCE or _VCS_* name, else from the agent.
    """
    from clef_agent.cli.child import CommandUnusable, is_first_process, undo_locale_coercion
    from clef_agent.cli.program import run_instead, run_under
    from clef_agent.cli.run import leave
    from clef_agent.cli.variables import Naming
    from clef_agent.hardening import forbid_dumps
    from clef_agent.log import configure as configure_log

    on_change = _on_change(watch)
    naming = Naming(tuple(only or ()), prefix, strip_namespace, skip_invalid)
    undo_locale_coercion()
    forbid_dumps()
    # Standard output is the program's: what the agent has to say is worth a warning, or nothing.
    is_json = os.environ.get("CLEF_AGENT_LOG_FORMAT", "").lower() == "json"
    configure_log("json" if is_json else "text", level="warn")
    try:
        if on_change is None and not is_first_process():
            run_instead(command, naming)
        leave(run_under(command, naming, on_change))
    except CommandUnusable as exc:
        report(exc)
        leave(exc.exit_code)


def _on_change(watch: str | None) -> Literal["restart"] | signal.Signals | None:
    """What a change does: restart, a signal, or nothing."""
    if watch is None:
        return None
    if watch == _RESTART:
        return _RESTART
    kind, _, name = watch.partition("=")
    number = signal.Signals.__members__.get(f"SIG{name.upper().removeprefix('SIG')}")
    if kind != "signal" or number is None:
        raise typer.BadParameter("it is restart, or signal=NAME as in signal=HUP")
    return number
