"""What rollback protection remembers of a file, from one process to the next."""

from __future__ import annotations

import json
import time
from pathlib import Path

import pytest

from agent_process import AgentProcess, eventually, replace_file, running
from clef_agent.artifact.pack import revocation
from fakes import AGE_KEY, ED25519_SIGNER, ED25519_VERIFY_KEY, packed


def of_age(seconds: float) -> bytes:
    return packed(packed_at=time.time() - seconds, signer=ED25519_SIGNER)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return tmp_path / "artifact.json"


@pytest.fixture
def env(tmp_path: Path, artifact: Path) -> dict[str, str]:
    return {
        "CLEF_AGENT_SOURCE": str(artifact),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY,
        "CLEF_AGENT_ROLLBACK_PROTECTION": "on",
        "CLEF_AGENT_CACHE_PATH": str(tmp_path / "cache"),
    }


# case 4
def test_an_older_artifact_is_refused_after_a_restart(
    tmp_path: Path, artifact: Path, env: dict[str, str]
) -> None:
    replace_file(artifact, of_age(10))
    with running(tmp_path, env) as agent:
        assert agent.stop() == 0
    replace_file(artifact, of_age(1000))
    with AgentProcess(tmp_path, env) as agent:
        assert agent.exit_code() == 1
        assert "reason=rollback" in agent.err


# case 4
def test_the_revoked_artifact_is_refused_after_a_restart_and_a_newer_one_served(
    tmp_path: Path, artifact: Path, env: dict[str, str]
) -> None:
    revoked = of_age(10)
    replace_file(artifact, revoked)
    with running(tmp_path, env) as agent:
        replace_file(artifact, revocation(json.loads(revoked), time.time()))
        eventually(lambda: agent.request("/v1/ready").status == 503, "the revocation")
        assert agent.stop() == 0
    replace_file(artifact, revoked)
    with AgentProcess(tmp_path, env) as agent:
        assert agent.exit_code() == 1
        assert "reason=rollback" in agent.err
    replace_file(artifact, of_age(5))
    with running(tmp_path, env) as agent:
        assert agent.secrets().status == 200


def test_no_copy_of_a_file_is_kept(tmp_path: Path, artifact: Path, env: dict[str, str]) -> None:
    replace_file(artifact, of_age(10))
    with running(tmp_path, env) as agent:
        assert agent.stop() == 0
    (record,) = (tmp_path / "cache").iterdir()
    assert set(json.loads(record.read_bytes())) == {"rollback"}
