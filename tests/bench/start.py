"""From starting the agent to the first 200 for ``/v1/ready``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
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
    wait_until_ready,
)
from bench.workload import KeyPair, fifty_keys

_ROUNDS: Final = 11
_YARDSTICK: Final = "import uvicorn, pyrage"
#: What no start may load; all of it is for later, or for other commands.
_HEAVY: Final = frozenset(
    ("boto3", "botocore", "httpx", "opentelemetry", "prometheus_client", "rich", "typer")
)
_IMPORTED: Final = re.compile(rb"^import time:.*\| +(\S+)$", re.MULTILINE)


def measure(directory: Path) -> list[Figure]:
    """The start beside importing what it cannot do without, in turns."""
    keys = KeyPair.generate(directory)
    artifact = directory / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    # The first round leaves bytecode and file caches warm, and does not count.
    rounds = [(start_s(artifact, keys), _import_s()) for _ in range(1 + _ROUNDS)][1:]
    starts, imports = (median(times) for times in zip(*rounds, strict=True))
    heavy = sorted(_imported(artifact, keys) & _HEAVY)
    return [
        Figure(
            "start to ready, of its imports",
            starts / imports,
            "x",
            Bound("at most", 1.6),
            f"{starts * 1000:.0f} ms beside {imports * 1000:.0f} ms, medians of {_ROUNDS}",
        ),
        Figure(
            "heavy modules at start",
            len(heavy),
            "",
            Bound("at most", 0),
            ", ".join(heavy) or "none",
        ),
    ]


def start_s(artifact: Path, keys: KeyPair, **more: str) -> float:
    """Seconds from starting an agent with a file source to its readiness."""
    port = free_port()
    started = time.perf_counter()
    with running(agent_command(), agent_env(port, artifact, keys.file, **more)) as agent:
        wait_until_ready(agent, port)
        return time.perf_counter() - started


def _import_s() -> float:
    started = time.perf_counter()
    subprocess.run(
        [sys.executable, "-c", _YARDSTICK],
        env={"PATH": os.environ["PATH"]},
        check=True,
        timeout=PATIENCE_S,
    )
    return time.perf_counter() - started


def _imported(artifact: Path, keys: KeyPair) -> set[str]:
    """The packages that a process has loaded when it is ready."""
    port = free_port()
    command = [sys.executable, "-X", "importtime", *agent_command()]
    listing = artifact.with_name("imports.txt")
    with (
        listing.open("wb") as stderr,
        running(command, agent_env(port, artifact, keys.file), stderr=stderr) as agent,
    ):
        wait_until_ready(agent, port)
    names = {name.decode().partition(".")[0] for name in _IMPORTED.findall(listing.read_bytes())}
    if "uvicorn" not in names:
        raise MeasurementFailed("the interpreter listed no imports")
    return names
