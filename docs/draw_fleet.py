"""Draws how a fleet of agents spreads its polls: ``nox -s docs`` writes ``docs/fleet.svg``."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import matplotlib as mpl
import matplotlib.pyplot as plt

from fleet import AGENTS, INTERVALS, after_first_interval, requests_per_second

# Legible on a light page and on a dark one.
_INK, _BARS, _LIMIT = "#7d8590", "#2f81f7", "#db6d28"


def draw(target: Path) -> None:
    """Writes the plot as SVG, the same bytes each time."""
    mpl.rcParams.update(
        {
            "svg.hashsalt": "clef-agent",
            "svg.fonttype": "none",
            "text.color": _INK,
            "axes.labelcolor": _INK,
            "axes.edgecolor": _INK,
            "xtick.color": _INK,
            "ytick.color": _INK,
            "font.size": 9,
        }
    )
    seen = requests_per_second()
    later = after_first_interval(seen)
    figure, axes = plt.subplots(figsize=(7.2, 2.4), layout="constrained")
    axes.bar(range(1, len(seen)), seen[1:], width=1.0, color=_BARS)
    axes.axhline(mean(later), color=_INK, linewidth=1)
    axes.axhline(2 * mean(later), color=_LIMIT, linewidth=1, linestyle="--")
    end = len(seen)
    axes.text(end, mean(later), " mean", va="center")
    axes.text(end, 2 * mean(later), " limit", va="center", color=_LIMIT)
    axes.axvline(len(seen) / INTERVALS, color=_INK, linewidth=0.8, linestyle=":")
    axes.set(
        xlim=(0, end),
        ylim=(0, 2.4 * mean(later)),
        xlabel="seconds since the fleet was started (the loads in the first one are left out)",
        ylabel="requests",
        title=f"{AGENTS:,} agents, one source, TTL 300 s",
    )
    axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(target, transparent=True, metadata={"Date": None})


if __name__ == "__main__":
    draw(Path(__file__).with_name("fleet.svg"))
