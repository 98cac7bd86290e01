"""Artifacts in S3, read by real agents through moto's server, with credentials of every kind."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from botocore.config import Config
from botocore.session import Session

from agent_process import AgentProcess
from command_line import clef_agent
from fake_service import Asked, FakeService, Reply, serving
from fakes import AGE_KEY, AGE_RECIPIENT, PAYLOAD, packed
from moto_server import KEY_ID, REGION, SECRET_KEY, Moto, aws_environment

BUCKET = "clef.artifacts"
KEY = "packed/api (1)+%20'ü!.json"
GET_ONE = {
    "Version": "2012-10-17",
    "Statement": {
        "Effect": "Allow",
        "Action": "s3:GetObject",
        "Resource": f"arn:aws:s3:::{BUCKET}/packed/*",
    },
}


@pytest.fixture
def moto(aws_server: Moto) -> Moto:
    """A server with the artifact in its bucket, and nothing else."""
    aws_server.reset()
    aws_server.bucket(BUCKET).put_object(Bucket=BUCKET, Key=KEY, Body=packed())
    return aws_server


def environment(moto: Moto, source: str = f"s3://{BUCKET}/{KEY}", **more: str) -> dict[str, str]:
    return {
        **moto.environment,
        "CLEF_AGENT_SOURCE": source,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        **more,
    }


def served(home: Path, env: dict[str, str]) -> object:
    with AgentProcess(home, env) as agent:
        return agent.wait_until_ready().secrets().json


# case 22
@pytest.mark.parametrize(
    "source",
    [
        f"s3://{BUCKET}/{KEY}",
        f"https://s3.{REGION}.amazonaws.com/{BUCKET}/packed/api%20(1)+%2520'%C3%BC!.json",
        f"https://{BUCKET}.s3.{REGION}.amazonaws.com/packed/api%20(1)+%2520%27%C3%BC%21.json",
    ],
)
def test_each_shape_of_url_finds_the_object(source: str, moto: Moto, tmp_path: Path) -> None:
    env = environment(moto, source)
    env["AWS_ENDPOINT_URL_S3"] = env.pop("AWS_ENDPOINT_URL")
    assert served(tmp_path, env) == PAYLOAD


def test_a_named_version_stays_the_one_that_is_served(moto: Moto, tmp_path: Path) -> None:
    client = moto.client("s3")
    client.put_bucket_versioning(Bucket=BUCKET, VersioningConfiguration={"Status": "Enabled"})
    old = client.put_object(Bucket=BUCKET, Key="packed/k", Body=packed())["VersionId"]
    client.put_object(Bucket=BUCKET, Key="packed/k", Body=b"{}")
    source = f"https://s3.{REGION}.amazonaws.com/{BUCKET}/packed/k?versionId={old}"
    assert served(tmp_path, environment(moto, source)) == PAYLOAD


# case 22, case 5
@pytest.mark.parametrize("signature", ["s3v4", "s3"])
def test_a_presigned_url_is_asked_as_it_is_and_shown_without_its_query(
    signature: str, moto: Moto, tmp_path: Path
) -> None:
    client: Any = Session().create_client(
        "s3",
        region_name=REGION,
        endpoint_url=moto.url,
        aws_access_key_id=KEY_ID,
        aws_secret_access_key=SECRET_KEY,
        config=Config(signature_version=signature, s3={"addressing_style": "path"}),
    )
    url = client.generate_presigned_url("get_object", Params={"Bucket": BUCKET, "Key": KEY})
    query = urlsplit(url).query
    assert "Signature" in query
    env = {k: v for k, v in environment(moto, url).items() if not k.startswith("AWS_ACCESS")}
    with AgentProcess(tmp_path, env) as agent:
        assert agent.wait_until_ready().secrets().json == PAYLOAD
        assert agent.refresh().json["changed"] is False
        moto.client("s3").delete_object(Bucket=BUCKET, Key=KEY)
        refused = agent.refresh()
        assert refused.status == 503
        for text in (agent.said, refused.body.decode()):
            assert query not in text
            assert not any(pair.partition("=")[2] in text for pair in query.split("&")[-2:])


# case 22
def test_a_public_object_is_read_without_credentials(moto: Moto, tmp_path: Path) -> None:
    moto.client("s3").put_object_acl(Bucket=BUCKET, Key=KEY, ACL="public-read")
    env = aws_environment(
        AWS_ENDPOINT_URL_S3=moto.url,
        CLEF_AGENT_SOURCE=f"s3://{BUCKET}/{KEY}",
        CLEF_AGENT_AGE_KEY=AGE_KEY,
    )
    assert served(tmp_path, env) == PAYLOAD


def test_a_permission_is_enough_when_it_is_the_least_and_its_end_is_a_refusal(
    moto: Moto, tmp_path: Path
) -> None:
    with moto.enforcing(GET_ONE) as role:
        with AgentProcess(tmp_path, {**environment(moto), **role.environment}) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
            role.deny()
            refused = agent.refresh()
            assert refused.status == 503
            assert "AccessDenied" in refused.json["detail"]
            assert agent.secrets().status == 200
            role.allow()
            assert agent.refresh().json["changed"] is False
        assert role.secret_key not in agent.said


# --- where credentials come from ------------------------------------------------------------------


def without_keys(env: dict[str, str]) -> dict[str, str]:
    return {k: v for k, v in env.items() if not k.startswith(("AWS_ACCESS", "AWS_SECRET"))}


class Credentials(FakeService):
    """A container's credential endpoint, and the instance metadata service.

    Source: https://docs.aws.amazon.com/sdkref/latest/guide/feature-container-credentials.html and
    https://docs.aws.amazon.com/AWSEC2/latest/UserGuide/instancedata-data-retrieval.html
    """

    given = 0

    def answer(self, asked: Asked) -> Reply:
        if asked.path == "/container":
            if asked.headers.get("authorization") != self.token:
                return Reply.json(401, {})
            return self._keys()
        if asked.path == "/latest/api/token":
            if asked.method != "PUT" or "x-aws-ec2-metadata-token-ttl-seconds" not in asked.headers:
                return Reply(400)
            return Reply(200, self.token.encode())
        if asked.headers.get("x-aws-ec2-metadata-token") != self.token:
            return Reply(401)
        if asked.path == "/latest/meta-data/iam/security-credentials/":
            return Reply(200, b"role")
        if asked.path == "/latest/meta-data/iam/security-credentials/role":
            return self._keys()
        return Reply(404)

    def _keys(self) -> Reply:
        self.given += 1
        expiration = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 3600))
        return Reply.json(
            200,
            {
                "Code": "Success",
                "AccessKeyId": KEY_ID,
                "SecretAccessKey": SECRET_KEY,
                "Token": "session",
                "Expiration": expiration,
            },
        )


def test_a_profile_gives_credentials_and_the_region(moto: Moto, tmp_path: Path) -> None:
    profile = tmp_path / "config"
    profile.write_text(
        f"[profile app]\nregion = {REGION}\naws_access_key_id = {KEY_ID}\n"
        f"aws_secret_access_key = {SECRET_KEY}\n"
    )
    env = without_keys(environment(moto, AWS_PROFILE="app", AWS_CONFIG_FILE=str(profile)))
    del env["AWS_REGION"]
    assert served(tmp_path, env) == PAYLOAD


def test_a_program_gives_credentials(moto: Moto, tmp_path: Path) -> None:
    document = {"Version": 1, "AccessKeyId": KEY_ID, "SecretAccessKey": SECRET_KEY}
    program = tmp_path / "credentials.py"
    program.write_text(f"print({json.dumps(json.dumps(document))})")
    profile = tmp_path / "config"
    profile.write_text(f"[default]\ncredential_process = {sys.executable} {program}\n")
    env = without_keys(environment(moto, AWS_CONFIG_FILE=str(profile)))
    assert served(tmp_path, env) == PAYLOAD


def test_a_web_identity_gives_credentials(moto: Moto, tmp_path: Path) -> None:
    token_file = tmp_path / "token"
    token_file.write_text("a.web.identity")
    env = without_keys(
        environment(
            moto,
            AWS_ROLE_ARN="arn:aws:iam::111122223333:role/app",
            AWS_WEB_IDENTITY_TOKEN_FILE=str(token_file),
        )
    )
    assert served(tmp_path, env) == PAYLOAD


def test_a_pod_identity_gives_credentials_for_the_token_of_its_file(
    moto: Moto, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    with serving(Credentials()) as endpoint:
        token_file.write_text(endpoint.token)
        env = without_keys(
            environment(
                moto,
                AWS_CONTAINER_CREDENTIALS_FULL_URI=f"{endpoint.url}/container",
                AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE=str(token_file),
            )
        )
        assert served(tmp_path, env) == PAYLOAD
        assert endpoint.given == 1


def test_the_metadata_service_gives_credentials_for_a_session_token(
    moto: Moto, tmp_path: Path
) -> None:
    with serving(Credentials()) as metadata:
        env = without_keys(environment(moto, AWS_EC2_METADATA_SERVICE_ENDPOINT=metadata.url))
        del env["AWS_EC2_METADATA_DISABLED"]
        assert served(tmp_path, env) == PAYLOAD
        assert metadata.given >= 1


def test_credentials_that_cannot_be_had_are_said_to_be_missing(moto: Moto, tmp_path: Path) -> None:
    profile = tmp_path / "config"
    profile.write_text("[default]\ncredential_process = /bin/echo the-secret-of-a-program\n")
    env = without_keys(environment(moto, AWS_CONFIG_FILE=str(profile)))
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_for("no AWS credentials could be had")
        assert "the-secret-of-a-program" not in agent.said


# --- packing into it ------------------------------------------------------------------------------


def pack(*more: str, env: dict[str, str]) -> Any:
    return clef_agent(
        "pack", "--format", "json", "--identity", "a", "--environment", "b", *more,
        env=env, stdin=b'{"K":"v"}',
    )  # fmt: skip


def test_pack_uploads_what_an_agent_serves(moto: Moto, tmp_path: Path) -> None:
    target = f"s3://{BUCKET}/packed/new key.json"
    done = pack("--recipient", AGE_RECIPIENT, "--output", target, env=moto.environment)
    assert done.returncode == 0, done.stderr
    head = moto.client("s3").head_object(Bucket=BUCKET, Key="packed/new key.json")
    assert head["ContentType"] == "application/json"
    assert served(tmp_path, environment(moto, target)) == {"K": "v"}


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("s3://", b"names no object"),
        ("s3://bucket", b"names no object"),
        ("s3://no-such-bucket/k", b"NoSuchBucket"),
    ],
)
def test_an_upload_that_fails_says_why(target: str, words: bytes, moto: Moto) -> None:
    done = pack("--recipient", AGE_RECIPIENT, "--output", target, env=moto.environment)
    assert done.returncode == 1
    assert words in done.stderr


@pytest.mark.parametrize(
    "options",
    [
        (),
        ("--kms", "aws"),
        ("--kms-key-id", "alias/k"),
        ("--kms", "aws", "--kms-key-id", "alias/k", "--recipient", AGE_RECIPIENT),
        ("--kms", "vault", "--kms-key-id", "k"),
        (
            "--recipient",
            AGE_RECIPIENT,
            "--signing-key-file",
            "x",
            "--signing-kms-key-id",
            "alias/k",
        ),
    ],
)
def test_options_that_contradict_each_other_are_wrong_usage(options: tuple[str, ...]) -> None:
    assert pack(*options, env={}).returncode == 2


@pytest.mark.parametrize(
    ("provider", "key_id", "problem", "right"),
    [
        ("aws", "alias/k", "no AWS credentials were found", "kms:Encrypt"),
        (
            "gcp",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k",
            "no Google credentials were found",
            "roles/cloudkms.cryptoKeyEncrypter",
        ),
        ("azure", "https://v.vault.azure.net/keys/k", "no access token could be had", "wrapKey"),
    ],
)
def test_a_key_service_that_cannot_be_asked_is_one_line_and_a_hint(
    provider: str, key_id: str, problem: str, right: str
) -> None:
    env = aws_environment(GCE_METADATA_HOST="127.0.0.1:1", NO_GCE_CHECK="true")
    done = pack("--kms", provider, "--kms-key-id", key_id, env=env)
    assert done.returncode == 1
    lines = done.stderr.decode().splitlines()
    assert len(lines) == 2, done.stderr
    assert problem in lines[0]
    assert right in lines[1]
