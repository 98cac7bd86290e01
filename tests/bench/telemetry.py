"""What telemetry adds: nothing to the start, and the SDK to the memory."""

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
    pss_mb,
    running,
    wait_until_ready,
)
from bench.start import start_s
from bench.workload import KeyPair, fifty_keys
from otlp_collector import Collector, collecting

_ROUNDS: Final = 11
_URL: Final = "CLEF_AGENT_TELEMETRY_URL"


def measure(directory: Path) -> list[Figure]:
    """The start with and without, in turns, and the memory when the first events have been sent."""
    keys = KeyPair.generate(directory)
    artifact = directory / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    with collecting(Collector()) as collector:
        telemetry = {_URL: collector.origin}
        # The first round leaves bytecode and file caches warm, and does not count.
        rounds = [
            (start_s(artifact, keys, **telemetry), start_s(artifact, keys))
            for _ in range(1 + _ROUNDS)
        ][1:]
        pss_mb = _pss_mb(artifact, keys, collector)
    told, silent = (median(times) for times in zip(*rounds, strict=True))
    return [
        Figure(
            "start to ready with telemetry, of that without",
            median(with_it / without for with_it, without in rounds),
            "x",
            Bound("at most", 1.2),
            f"{told * 1000:.0f} ms beside {silent * 1000:.0f} ms, medians of {_ROUNDS}",
        ),
        Figure("PSS with telemetry", pss_mb, "MB", Bound("at most", 50), "two events sent"),
    ]


def _pss_mb(artifact: Path, keys: KeyPair, collector: Collector) -> float:
    port = free_port()
    env = agent_env(port, artifact, keys.file, **{_URL: collector.origin})
    collector.posts.clear()
    with running(agent_command(), env) as agent:
        wait_until_ready(agent, port)
        deadline = time.monotonic() + PATIENCE_S
        while not collector.posts:
            if time.monotonic() > deadline:
                raise MeasurementFailed("no event was sent")
            time.sleep(0.01)
        return pss_mb(agent.pid)
