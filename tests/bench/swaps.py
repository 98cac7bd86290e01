"""How long the event loop stands still when a new artifact takes the old one's place."""

from __future__ import annotations

import json
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench import wrk
from bench.figures import Bound, Figure
from bench.processes import (
    PATIENCE_S,
    MeasurementFailed,
    agent_env,
    free_port,
    program_command,
    running,
)
from bench.workload import KeyPair, Shape, sized

_SWAPS: Final = 9
_CONNECTIONS: Final = 4
#: One lookup by name: the request whose first one after a swap has the most to do.
_PATH: Final = "/v1/secrets/KEY_000001"
_LONGEST_S: Final = 120


@dataclass(frozen=True, slots=True)
class Case:
    """One size, in units of 1,000,000 bytes of payload, and shape, and the stall allowed in ms."""

    megabytes: int
    shape: Shape
    limit_ms: float


_CASES: Final = (
    Case(1, "many keys", 20),
    Case(1, "large values", 20),
    Case(10, "many keys", 100),
    Case(10, "large values", 100),
)


def measure(directory: Path) -> list[Figure]:
    """Each case, under requests that come as fast as they are answered."""
    keys = KeyPair.generate(directory)
    return [_measure(case, keys, directory) for case in _CASES]


def _measure(case: Case, keys: KeyPair, directory: Path) -> Figure:
    artifacts = [directory / "first.json", directory / "second.json"]
    for seed, artifact in enumerate(artifacts):
        artifact.write_bytes(keys.pack(sized(case.megabytes, case.shape, seed=seed)))
    port = free_port()
    command = program_command("swapping_agent", *map(str, artifacts), str(_SWAPS))
    env = agent_env(port, directory / "served.json", keys.file)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    asking = wrk.command(port, _PATH, connections=_CONNECTIONS, duration_s=_LONGEST_S)
    with running(command, env, **pipes) as agent:
        assert agent.stdin is not None
        assert agent.stdout is not None
        if agent.stdout.readline() != b"ready\n":
            raise MeasurementFailed("the swapping agent did not start")
        with running(asking, stdout=subprocess.PIPE) as asker:
            agent.stdin.write(b"\n")
            agent.stdin.flush()
            line = agent.stdout.readline()
            asker.send_signal(signal.SIGINT)  # it reports what it saw so far
            report, _ = asker.communicate(timeout=PATIENCE_S)
    if not line:
        raise MeasurementFailed("the swapping agent ended before its time")
    return _figure(case, json.loads(line), wrk.read_report(report))


def _figure(case: Case, swaps: list[dict[str, float]], load: wrk.Load) -> Figure:
    stalls_ms = [swap["stall_s"] * 1000 for swap in swaps]
    quiet_ms = median(swap["quiet_s"] for swap in swaps) * 1000
    swap_ms = median(swap["swap_s"] for swap in swaps) * 1000
    return Figure(
        f"stall of a swap, {case.megabytes} MB, {case.shape}",
        median(stalls_ms),
        "ms",
        Bound("at most", case.limit_ms),
        f"median of {len(swaps)}, worst {max(stalls_ms):.1f}; without a swap {quiet_ms:.1f};"
        f" a swap takes {swap_ms:.0f} ms; wrk p99.9 {load.p999_us / 1000:.1f} ms",
    )
