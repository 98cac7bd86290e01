"""``python -m fuzz.mutation TARGET INPUTS DIRECTORY``: one target, by libFuzzer.

A process of its own, because libFuzzer ends it: at the last input, or at the first finding.
"""

from __future__ import annotations

import hashlib
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["clef_agent"]):
    from fuzz.targets import FOUND, TARGETS

#: Processor time that one input may take, in seconds.
_MAX_S: Final = 1.0
#: An input that waits for something else than the processor ends the run, in seconds.
_MAX_WAIT_S: Final = 20


class TookTooLong(Exception):
    """An input held the processor for longer than any may."""


class Feeding:
    """Counts what came of each input, and writes it down after the last."""

    def __init__(self, name: str, inputs: int, directory: Path) -> None:
        self._target = TARGETS[name]
        self._inputs = inputs
        self._report = directory / f"{name}.json"
        self._outcomes: Counter[str] = Counter()
        self._slowest_s = 0.0

    def __call__(self, data: bytes) -> None:
        """One input."""
        began = time.process_time()
        outcome = self._target.feed(data)
        took_s = time.process_time() - began
        self._slowest_s = max(self._slowest_s, took_s)
        if took_s > _MAX_S:
            raise TookTooLong(f"{took_s:.1f} s")
        self._outcomes[outcome] += 1
        if self._outcomes.total() >= self._inputs:
            report = {"outcomes": self._outcomes, "slowest_s": self._slowest_s}
            self._report.write_text(json.dumps(report))


def main() -> None:
    """Does not return."""
    name, inputs, directory = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
    corpus = directory / f"{name}.corpus"
    corpus.mkdir()
    found = [path.read_bytes() for path in sorted((FOUND / name).glob("*"))]
    for seed in [*TARGETS[name].seeds(), *found]:
        (corpus / hashlib.sha256(seed).hexdigest()).write_bytes(seed)
    options = [
        f"-runs={inputs}",
        f"-max_len={TARGETS[name].max_bytes}",
        f"-timeout={_MAX_WAIT_S}",
        f"-artifact_prefix={directory}/{name}.finding-",
        "-rss_limit_mb=2048",
        "-verbosity=0",
    ]
    atheris.Setup([sys.argv[0], *options, str(corpus)], Feeding(name, inputs, directory))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
