"""``python -m bench``: measures, prints one table, and exits 1 unless every floor is kept."""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from bench import (
    aws,
    chart,
    comparison,
    extension,
    just_in_time,
    start,
    swaps,
    telemetry,
    wrk,
)
from bench.figures import Comparison, Figure, comparison_table, table
from bench.processes import MeasurementFailed

#: What is measured for each server beside the others; its ratios are figures, too.
_COMPARISON: Final = "compare"
_PARTS: Final[Mapping[str, Callable[[Path], list[Figure]]]] = {
    "start": start.measure,
    "lambda": extension.measure,
    "just-in-time": just_in_time.measure,
    "swaps": swaps.measure,
    "aws": aws.measure,
    "telemetry": telemetry.measure,
}
_NEED_WRK: Final = frozenset((_COMPARISON, "just-in-time", "swaps"))


def main() -> int:
    """Returns the exit code."""
    options = _options()
    parts: Sequence[str] = options.parts or [_COMPARISON, *_PARTS]
    if _NEED_WRK.intersection(parts) and not wrk.is_installed():
        sys.stderr.write(f"{wrk.HOW_TO_INSTALL}\n")
        return 1
    figures: list[Figure] = []
    comparisons: list[Comparison] = []
    failed = False
    for name in parts:
        try:
            found, compared = _measure(name)
        except MeasurementFailed as exc:
            failed = True
            sys.stderr.write(f"failed: {exc}\n")
            continue
        figures += found
        comparisons += compared
    if comparisons:
        sys.stdout.write(f"\n{comparison_table(comparisons)}\n")
    sys.stdout.write(f"\n{table(figures)}\n")
    if options.json is not None:
        options.json.write_text(json.dumps(_report(figures, comparisons), indent=2) + "\n")
    if options.chart is not None:
        options.chart.write_text(chart.draw(comparisons))
    return 1 if failed or any(figure.verdict == "NOT" for figure in figures) else 0


def _options() -> argparse.Namespace:
    known = [_COMPARISON, *_PARTS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(known)}; or all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    parser.add_argument("--chart", type=Path, metavar="FILE", help="draw it there (SVG)")
    options = parser.parse_args()
    unknown = set(options.parts) - set(known)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def _measure(name: str) -> tuple[list[Figure], list[Comparison]]:
    sys.stderr.write(f"{name} ... ")
    sys.stderr.flush()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clef-bench-") as directory:
        if name == _COMPARISON:
            found = comparison.measure(Path(directory))
        else:
            found = _PARTS[name](Path(directory)), []
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    return found


def _report(figures: Sequence[Figure], comparisons: Sequence[Comparison]) -> dict[str, object]:
    machine = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    return {
        "machine": machine,
        "comparisons": [one.as_json() for one in comparisons],
        "figures": [figure.as_json() for figure in figures],
    }


if __name__ == "__main__":
    sys.exit(main())
