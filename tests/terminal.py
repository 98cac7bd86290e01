"""A terminal in which a test types what a page shows."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from agent_process import AgentProcess, free_port
from command_line import agent_command

_TESTS = Path(__file__).parent
_PATIENCE_S = 120


@dataclass(frozen=True)
class Call:
    """What a stand-in was asked."""

    program: str
    arguments: list[str]
    facts: dict[str, Any]


class Terminal:
    """A shell in ``work``, with ``clef-agent`` on its PATH, and ``stand_ins`` (see there).

    The port of agents is a free one; what they generate lies in a directory of this terminal's.
    """

    def __init__(self, home: Path, *stand_ins: str, env: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.port = free_port()
        self.work = home / "work"
        self.root = home / "root"
        self.release = home / "release"
        self._calls = home / "calls"
        self.programs = home / "programs"
        run = home / "run"
        home.mkdir(exist_ok=True)
        for directory in (self.work, self.root, self.release, self.programs):
            directory.mkdir()
        run.mkdir(mode=0o700)
        _write(self.programs / "clef-agent", agent_command())
        for name in stand_ins:
            stand_in = [sys.executable, "-P", "-m", "stand_ins", name]
            _write(self.programs / name, ["env", f"PYTHONPATH={_TESTS}", *stand_in])
        path = (self.programs, self.root / "usr/local/bin", os.environ["PATH"])
        self.env = {
            "HOME": str(home),
            **(env or {}),
            "PATH": os.pathsep.join(map(str, path)),
            "RUNTIME_DIRECTORY": str(run),
            "CLEF_AGENT_PORT": str(self.port),
            "STAND_INS_CALLS": str(self._calls),
            "STAND_INS_ROOT": str(self.root),
            "STAND_INS_RELEASE": str(self.release),
        }

    def types(self, text: str, **more: str) -> str:
        """What ``text`` printed, each of whose lines has to succeed."""
        done = subprocess.run(
            ["sh", "-eu", "-c", self._here(text)],
            cwd=self.work,
            env={**self.env, **more},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
        assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"
        return done.stdout

    @contextlib.contextmanager
    def stays_in(self, text: str, **more: str) -> Iterator[AgentProcess]:
        """``text``, whose last line runs until Ctrl+C, at the block's end: that has to be a 0."""
        # As in a terminal, the signal goes to all; the shell waits for what it runs.
        script = f"cd {shlex.quote(str(self.work))}\ntrap : TERM\n{self._here(text)}"
        shell = shutil.which("sh")
        agent = AgentProcess(
            self.home,
            {**self.env, **more},
            *("-eu", "-c", script),
            program=shell,
            without=() if "CLEF_AGENT_TOKEN" in {**self.env, **more} else ("CLEF_AGENT_TOKEN",),
        )
        with agent:
            yield agent
            os.killpg(agent.process.pid, signal.SIGTERM)
            assert agent.exit_code() == 0, agent.said

    @property
    def token(self) -> str:
        """The token that the agent generated."""
        return Path(self.env["RUNTIME_DIRECTORY"], f"token-{self.port}").read_text().strip()

    @property
    def calls(self) -> list[Call]:
        """What the stand-ins were asked, in order."""
        lines = self._calls.read_text("utf-8").splitlines() if self._calls.exists() else []
        return [Call(**json.loads(line)) for line in lines]

    def _here(self, text: str) -> str:
        return text.replace("http://127.0.0.1:7779", f"http://127.0.0.1:{self.port}")


def needs(*programs: str) -> None:
    """Skips the test where one of ``programs`` is not installed."""
    for program in programs:
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed")


def _write(path: Path, command: list[str]) -> None:
    path.write_text(f'#!/bin/sh\nexec {shlex.join(command)} "$@"\n')
    path.chmod(0o755)
