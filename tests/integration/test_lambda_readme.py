"""The function of Lambda's README, beside an agent that made a token for it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

from agent_process import AgentProcess
from fakes import AGE_KEY, PAYLOAD, packed

README = Path(__file__).parents[2] / "release" / "lambda" / "README.md"


def test_the_example_reads_the_secrets(tmp_path: Path) -> None:
    (example,) = re.findall(
        r"^```python\n(.*?)^```$", README.read_text("utf-8"), re.MULTILINE | re.DOTALL
    )
    artifact, token = tmp_path / "artifact.json", tmp_path / "clef-agent.token"
    artifact.write_bytes(packed())
    env = {
        "CLEF_AGENT_SOURCE": str(artifact),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_TOKEN_FILE": str(token),
    }
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_until_ready()
        code = example.replace(":7779", f":{agent.port}") + "\nprint(handler({}, None))\n"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": os.environ["PATH"], "CLEF_AGENT_TOKEN_FILE": str(token)},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert (done.stdout, done.stderr) == (f"{sorted(PAYLOAD)}\n", "")
