"""What a probe costs: Kubernetes and the image's health check start one every few seconds."""

from __future__ import annotations

import shutil
import statistics
import subprocess
import time
from pathlib import Path

import pytest

from agent_process import running
from fakes import AGE_KEY, packed

#: What the build leaves beside its work: a script of nothing, with the libraries of the folder.
EMPTY = Path(__file__).parents[2] / ".cache" / "pyinstaller" / "clef-agent" / "empty"
RUNS, ATTEMPTS = 11, 3
LIMIT_S, OWN_LIMIT_S = 0.12, 0.03


def seconds_of(command: list[str], env: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=env, check=True, capture_output=True)
    return time.perf_counter() - began


def test_it_costs_little_more_than_to_start_nothing(
    executable: Path, is_one_file: bool, tmp_path: Path
) -> None:
    if is_one_file:
        pytest.skip("the one file unpacks itself at each start; probes are for the folder")
    if not EMPTY.exists() or EMPTY.stat().st_mtime < executable.stat().st_mtime - 300:
        pytest.skip(f"{EMPTY} was not built with this executable")
    shutil.copy(EMPTY, tmp_path / "empty")
    (tmp_path / "lib").symlink_to(executable.parent / "lib")
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    source = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with running(tmp_path, source) as agent:
        for attempt in range(1, ATTEMPTS + 1):
            probes, nothings = [], []
            for _ in range(RUNS):
                probes.append(seconds_of([str(executable), "health"], agent.env))
                nothings.append(seconds_of([str(tmp_path / "empty")], agent.env))
            probe_s, nothing_s = statistics.median(probes), statistics.median(nothings)
            print(f"{probe_s * 1000:.0f} ms, and {nothing_s * 1000:.0f} ms to start nothing")
            if probe_s <= LIMIT_S and probe_s - nothing_s <= OWN_LIMIT_S:
                return
            # A machine that is busy for a moment is no reason to fail.
            assert attempt < ATTEMPTS, "a probe costs too much"
