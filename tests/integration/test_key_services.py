"""Envelopes opened by real agents through real clients, at key services that can refuse."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import AgentProcess, eventually
from clef_agent.keys import encode_base64
from clouds import Cloud, FakeAzure, FakeGcp, FakeKms
from command_line import clef_agent
from fake_service import serving
from fakes import PAYLOAD, public_der, shared, with_envelope
from moto_server import moto_server

PROVIDERS = ("aws", "gcp", "azure")


@pytest.fixture
def cloud(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Cloud]:
    clouds: dict[str, Cloud] = {"aws": FakeKms(), "gcp": FakeGcp(tmp_path), "azure": FakeAzure()}
    with serving(clouds[request.param]) as cloud:
        yield cloud


every_cloud = pytest.mark.parametrize("cloud", PROVIDERS, indirect=True)


def pack(cloud: Cloud, target: Path, *more: str, payload: object = PAYLOAD) -> None:
    """``clef-agent pack`` with the key of ``cloud``."""
    source = target.with_suffix(".plain.json")
    source.write_text(json.dumps(payload))
    done = clef_agent(
        "pack", str(source), "--identity", "api", "--environment", "production",
        "--kms", cloud.provider, "--kms-key-id", cloud.key_id, "--output", str(target), *more,
        env=cloud.environment,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()


def agent_of(cloud: Cloud, artifact: Path, **more: str) -> AgentProcess:
    env = {**cloud.environment, "CLEF_AGENT_SOURCE": str(artifact), **more}
    return AgentProcess(artifact.parent, env)


# --- packed, served, refused ------------------------------------------------------------------


@every_cloud
def test_what_pack_wraps_an_agent_opens_with_one_call(cloud: Cloud, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact.json"
    pack(cloud, artifact)
    with agent_of(cloud, artifact) as agent:
        assert agent.wait_until_ready().secrets().json == PAYLOAD
        for _ in range(5):
            assert agent.refresh().json["changed"] is False
            assert agent.secrets().status == 200
        assert cloud.unwrapped == 1


@every_cloud
def test_the_envelope_names_the_resolved_key(cloud: Cloud, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact.json"
    pack(cloud, artifact)
    envelope = json.loads(artifact.read_bytes())["envelope"]
    resolved = {
        "aws": FakeKms().arn,
        "gcp": cloud.key_id,
        "azure": f"{cloud.key_id}/abc",
    }
    assert envelope["keyId"] == resolved[cloud.provider]
    assert envelope["algorithm"] == cloud.algorithm


@every_cloud
def test_just_in_time_a_permission_taken_away_closes_at_the_next_request(
    cloud: Cloud, tmp_path: Path
) -> None:
    artifact = tmp_path / "artifact.json"
    pack(cloud, artifact)
    with agent_of(cloud, artifact, CLEF_AGENT_CACHE_TTL="0") as agent:
        agent.wait_until_ready()
        for path in ("/v1/secrets", "/v1/keys", "/v1/secrets/app/API_KEY"):
            assert agent.request(path).status == 200
        etag = agent.secrets().headers["etag"]
        cloud.mode = "denied"
        for path in ("/v1/secrets", "/v1/keys", "/v1/secrets/app/API_KEY"):
            refused = agent.request(path)
            assert (refused.status, refused.json["reason"]) == (503, "kms_unwrap")
        known = agent.request("/v1/secrets", headers={"If-None-Match": etag})
        assert known.status == 503
        assert agent.request("/v1/ready").status == 200
        cloud.mode = "up"
        assert agent.secrets().json == PAYLOAD
        assert agent.request("/v1/secrets", headers={"If-None-Match": etag}).status == 304


@every_cloud
@pytest.mark.parametrize("mode", ["down", "reset", "denied", "limited"])
def test_cached_secrets_outlive_a_key_service_that_refuses(
    cloud: Cloud, mode: str, tmp_path: Path
) -> None:
    # case 5
    artifact = tmp_path / "artifact.json"
    pack(cloud, artifact)
    with agent_of(cloud, artifact) as agent:
        agent.wait_until_ready()
        successor = tmp_path / "successor.json"
        pack(cloud, successor, payload={"app": {"KEY": "new"}})
        cloud.mode = mode  # type: ignore[assignment]  # one of them
        successor.replace(artifact)
        # A look that began before that may answer once more with what was there then.
        eventually(lambda: agent.refresh().status == 503, "a refusal")
        assert agent.refresh().json["reason"] == "kms_unwrap"
        assert agent.secrets().json == PAYLOAD
        cloud.mode = "up"
        eventually(lambda: agent.secrets().json == {"app": {"KEY": "new"}}, "the new ones")
        assert cloud.token not in agent.said


@every_cloud
def test_a_start_without_permission_ends_with_the_reason(cloud: Cloud, tmp_path: Path) -> None:
    artifact = tmp_path / "artifact.json"
    pack(cloud, artifact)
    cloud.mode = "denied"
    with agent_of(cloud, artifact) as agent:
        assert agent.exit_code() == 1
        assert "reason=kms_unwrap" in agent.err
        assert cloud.token not in agent.said


# case 7
@every_cloud
def test_the_vectors_of_each_service_are_opened(cloud: Cloud, tmp_path: Path) -> None:
    manifest = json.loads(shared("vectors/manifest.json").read_bytes())
    data = json.loads(shared(f"vectors/kms-{cloud.provider}.json").read_bytes())
    case = next(c for c in manifest["cases"] if c["name"] == f"kms-{cloud.provider}")
    cloud.wrapped[base64.b64decode(data["envelope"]["wrappedKey"])] = base64.b64decode(case["dek"])
    with AgentProcess(
        tmp_path,
        {
            **cloud.environment,
            "CLEF_AGENT_SOURCE": str(shared(f"vectors/kms-{cloud.provider}.json")),
        },
    ) as agent:
        assert agent.wait_until_ready().secrets().json == case["expect"]["values"]


# --- whoever writes the store chooses the key id --------------------------------------------------


@pytest.mark.parametrize(
    ("provider", "key_id"),
    [
        ("azure", "https://evil.example/keys/clef/abc"),
        ("azure", "https://vault.vault.azure.net.evil.example/keys/clef/abc"),
        ("azure", "https://vault.azure.net@evil.example/keys/clef/abc"),
        ("azure", "http://vault.vault.azure.net/keys/clef/abc"),
        ("azure", "https://vault.vault.azure.net:8443/keys/clef/abc"),
        ("azure", "https://vault.azure.net/keys/clef/abc"),
        ("azure", "https://vault.vault.azure.net/secrets/clef/abc"),
        ("azure", "https://vault.vault.azure.net/keys/../secrets/clef"),
        ("gcp", "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1"),
        ("gcp", "projects/p/locations/../keyRings/r/cryptoKeys/k"),
        ("gcp", "projects/p/locations/global/keyRings/r/cryptoKeys/k?x=y"),
        ("aws", "arn:aws:kms:evil.example/:111122223333:key/k"),
        ("aws", "arn:aws:kms:eu-west-1@evil:111122223333:key/k"),
        ("aws", "arn:aws:s3:eu-west-1:111122223333:key/k"),
        ("aws", "https://evil.example/"),
    ],
)
def test_a_hostile_key_id_reaches_nobody(provider: str, key_id: str, tmp_path: Path) -> None:
    clouds: dict[str, Cloud] = {"aws": FakeKms(), "gcp": FakeGcp(tmp_path), "azure": FakeAzure()}
    with serving(clouds[provider]) as cloud:
        artifact = tmp_path / "artifact.json"
        pack(cloud, artifact)
        artifact.write_bytes(with_envelope(artifact.read_bytes(), keyId=key_id))
        cloud.asked.clear()
        with agent_of(cloud, artifact) as agent:
            assert agent.exit_code() == 1
            assert "reason=kms_unwrap" in agent.err
        assert cloud.asked == []


# --- AWS ----------------------------------------------------------------------------------------


# case 23
def test_the_region_is_that_of_the_arn_and_not_the_environments(tmp_path: Path) -> None:
    cloud = FakeKms()
    cloud.region = "ap-southeast-2"
    with serving(cloud):
        artifact = tmp_path / "artifact.json"
        source = tmp_path / "plain.json"
        source.write_text(json.dumps(PAYLOAD))
        done = clef_agent(
            "pack", str(source), "--identity", "a", "--environment", "b", "--kms", "aws",
            "--kms-key-id", cloud.arn, "--output", str(artifact), env=cloud.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        with agent_of(cloud, artifact, AWS_REGION="eu-west-1") as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD


# case 23
@pytest.mark.parametrize("key_id", ["alias/clef", "6b1f6f0e-1111-4222-8333-1d8cab17af1a"])
def test_a_key_id_without_a_region_takes_the_environments(key_id: str, tmp_path: Path) -> None:
    with serving(FakeKms()) as cloud:
        artifact = tmp_path / "artifact.json"
        pack(cloud, artifact)
        artifact.write_bytes(with_envelope(artifact.read_bytes(), keyId=key_id))
        with agent_of(cloud, artifact) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
        env = {k: v for k, v in cloud.environment.items() if k != "AWS_REGION"}
        with AgentProcess(tmp_path, {**env, "CLEF_AGENT_SOURCE": str(artifact)}) as agent:
            assert agent.exit_code() == 1
            assert "set AWS_REGION" in agent.err


def test_moto_opens_what_it_wrapped(tmp_path: Path) -> None:
    with moto_server() as moto:
        key_id = moto.client("kms").create_key()["KeyMetadata"]["KeyId"]
        source, artifact = tmp_path / "plain.json", tmp_path / "artifact.json"
        source.write_text(json.dumps(PAYLOAD))
        done = clef_agent(
            "pack", str(source), "--identity", "a", "--environment", "b", "--kms", "aws",
            "--kms-key-id", key_id, "--output", str(artifact), env=moto.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert json.loads(artifact.read_bytes())["envelope"]["keyId"].startswith("arn:aws:kms:")
        env = {**moto.environment, "CLEF_AGENT_SOURCE": str(artifact)}
        with AgentProcess(tmp_path, env) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD


def test_moto_enforces_kms_permissions_just_in_time(tmp_path: Path) -> None:
    with moto_server() as moto:
        arn = moto.client("kms").create_key()["KeyMetadata"]["Arn"]
        source, artifact = tmp_path / "plain.json", tmp_path / "artifact.json"
        source.write_text(json.dumps(PAYLOAD))
        done = clef_agent(
            "pack", str(source), "--identity", "a", "--environment", "b", "--kms", "aws",
            "--kms-key-id", arn, "--output", str(artifact), env=moto.environment,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        allowed = {"Effect": "Allow", "Action": "kms:Decrypt", "Resource": "*"}
        policy = {"Version": "2012-10-17", "Statement": allowed}
        with moto.enforcing(policy) as role:
            env = {
                **moto.environment,
                **role.environment,
                "CLEF_AGENT_SOURCE": str(artifact),
                "CLEF_AGENT_CACHE_TTL": "0",
            }
            with AgentProcess(tmp_path, env) as agent:
                assert agent.wait_until_ready().secrets().json == PAYLOAD
                role.deny()
                refused = agent.secrets()
                assert (refused.status, refused.json["reason"]) == (503, "kms_unwrap")
                role.allow()
                assert agent.secrets().json == PAYLOAD


def test_a_signature_by_kms_is_one_that_agents_verify(tmp_path: Path) -> None:
    with serving(FakeKms()) as cloud:
        artifact = tmp_path / "artifact.json"
        pack(cloud, artifact, "--signing-kms-key-id", "alias/clef")
        assert json.loads(artifact.read_bytes())["signatureAlgorithm"] == "ECDSA_SHA256"
        key = encode_base64(public_der(cloud.signing_key))
        with agent_of(cloud, artifact, CLEF_AGENT_VERIFY_KEY=key) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD


# --- Google and Azure -----------------------------------------------------------------------------


def test_an_answer_that_was_altered_is_asked_for_again(tmp_path: Path) -> None:
    with serving(FakeGcp(tmp_path)) as cloud:
        artifact = tmp_path / "artifact.json"
        pack(cloud, artifact)
        cloud.alters = 2
        with agent_of(cloud, artifact) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
        assert cloud.unwrapped == 3


@pytest.mark.parametrize("cloud", ["gcp", "azure"], indirect=True)
def test_a_token_that_is_refused_is_replaced_once(cloud: Cloud, tmp_path: Path) -> None:
    assert isinstance(cloud, FakeGcp | FakeAzure)
    artifact = tmp_path / "artifact.json"
    pack(cloud, artifact)
    with agent_of(cloud, artifact, CLEF_AGENT_CACHE_TTL="0") as agent:
        agent.wait_until_ready()
        given = cloud.tokens_given
        for _ in range(3):
            assert agent.secrets().status == 200
        assert cloud.tokens_given == given
        cloud.token = "the-next-token"
        assert agent.secrets().status == 200
        assert cloud.tokens_given == given + 1


def test_a_token_is_asked_for_the_vaults_own_cloud(tmp_path: Path) -> None:
    with serving(FakeAzure()) as cloud:
        artifact = tmp_path / "artifact.json"
        pack(cloud, artifact)
        china = "https://vault.managedhsm.azure.cn/keys/clef/abc"
        artifact.write_bytes(with_envelope(artifact.read_bytes(), keyId=china))
        cloud.resources.clear()
        with agent_of(cloud, artifact) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
        assert cloud.resources == ["https://managedhsm.azure.cn"]


# --- concurrency ----------------------------------------------------------------------------------


def test_just_in_time_requests_ask_each_for_itself_and_together(tmp_path: Path) -> None:
    from concurrent.futures import ThreadPoolExecutor

    with serving(FakeKms()) as cloud:
        artifact = tmp_path / "artifact.json"
        pack(cloud, artifact)
        with agent_of(cloud, artifact, CLEF_AGENT_CACHE_TTL="0") as agent:
            agent.wait_until_ready()
            before = cloud.unwrapped
            began = time.monotonic()
            with ThreadPoolExecutor(40) as pool:
                answers = list(pool.map(lambda _: agent.secrets().status, range(40)))
            assert answers == [200] * 40
            assert cloud.unwrapped - before == 40
            assert time.monotonic() - began < 20
