"""Just-in-time mode beside a bare loop that decrypts and parses the same artifact."""

from __future__ import annotations

import subprocess
from pathlib import Path
from statistics import median
from typing import Final

from bench import wrk
from bench.figures import Bound, Figure
from bench.processes import (
    PATIENCE_S,
    agent_command,
    agent_env,
    free_port,
    program_command,
    running,
    wait_until_ready,
)
from bench.workload import KeyPair, fifty_keys

_ROUNDS: Final = 9
_ROUND_S: Final = 1
_CONNECTIONS: Final = 16


def measure(directory: Path) -> list[Figure]:
    """Requests a second, as a share of how often the loop can decrypt."""
    keys = KeyPair.generate(directory)
    artifact = directory / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    port = free_port()
    loop = program_command("decrypt_loop", str(artifact), str(keys.file), str(_ROUND_S))
    env = agent_env(port, artifact, keys.file, CLEF_AGENT_CACHE_TTL="0")
    loads: list[wrk.Load] = []
    decrypts_per_s: list[float] = []
    with running(agent_command(), env) as agent:
        wait_until_ready(agent, port)
        for _ in range(_ROUNDS):
            load = wrk.run(port, "/v1/secrets", connections=_CONNECTIONS, duration_s=_ROUND_S)
            loads.append(load)
            done = subprocess.run(loop, stdout=subprocess.PIPE, check=True, timeout=PATIENCE_S)
            decrypts_per_s.append(float(done.stdout))
    ratios = [load.per_s / bare for load, bare in zip(loads, decrypts_per_s, strict=True)]
    return [
        Figure(
            "just-in-time, of a bare decrypt loop",
            median(ratios),
            "x",
            Bound("at least", 0.65),
            f"median of {_ROUNDS} pairs; {median(load.per_s for load in loads):,.0f}/s"
            f" (p99 {median(load.p99_us for load in loads) / 1000:.2f} ms)"
            f" beside {median(decrypts_per_s):,.0f}/s",
        )
    ]
