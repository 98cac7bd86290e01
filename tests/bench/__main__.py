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
    extension,
    idle,
    just_in_time,
    start,
    swaps,
    telemetry,
    throughput,
    wrk,
)
from bench.figures import Figure, table
from bench.processes import MeasurementFailed

_PARTS: Final[Mapping[str, Callable[[Path], list[Figure]]]] = {
    "start": start.measure,
    "lambda": extension.measure,
    "throughput": throughput.measure,
    "just-in-time": just_in_time.measure,
    "swaps": swaps.measure,
    "idle": idle.measure,
    "aws": aws.measure,
    "telemetry": telemetry.measure,
}
_NEED_WRK: Final = frozenset(("throughput", "just-in-time", "swaps"))


def main() -> int:
    """Returns the exit code."""
    options = _options()
    parts: Sequence[str] = options.parts or list(_PARTS)
    if _NEED_WRK.intersection(parts) and not wrk.is_installed():
        sys.stderr.write(f"{wrk.HOW_TO_INSTALL}\n")
        return 1
    figures: list[Figure] = []
    failed = False
    for name in parts:
        try:
            figures += _measure(name)
        except MeasurementFailed as exc:
            failed = True
            sys.stderr.write(f"failed: {exc}\n")
    sys.stdout.write(f"\n{table(figures)}\n")
    if options.json is not None:
        options.json.write_text(json.dumps(_report(figures), indent=2) + "\n")
    return 1 if failed or any(figure.verdict == "NOT" for figure in figures) else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"of {', '.join(_PARTS)}; or all")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures there, too")
    options = parser.parse_args()
    unknown = set(options.parts) - set(_PARTS)
    if unknown:
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    return options


def _measure(name: str) -> list[Figure]:
    sys.stderr.write(f"{name} ... ")
    sys.stderr.flush()
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="clef-bench-") as directory:
        figures = _PARTS[name](Path(directory))
    sys.stderr.write(f"{time.monotonic() - began:.0f} s\n")
    return figures


def _report(figures: Sequence[Figure]) -> dict[str, object]:
    machine = {
        "system": platform.platform(),
        "python": platform.python_version(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0],
    }
    return {"machine": machine, "figures": [figure.as_json() for figure in figures]}


if __name__ == "__main__":
    sys.exit(main())
