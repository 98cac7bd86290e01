"""What people get by pipx: the command, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent_process import AgentProcess
from clef_agent import __version__

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 600


@pytest.fixture(scope="module")
def homes(tmp_path_factory: pytest.TempPathFactory, is_one_file: bool) -> dict[str, str]:
    """The environment of a pipx that has installed nothing yet."""
    if not is_one_file:
        pytest.skip("once is enough: it has nothing to do with the executable")
    home = tmp_path_factory.mktemp("pipx")
    names = ("HOME", "BIN_DIR", "MAN_DIR", "SHARED_LIBS")
    return {**os.environ, **{f"PIPX_{name}": str(home / name.lower()) for name in names}}


def pipx(homes: dict[str, str], *arguments: str) -> str:
    done = subprocess.run(
        [sys.executable, "-m", "pipx", *arguments],
        env=homes,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_it_installs_serves(homes: dict[str, str], tmp_path: Path) -> None:
    pipx(homes, "install", "--python", sys.executable, str(ROOT))
    program = str(Path(homes["PIPX_BIN_DIR"]) / "clef-agent")
    with AgentProcess(tmp_path, {}, "dev", program=program) as agent:
        agent.wait_for("http://127.0.0.1:")
        assert agent.secrets().status == 200
        assert agent.stop() == 0


def test_it_runs_the_command_without_installing_it(homes: dict[str, str]) -> None:
    run = ("run", "--python", sys.executable, "--spec", str(ROOT), "clef-agent", "--version")
    assert pipx(homes, *run) == f"clef-agent {__version__}\n"
