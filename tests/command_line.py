"""The command line as a person has it: a process with an environment, arguments and streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

import pytest

_TIMEOUT_S = 30


def agent_command(*interpreter: str) -> list[str]:
    """What starts ``clef-agent``: the executable that CLEF_AGENT_EXECUTABLE names, or else the
    package, by this interpreter with the options ``interpreter``.
    """
    executable = os.environ.get("CLEF_AGENT_EXECUTABLE")
    if executable is None:
        return [sys.executable, *interpreter, "-m", "clef_agent"]
    if interpreter:
        pytest.skip("the executable takes no options of Python's")
    return [executable]


def clef_agent(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """What ``clef-agent`` with ``arguments`` did; ``env`` is all that it has beside PATH."""
    return subprocess.run(
        [*agent_command(), *arguments],
        input=stdin,
        capture_output=True,
        env={"PATH": os.environ["PATH"], **(env or {})},
        timeout=_TIMEOUT_S,
        check=False,
    )
