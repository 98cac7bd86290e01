"""``python -m fuzz --inputs N``: feeds every target, prints the counts, exits 1 on a finding."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fuzz import requests
from fuzz.targets import TARGETS

_FINDINGS: Final = Path(".cache/fuzz")
_REQUESTS: Final = "requests"


@dataclass(frozen=True)
class Fed:
    """What came of one target's inputs."""

    name: str
    outcomes: Mapping[str, int]
    took_s: float
    slowest_s: float | None = None
    finding: str | None = None

    @property
    def inputs(self) -> int:
        """How many it was fed with."""
        return sum(self.outcomes.values())


def main() -> int:
    """Returns the exit code."""
    options = _options()
    names: list[str] = options.targets or [*TARGETS, _REQUESTS]
    shares = sum(TARGETS[name].share for name in names if name in TARGETS) or 1.0
    fed: list[Fed] = []
    with tempfile.TemporaryDirectory(prefix="clef-fuzz-") as directory:
        for name in names:
            if name == _REQUESTS:
                fed.append(_ask(Path(directory), options.inputs // 200))
            else:
                inputs = -(-options.inputs * TARGETS[name].share // shares)
                fed.append(_mutate(name, int(inputs), Path(directory)))
            sys.stdout.write(f"{_line(fed[-1])}\n")
            sys.stdout.flush()
    findings = [target for target in fed if target.finding is not None]
    total = sum(target.inputs for target in fed)
    sys.stdout.write(f"\n{total:,} inputs to {len(fed)} targets, {len(findings)} findings\n")
    for target in findings:
        sys.stdout.write(f"\n--- {target.name}\n{target.finding}\n")
    return 1 if findings else 0


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__)
    names = [*TARGETS, _REQUESTS]
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(names)}")
    parser.add_argument("--inputs", type=int, default=1_000_000, help="to all targets together")
    options = parser.parse_args()
    if unknown := set(options.targets) - set(names):
        parser.error(f"no such target: {', '.join(sorted(unknown))}")
    return options


def _mutate(name: str, inputs: int, directory: Path) -> Fed:
    began = time.monotonic()
    done = subprocess.run(
        [sys.executable, "-m", "fuzz.mutation", name, str(inputs), str(directory)],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
    )
    took_s = time.monotonic() - began
    report = directory / f"{name}.json"
    if report.exists() and done.returncode == 0:
        found = json.loads(report.read_text())
        return Fed(name, found["outcomes"], took_s, found["slowest_s"])
    kept = ", ".join(_kept(directory.glob(f"{name}.finding-*")))
    return Fed(name, {}, took_s, finding=f"{done.stdout}{done.stderr}\nkept: {kept}")


def _kept(findings: Iterator[Path]) -> Iterator[str]:
    _FINDINGS.mkdir(parents=True, exist_ok=True)
    for finding in findings:
        target = _FINDINGS / finding.name
        target.write_bytes(finding.read_bytes())
        yield str(target)


def _ask(directory: Path, cases: int) -> Fed:
    began = time.monotonic()
    asked = requests.ask(directory, cases)
    took_s = time.monotonic() - began
    finding = asked.output if asked.failed else None
    return Fed(_REQUESTS, asked.outcomes, took_s, finding=finding)


def _line(fed: Fed) -> str:
    slowest = "" if fed.slowest_s is None else f", slowest {1000 * fed.slowest_s:.0f} ms"
    outcomes = ", ".join(f"{word} {n:,}" for word, n in sorted(fed.outcomes.items()))
    verdict = "" if fed.finding is None else "FINDING "
    return f"{fed.name:10}{fed.inputs:>10,} in {fed.took_s:.0f} s{slowest}: {verdict}{outcomes}"


if __name__ == "__main__":
    sys.exit(main())
