"""The Typer application: every command, and the one place where a failure becomes an exit code.

Failures are raised as :class:`~clef_agent.cli.failure.Failure` or as an error of
:mod:`clef_agent.errors`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from clef_agent import __version__
from clef_agent.cli import artifacts, client, execute
from clef_agent.cli.failure import FAILED, Failure, report, unwritten
from clef_agent.errors import ClefError

if TYPE_CHECKING:
    import click


class _ReportingGroup(TyperGroup):
    """Every failure that has a name ends as one line, a hint, and exit code 1."""

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except (Failure, ClefError) as failure:
            report(failure)
            raise typer.Exit(FAILED) from None

    def main(self, *args: Any, **kwargs: Any) -> Any:
        try:
            return super().main(*args, **kwargs)
        except OSError as exc:  # a reader that has gone is the library's: it ends silently
            if (failure := unwritten(exc)) is None:
                raise
            report(failure)
            sys.exit(FAILED)


app = typer.Typer(
    cls=_ReportingGroup,
    add_completion=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    # A traceback with local variables would print secrets.
    pretty_exceptions_enable=False,
)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"clef-agent {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def run(
    ctx: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback has answered already
        bool,
        typer.Option(
            "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
        ),
    ] = False,
    extension_name: Annotated[
        str | None,
        typer.Option(
            metavar="NAME", help="In Lambda: the name of the file in /opt/extensions that ran this."
        ),
    ] = None,
) -> None:
    """Serve the secrets of one encrypted artifact to the application beside it.

    Without a command, run the agent as the CLEF_AGENT_* variables say.
    """
    if ctx.invoked_subcommand is None:
        from clef_agent.cli.run import leave, run_agent

        leave(run_agent(extension_name))


@app.command(rich_help_panel="Run")
def dev(
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A .env or .json file; without it, a sample."),
    ] = None,
) -> None:
    """Serve a .env or .json file, encrypted with a throw-away key, and follow its edits."""
    from clef_agent.cli.dev import dev as serve

    serve(file)


app.command("exec", rich_help_panel="Run", context_settings={"allow_interspersed_args": False})(
    execute.execute
)

_COMMANDS: dict[str, tuple[Callable[..., None], ...]] = {
    "Ask the running agent": (
        client.get,
        client.keys,
        client.secrets,
        client.health,
        client.ready,
    ),
    "Make and examine artifacts": (
        artifacts.pack,
        artifacts.inspect,
        artifacts.verify,
        artifacts.revoke,
        artifacts.keygen,
    ),
}
for _panel, _commands in _COMMANDS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel)(_command)
