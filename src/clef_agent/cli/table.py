"""Rows of facts: a table for a terminal, plain lines for everything else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import typer

from clef_agent.cli.failure import printable

Mood: TypeAlias = Literal["plain", "good", "bad", "open"]

_COLOURS: dict[Mood, str] = {"plain": "", "good": "green", "bad": "bold red", "open": "yellow"}
_MARKS: dict[Mood, str] = {"plain": "", "good": "✓", "bad": "✗", "open": "○"}


@dataclass(frozen=True, slots=True)
class Row:
    """One fact, or with a ``verdict`` one finding, for which the table has a mark."""

    label: str
    text: str
    mood: Mood = "plain"
    verdict: str = ""


def show(title: str, rows: Sequence[Row]) -> None:
    """Prints ``rows`` on standard output; what comes from an artifact cannot steer a terminal."""
    if sys.stdout.isatty():
        _show_table(title, rows)
        return
    for row in rows:
        verdict = f"{row.verdict} - " if row.verdict else ""
        typer.echo(f"{row.label}: {verdict}{printable(row.text)}")


def _show_table(title: str, rows: Sequence[Row]) -> None:
    from rich.console import Console
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=(0, 2, 0, 0))
    with_marks = any(row.verdict for row in rows)
    if with_marks:
        table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        label = Text(row.label, style="" if with_marks and row.mood != "open" else "dim")
        text = Text(printable(row.text), style=_text_style(row))
        mark = [Text(_MARKS[row.mood], style=_COLOURS[row.mood])] if with_marks else []
        table.add_row(*mark, label, text)
    console = Console(highlight=False)
    console.print()
    console.print(Padding(Text(printable(title), style="bold"), (0, 2)))
    console.print()
    console.print(Padding(table, (0, 2)))
    console.print()


def _text_style(row: Row) -> str:
    if row.mood == "open":
        return "dim"
    # Beside a green mark, plain text is easier to read.
    return "" if row.mood == "good" and row.verdict else _COLOURS[row.mood]
