"""From starting the agent in Lambda to its first wait for an event, beside a daemon's start."""

from __future__ import annotations

import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Bound, Figure
from bench.processes import (
    PATIENCE_S,
    MeasurementFailed,
    agent_command,
    agent_env,
    free_port,
    running,
)
from bench.start import start_s
from bench.workload import KeyPair, fifty_keys
from extensions_api import Sandbox, serving

_ROUNDS: Final = 11


def measure(directory: Path) -> list[Figure]:
    """Both starts, with a file source, in turns."""
    keys = KeyPair.generate(directory)
    artifact = directory / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    # The first round leaves bytecode and file caches warm, and does not count.
    rounds = [(_until_idle_s(artifact, keys), start_s(artifact, keys)) for _ in range(1 + _ROUNDS)]
    extensions, daemons = (median(times) for times in zip(*rounds[1:], strict=True))
    return [
        Figure(
            "start in Lambda to event/next, of a daemon's",
            extensions / daemons,
            "x",
            Bound("at most", 1.3),
            f"{extensions * 1000:.0f} ms beside {daemons * 1000:.0f} ms, medians of {_ROUNDS}",
        )
    ]


def _until_idle_s(artifact: Path, keys: KeyPair) -> float:
    with serving(Sandbox()) as sandbox:
        env = agent_env(free_port(), artifact, keys.file, **sandbox.environment)
        started = time.monotonic()
        with running(agent_command(), env) as agent:
            while not sandbox.of("GET /event/next"):
                if agent.poll() is not None or time.monotonic() - started > PATIENCE_S:
                    raise MeasurementFailed("it did not come to ask for an event")
                time.sleep(0.001)
        return sandbox.of("GET /event/next")[0].at - started
