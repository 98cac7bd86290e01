"""Rows of facts: a table for a terminal, plain lines for everything else."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import typer

from clef_agent.cli.failure import printable

Mood: TypeAlias = Literal["plain", "good", "bad", "open"]

_STYLES: dict[Mood, str] = {"plain": "", "good": "green", "bad": "bold red", "open": "yellow"}
_MARKS: dict[Mood, str] = {"plain": "", "good": "✓", "bad": "✗", "open": "○"}


@dataclass(frozen=True, slots=True)
class Row:
    """One fact. ``verdict`` is a word where the table only has a mark and a colour."""

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
    with_marks = any(row.mood != "plain" for row in rows)
    if with_marks:
        table.add_column(width=1)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for row in rows:
        style = _STYLES[row.mood]
        cells = [
            Text(row.label, style="dim" if row.mood in ("plain", "open") else ""),
            Text(printable(row.text), style=style if row.mood in ("bad", "open") else ""),
        ]
        table.add_row(*([Text(_MARKS[row.mood], style=style)] if with_marks else []), *cells)
    console = Console(highlight=False)
    console.print()
    console.print(Padding(Text(printable(title), style="bold"), (0, 2)))
    console.print()
    console.print(Padding(table, (0, 2)))
    console.print()
