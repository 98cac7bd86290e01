"""The command line as a person has it: a process with an environment, arguments and streams."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping

_TIMEOUT_S = 30


def clef_agent(
    *arguments: str, env: Mapping[str, str] | None = None, stdin: bytes = b""
) -> subprocess.CompletedProcess[bytes]:
    """What ``clef-agent`` with ``arguments`` did; ``env`` is all that it has beside PATH."""
    return subprocess.run(
        [sys.executable, "-m", "clef_agent", *arguments],
        input=stdin,
        capture_output=True,
        env={"PATH": os.environ["PATH"], **(env or {})},
        timeout=_TIMEOUT_S,
        check=False,
    )
