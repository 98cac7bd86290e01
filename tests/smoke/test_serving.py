"""The executable at work: sources, key services, rotation, telemetry, ``exec``, Lambda."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from agent_process import AgentProcess, eventually, replace_file, running
from command_line import clef_agent
from extensions_api import Sandbox
from extensions_api import serving as serving_sandbox
from fakes import AGE_KEY, PAYLOAD, packed
from moto_server import moto_server
from otlp_collector import Collector, collecting

pytestmark = pytest.mark.usefixtures("executable")

PLAIN = {"database": {"URL": "postgres://db"}}


@pytest.fixture
def source(tmp_path: Path) -> dict[str, str]:
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    return {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}


def test_dev_serves_a_sample(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, {}, "dev") as agent:
        agent.wait_for("curl")
        eventually(lambda: agent.secrets().status == 200, "the sample")
        assert agent.stop() == 0


def test_a_rotation_is_served_and_the_commands_find_the_agent(
    source: dict[str, str], tmp_path: Path
) -> None:
    with running(tmp_path, source) as agent:
        assert agent.secrets().json == PAYLOAD
        replace_file(Path(source["CLEF_AGENT_SOURCE"]), packed({"KEY": "rotated"}))
        eventually(lambda: agent.secrets().json == {"KEY": "rotated"}, "the new secrets")
        for probe in ("health", "ready"):
            assert clef_agent(probe, env=agent.env).returncode == 0
        assert clef_agent("get", "KEY", env=agent.env).stdout == b"rotated\n"
        assert agent.stop() == 0


def test_a_program_gets_the_secrets_and_nothing_of_the_executable(source: dict[str, str]) -> None:
    done = clef_agent("exec", "--", "env", env=source)
    assert done.returncode == 0, done.stderr
    names = {line.partition("=")[0] for line in done.stdout.decode().splitlines()}
    assert {name for name in names if name.startswith(("_PYI", "LD_", "CLEF_AGENT"))} == set()
    assert len(names) > 1


def test_s3_and_kms_are_reached(tmp_path: Path) -> None:
    plain = tmp_path / "secrets.json"
    plain.write_text(json.dumps(PLAIN))
    artifact = tmp_path / "packed.json"
    with moto_server() as moto:
        arn = moto.client("kms").create_key()["KeyMetadata"]["Arn"]
        done = clef_agent(
            "pack", str(plain), "--identity", "a", "--environment", "b", "--kms", "aws",
            "--kms-key-id", arn, "--output", str(artifact), env=moto.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        moto.bucket("store").put_object(Bucket="store", Key="a.json", Body=artifact.read_bytes())
        env = {**moto.environment, "CLEF_AGENT_SOURCE": "s3://store/a.json"}
        with running(tmp_path, env) as agent:
            assert agent.secrets().json == PLAIN


def test_events_reach_a_collector(source: dict[str, str], tmp_path: Path) -> None:
    with collecting(Collector()) as collector:
        env = {**source, "CLEF_AGENT_TELEMETRY_URL": collector.origin}
        with running(tmp_path, env) as agent:
            eventually(lambda: "artifact.refreshed" in collector.names, "the first events")
            assert agent.stop() == 0
        assert "agent.stopped" in collector.names


def test_lambda_knows_it_by_its_own_name(source: dict[str, str], tmp_path: Path) -> None:
    with (
        serving_sandbox(Sandbox("clef-agent")) as sandbox,
        AgentProcess(tmp_path, {**source, **sandbox.environment}) as agent,
    ):
        sandbox.wait_until_idle()
        assert agent.secrets().json == PAYLOAD


@pytest.mark.parametrize(
    ("provider", "key_id", "words"),
    [
        ("gcp", "projects/p/locations/l/keyRings/r/cryptoKeys/k", b"credentials"),
        ("azure", "https://v.vault.azure.net/keys/k/0123456789abcdef01", b"no access token"),
    ],
)
def test_the_other_clouds_are_inside(
    provider: str, key_id: str, words: bytes, tmp_path: Path
) -> None:
    plain = tmp_path / "secrets.json"
    plain.write_text(json.dumps(PLAIN))
    nowhere = "http://127.0.0.1:9"
    done = clef_agent(
        "pack", str(plain), "--identity", "a", "--environment", "b", "--kms", provider,
        "--kms-key-id", key_id,
        env={"HTTP_PROXY": nowhere, "HTTPS_PROXY": nowhere, "NO_GCE_CHECK": "true"},
    )  # fmt: skip
    assert done.returncode == 1
    assert words in done.stderr
    for sign in (b"install", b"Traceback", b"No module"):
        assert sign not in done.stderr, "a part of its library is missing"
