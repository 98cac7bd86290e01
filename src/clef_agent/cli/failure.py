"""How a failure reaches a person: one line that says what is wrong, one that says what to do."""

from __future__ import annotations

import errno
import os
import sys

from clef_agent.errors import ClefError

#: The exit code of a failure; wrong usage is 2, and comes from click.
FAILED = 1
#: What writing to standard output fails with; files of their own have their own failures.
_UNWRITTEN = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})


class Failure(Exception):
    """What a command could not do, and ``hint``, what the person may do about it."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.hint = hint
        super().__init__(message)


def report(failure: Failure | ClefError) -> None:
    """Writes ``failure`` to standard error: ``[clef-agent] ...``, and a hint if it has one."""
    import typer  # a probe that succeeds does without

    prefix = typer.style("[clef-agent]", fg=typer.colors.RED, bold=True)
    typer.echo(f"{prefix} {printable(str(failure))}", err=True)
    if failure.hint:
        label = typer.style("hint:", bold=True)
        typer.echo(f"{typer.style('[clef-agent]', dim=True)} {label} {failure.hint}", err=True)


def unwritten(exc: OSError) -> Failure | None:
    """What it means that standard output did not take what was written; None where it means
    something else, or that the reader has gone, which is no failure to talk about.

    What is left to be written is given up: Python would try it again at its end, and complain.
    """
    sys.stdout = open(os.devnull, "w")  # noqa: PTH123, SIM115  # for the little while that is left
    if exc.errno in _UNWRITTEN:
        return Failure(f"standard output cannot be written: {exc.strerror}")
    return None


def printable(text: str) -> str:
    """``text`` on one line, with what could steer a terminal shown as an escape.

    Artifacts and answers come from elsewhere: a name in them must not move the cursor or forge
    a line.
    """
    if text.isprintable():
        return text
    return "".join(
        char if char.isprintable() else char.encode("unicode_escape", "backslashreplace").decode()
        for char in text
    )
