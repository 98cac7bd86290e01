"""What an agent costs that nobody asks."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from bench.figures import Figure
from bench.processes import agent_command, agent_env, cpu_s, free_port, running, wait_until_ready
from bench.workload import KeyPair, fifty_keys

#: Until a new file's times have settled, and it is told apart by them alone.
_SETTLE_S: Final = 4
_IDLE_S: Final = 20
_HOUR_S: Final = 3600


def measure(directory: Path) -> list[Figure]:
    """CPU seconds an hour with a file source, which is looked at each second."""
    keys = KeyPair.generate(directory)
    artifact = directory / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    port = free_port()
    with running(agent_command(), agent_env(port, artifact, keys.file)) as agent:
        wait_until_ready(agent, port)
        time.sleep(_SETTLE_S)
        before, started = cpu_s(agent.pid), time.monotonic()
        time.sleep(_IDLE_S)
        used_s, elapsed_s = cpu_s(agent.pid) - before, time.monotonic() - started
    note = f"from {used_s * 1000:.1f} ms in {elapsed_s:.0f} s, file source"
    return [Figure("CPU an hour when idle", used_s / elapsed_s * _HOUR_S, "s", None, note)]
