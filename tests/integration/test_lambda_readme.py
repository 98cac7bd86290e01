"""The function of Lambda's README, beside an agent that made a token for it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from agent_process import AgentProcess
from documents import block
from fakes import AGE_KEY, PAYLOAD, packed


def test_the_example_reads_the_secrets(tmp_path: Path) -> None:
    example = block("release/lambda/README.md", "clef-agent in AWS Lambda", 2)
    artifact, token = tmp_path / "artifact.json", tmp_path / "clef-agent.token"
    artifact.write_bytes(packed())
    env = {
        "CLEF_AGENT_SOURCE": str(artifact),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_TOKEN_FILE": str(token),
    }
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_until_ready()
        code = example.text.replace(":7779", f":{agent.port}") + "\nprint(handler({}, None))\n"
        done = subprocess.run(
            [sys.executable, "-c", code],
            env={"PATH": os.environ["PATH"], "CLEF_AGENT_TOKEN_FILE": str(token)},
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
        )
    assert (done.stdout, done.stderr) == (f"{sorted(PAYLOAD)}\n", "")
