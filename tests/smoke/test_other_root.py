"""The executable in a root of its own: an older Debian's, or one for another machine, emulated.

CLEF_AGENT_ROOT names the root; nothing of this machine's is seen in it but the directories that a
test names.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path

import pytest

from agent_process import AgentProcess
from clef_agent import __version__
from fakes import shared

ENTER = Path(__file__).resolve().parents[2] / "build" / "enter.sh"
#: An emulator takes its time to start Python.
PATIENCE_S = 90.0


@pytest.fixture
def prefix(executable: Path, tmp_path: Path) -> tuple[str, ...]:
    """What runs a command in the root, where the executable and ``tmp_path`` are as outside."""
    root = os.environ.get("CLEF_AGENT_ROOT")
    if root is None:
        pytest.skip("CLEF_AGENT_ROOT names no Debian root to run it in: see build/README.md")
    return ("sh", str(ENTER), root, str(executable.parent), str(tmp_path), "--")


def run_in(prefix: tuple[str, ...], *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *command],
        capture_output=True,
        check=False,
        # A proxy that nobody is: what is asked stays here.
        env={"PATH": os.environ["PATH"], "HTTPS_PROXY": "http://127.0.0.1:9",
             "HTTP_PROXY": "http://127.0.0.1:9", "NO_GCE_CHECK": "true"},
        text=True,
        timeout=PATIENCE_S,
    )  # fmt: skip


def test_it_says_its_version(prefix: tuple[str, ...], executable: Path) -> None:
    done = run_in(prefix, str(executable), "--version")
    assert (done.returncode, done.stderr) == (0, "")
    assert __version__ in done.stdout
    print(run_in(prefix, "/bin/sh", "-c", "uname -m; cat /etc/debian_version").stdout.split())


@pytest.mark.parametrize("name", ["age-two-namespaces", "age-unicode-and-large"])
def test_it_decrypts_a_vector_and_answers(
    name: str, prefix: tuple[str, ...], executable: Path, tmp_path: Path
) -> None:
    manifest = json.loads(shared("vectors/manifest.json").read_bytes())
    (case,) = (case for case in manifest["cases"] if case["name"] == name)
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(shared(f"vectors/{case['file']}").read_bytes())
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": manifest["ageKey"]}
    with AgentProcess(tmp_path, env, prefix=prefix, program=str(executable)) as agent:
        agent.wait_until_ready(patience_s=PATIENCE_S)
        assert agent.secrets().json == case["expect"]["values"]
        assert agent.request("/v1/secrets", token="another").status == 401
        assert agent.request("/v1/health", token=None).status == 200
        assert agent.stop() == 0


def test_its_tls_library_is_inside(
    prefix: tuple[str, ...], executable: Path, tmp_path: Path
) -> None:
    plain = tmp_path / "secrets.json"
    plain.write_text('{"app": {"KEY": "value"}}')
    key_id = "https://v.vault.azure.net/keys/k/0123456789abcdef01"
    done = run_in(
        prefix, str(executable), "pack", str(plain), "--identity", "a", "--environment", "b",
        "--kms", "azure", "--kms-key-id", key_id,
    )  # fmt: skip
    assert done.returncode == 1
    assert "no access token" in done.stderr
    assert "Traceback" not in done.stderr
