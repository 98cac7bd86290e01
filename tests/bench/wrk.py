"""Load by wrk, and what it saw.

Source: https://github.com/wg/wrk, and its SCRIPTING for what ``report.lua`` is handed
"""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from bench.processes import PATIENCE_S, TOKEN, MeasurementFailed

HOW_TO_INSTALL = (
    "wrk is missing: apt-get install wrk (Debian, Ubuntu), dnf install wrk (Fedora), brew install"
    " wrk (macOS), or https://github.com/wg/wrk"
)
_REPORT = Path(__file__).with_name("report.lua")


@dataclass(frozen=True, slots=True)
class Load:
    """What one run of wrk saw. ``failed`` counts answers beyond 399 and broken connections."""

    requests: int
    duration_us: int
    p50_us: int
    p99_us: int
    p999_us: int
    max_us: int
    failed: int

    @property
    def per_s(self) -> float:
        """Requests a second."""
        return self.requests / self.duration_us * 1e6


def is_installed() -> bool:
    """Whether wrk is there to be run."""
    return shutil.which("wrk") is not None


def command(port: int, path: str, *, connections: int, duration_s: int) -> list[str]:
    """One thread of wrk that asks ``path`` of 127.0.0.1, with our token."""
    return [
        "wrk",
        "--threads=1",
        f"--connections={connections}",
        f"--duration={duration_s}s",
        f"--script={_REPORT}",
        f"--header=Authorization: Bearer {TOKEN}",
        f"http://127.0.0.1:{port}{path}",
    ]


def run(port: int, path: str, *, connections: int, duration_s: int) -> Load:
    """The load that ``path`` can bear.

    Raises:
        MeasurementFailed: a request failed, or wrk did not end.
    """
    asking = command(port, path, connections=connections, duration_s=duration_s)
    try:
        done = subprocess.run(
            asking, stdout=subprocess.PIPE, check=False, timeout=duration_s + PATIENCE_S
        )
    except subprocess.TimeoutExpired:
        raise MeasurementFailed("wrk did not end") from None
    return read_report(done.stdout)


def read_report(output: bytes) -> Load:
    """What ``report.lua`` wrote at the end of ``output``.

    Raises:
        MeasurementFailed: it is not there, or tells of failures: they are quicker than answers.
    """
    lines = [line for line in output.splitlines() if line.startswith(b"{")]
    if not lines:
        raise MeasurementFailed(f"wrk reported nothing: {output.decode(errors='replace')}")
    load = Load(**json.loads(lines[-1]))
    if load.failed or not load.requests:
        raise MeasurementFailed(f"{load.failed} of {load.requests} requests failed")
    return load
