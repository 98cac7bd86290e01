"""A running agent, asked by its OpenAPI description: schemathesis's inputs and its checks."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import Final

from agent_process import TOKEN, running
from fakes import AGE_KEY, packed

#: Cases for each operation; an operation gets a few more from its description's corners.
_MAX_CASES: Final = 1_000
_CHECKS: Final = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "ignored_auth",
)
_COUNTED: Final = re.compile(
    r'^clef_agent_requests_total{route="([^"]+)",status="(\d+)"} (\d+)', re.MULTILINE
)


@dataclass(frozen=True)
class Asked:
    """How many requests were answered, by status, as the agent itself counted."""

    outcomes: dict[str, int]
    failed: bool
    output: str


def ask(directory: Path, cases: int) -> Asked:
    """``cases`` inputs for each operation, up to a bound."""
    artifact = directory / "artifact.json"
    artifact.write_bytes(packed())
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    description = files("clef_agent.server") / "openapi.json"
    with running(directory, env) as agent, as_file(description) as path:
        done = subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", str(path)),
                f"--url=http://127.0.0.1:{agent.port}",
                f"--header=Authorization: Bearer {TOKEN}",
                f"--checks={','.join(_CHECKS)}",
                "--workers=4",
                f"--max-examples={max(1, min(cases, _MAX_CASES))}",
                "--phases=examples,coverage,fuzzing",
                "--continue-on-failure",
                "--suppress-health-check=all",
                "--request-timeout=90",
                "--warnings=off",
            ],
            capture_output=True,
            text=True,
            check=False,
            cwd=directory,
        )
        outcomes: dict[str, int] = {}
        for _, status, count in _COUNTED.findall(agent.request("/v1/metrics").body.decode()):
            outcomes[status] = outcomes.get(status, 0) + int(count)
        still_serves = agent.secrets().status == 200
        failed = done.returncode != 0 or not still_serves or agent.process.poll() is not None
    return Asked(outcomes, failed, done.stdout + done.stderr)
