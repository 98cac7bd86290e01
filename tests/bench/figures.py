"""A measured value beside what it must reach, and the table of all of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal, TypeAlias

Verdict: TypeAlias = Literal["ok", "NOT", "-", "not measured"]


@dataclass(frozen=True, slots=True)
class Bound:
    """The floor of a figure: ``limit`` in the figure's unit, and on which side of it is fine."""

    side: Literal["at least", "at most"]
    limit: float

    def holds(self, value: float) -> bool:
        """Whether ``value`` is on the right side, the limit itself included."""
        return value >= self.limit if self.side == "at least" else value <= self.limit


@dataclass(frozen=True, slots=True)
class Figure:
    """One line of the table.

    ``value`` is None where it could not be measured; ``note`` then says why, and otherwise what
    the value came from. ``bound`` is None for what is only told.
    """

    name: str
    value: float | None
    unit: str
    bound: Bound | None = None
    note: str = ""

    @property
    def verdict(self) -> Verdict:
        """Whether the value keeps its bound."""
        if self.value is None:
            return "not measured"
        if self.bound is None:
            return "-"
        return "ok" if self.bound.holds(self.value) else "NOT"

    def as_json(self) -> dict[str, Any]:
        """The figure for machines."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "floor": None if self.bound is None else f"{self.bound.side} {self.bound.limit:g}",
            "verdict": self.verdict,
            "note": self.note,
        }


@dataclass(frozen=True, slots=True)
class Comparison:
    """One line of the table of servers: what each of them took or gave, round by round.

    ``values`` has no entry for who was not there, or has no such thing.
    """

    name: str
    unit: str
    values: Mapping[str, Sequence[float]]

    def median(self, server: str) -> float | None:
        """The median over the rounds, if ``server`` was measured."""
        return median(values) if (values := self.values.get(server)) else None

    def ratio(self, server: str, to: str) -> float | None:
        """The median of the rounds' ratios: each was measured beside its like."""
        ours, theirs = self.values.get(server), self.values.get(to)
        if not ours or not theirs:
            return None
        return median(one / other for one, other in zip(ours, theirs, strict=True))

    def told(self, server: str) -> str:
        """The median with its unit."""
        value = self.median(server)
        return "-" if value is None else f"{_digits(value)} {self.unit}"

    def as_json(self) -> dict[str, Any]:
        """The medians for machines."""
        medians = {server: self.median(server) for server in self.values}
        return {"name": self.name, "unit": self.unit, "medians": medians}


def comparison_table(comparisons: Sequence[Comparison]) -> str:
    """A table in Markdown: a line for each comparison, a column for each server."""
    servers = list(dict.fromkeys(name for one in comparisons for name in one.values))
    rows = [
        ["", *servers],
        ["---", *("---:" for _ in servers)],
        *([one.name, *(one.told(server) for server in servers)] for one in comparisons),
    ]
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


_HEAD = ("figure", "value", "floor", "", "from")


def table(figures: Sequence[Figure]) -> str:
    """All figures, one a line, in columns."""
    rows = [_HEAD, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(_HEAD))]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    lines.insert(1, "-" * (sum(widths[:-1]) + 2 * len(widths)))
    return "\n".join(lines)


def _row(figure: Figure) -> tuple[str, ...]:
    value = "" if figure.value is None else f"{_digits(figure.value)} {figure.unit}".strip()
    bound = "" if figure.bound is None else f"{figure.bound.side} {figure.bound.limit:g}"
    return (figure.name, value, bound, figure.verdict, figure.note)


def _digits(value: float) -> str:
    """Three digits that count, and no exponent."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if value >= 10 else f"{value:.2f}"
