"""The comparison as a picture: a panel of bars for each of a few figures, light and dark."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final
from xml.sax.saxutils import escape

from bench.figures import Comparison

#: The figures that are drawn, as far as they were measured, and what is better.
_DRAWN: Final = {
    "start to ready, file source": "less is better",
    "PSS after that load, all processes": "less is better",
    "GET /v1/secrets": "more is better",  # pragma: allowlist secret
    "GET /v1/secrets, just in time (age)": "more is better",
}
_WIDTH, _LEFT, _RIGHT, _ROW, _BAR, _HEAD, _GAP = 720, 110, 110, 24, 16, 34, 18
_STYLE: Final = """
  text { font: 13px system-ui, sans-serif; fill: #1f2328 }
  .name { font-weight: 600 } .better { fill: #59636e }
  .bar { fill: #8fa1b3 } .ours { fill: #1a7f64 }
  @media (prefers-color-scheme: dark) {
    text { fill: #e6edf3 } .better { fill: #9aa4ae } .bar { fill: #5b6a78 } .ours { fill: #3fb68b }
  }
"""
_LIMITS: Final = frozenset(("bare ASGI", "nginx", "reference"))


def draw(comparisons: Sequence[Comparison]) -> str:
    """An SVG document. What is ours has another colour than what it is measured beside."""
    parts: list[str] = []
    top = _GAP
    for one in comparisons:
        if one.name in _DRAWN:
            parts += _panel(one, top)
            top += _HEAD + len(one.values) * _ROW + _GAP
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {top}" role="img">',
            "<title>clef-agent, measured</title>",
            f"<style>{_STYLE}</style>",
            *parts,
            "</svg>\n",
        ]
    )


def _panel(one: Comparison, top: int) -> list[str]:
    medians = {name: value for name in one.values if (value := one.median(name)) is not None}
    longest = max(medians.values(), default=1)
    better = f'<tspan class="better" font-weight="400">{_DRAWN[one.name]}</tspan>'
    lines = [f'<text class="name" x="0" y="{top + 14}">{escape(one.name)}: {better}</text>']
    for row, (name, value) in enumerate(medians.items()):
        y = top + _HEAD + row * _ROW
        width = max(2, (_WIDTH - _LEFT - _RIGHT) * value / longest)
        kind = "bar" if name in _LIMITS else "ours"
        lines += [
            f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">{escape(name)}</text>',
            f'<rect class="{kind}" x="{_LEFT}" y="{y}" width="{width:.1f}" height="{_BAR}"/>',
            f'<text x="{_LEFT + width + 8:.1f}" y="{y + 12}">{one.told(name)}</text>',
        ]
    return lines
