"""The code of docs/sources.md and docs/key-services.md, typed into a shell as it stands there.

What is only an example in it (a host, a repository, a key's number) becomes what is there in a
test: services on loopback that refuse what the real ones refuse.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess
from artifact_store import ArtifactStore
from artifact_store import serving as serving_artifact
from clouds import Cloud, FakeAzure, FakeGcp
from documents import Block, block, with_each
from fake_service import serving
from fakes import AGE_KEY, IDENTITY, PAYLOAD, packed
from moto_server import Moto
from stores import (
    BitbucketCloudStore,
    BitbucketServerStore,
    Forge,
    GitHubStore,
    GitLabStore,
)
from terminal import Terminal

BUCKET, KEY = "my-bucket", "packed/api.production.json"
#: What is packed where a page packs.
IN_FILE = {"DATABASE_URL": "postgres://db/app"}
OPENED = {"CLEF_AGENT_AGE_KEY": AGE_KEY, "CLEF_AGENT_TOKEN": TOKEN}


def serves(
    terminal: Terminal, text: str, env: Mapping[str, str], payload: Mapping[str, object] = PAYLOAD
) -> None:
    """Fails unless the agent of ``text`` serves ``payload``."""
    with terminal.stays_in(text, **env) as agent:
        agent.wait_until_ready()
        token = env.get("CLEF_AGENT_TOKEN") or terminal.token
        asked = terminal.types("clef-agent secrets", CLEF_AGENT_TOKEN=token)
        assert json.loads(asked) == payload


# --- repositories -----------------------------------------------------------------------------


def serves_from(forge: Forge, shown: Block, home: Path, **examples: str) -> None:
    """Fails unless the agent of ``shown`` serves what ``forge`` has, with the token of the file."""
    forge.put(packed())
    token_file = home / "token-of-the-repository"
    token_file.write_text(f"{forge.token}\n")
    with serving(forge):
        api = f"{forge.url}{forge.api}"
        text = with_each(
            shown.text,
            {
                examples["repo"]: forge.repo,
                examples["file"]: str(token_file),
                "_IDENTITY=api\n": f"_IDENTITY={IDENTITY}\n",
                **({examples["api"]: api} if "api" in examples else {}),
            },
        )
        elsewhere = {} if "api" in examples else {"CLEF_AGENT_VCS_API_URL": api}
        serves(Terminal(home / "terminal"), text, {**OPENED, **elsewhere})
        assert forge.downloads >= 1


def test_github(tmp_path: Path) -> None:
    shown = block("docs/sources.md", "GitHub")
    serves_from(GitHubStore(), shown, tmp_path, repo="my-org/secrets", file="/run/secrets/github")


def test_gitlab(tmp_path: Path) -> None:
    shown = block("docs/sources.md", "GitLab")
    repo, file = "group/subgroup/project", "/run/secrets/gitlab"
    serves_from(GitLabStore(), shown, tmp_path, repo=repo, file=file)


def test_bitbucket_cloud(tmp_path: Path) -> None:
    shown = block("docs/sources.md", "Bitbucket Cloud")
    repo, file = "workspace/repository", "/run/secrets/bitbucket"
    serves_from(BitbucketCloudStore(), shown, tmp_path, repo=repo, file=file)


def test_bitbucket_data_center(tmp_path: Path) -> None:
    shown = block("docs/sources.md", "Bitbucket Data Center")
    repo, file = "PROJECT/repository", "/run/secrets/bitbucket"
    api = "https://git.example.com/bitbucket"
    serves_from(BitbucketServerStore(), shown, tmp_path, repo=repo, file=file, api=api)


# --- the web ----------------------------------------------------------------------------------


def test_a_web_server_is_asked_with_the_token_of_the_file(tmp_path: Path) -> None:
    token_file = tmp_path / "token-of-the-server"
    token_file.write_text("bearer-of-the-page\n")
    with serving_artifact(ArtifactStore(packed())) as store:
        text = with_each(
            block("docs/sources.md", "A web server, or a file").text,
            {
                "https://artifacts.example.com/api.production.json": store.url,
                "/run/secrets/artifacts": str(token_file),
            },
        )
        serves(Terminal(tmp_path / "terminal"), text, OPENED)
        assert set(store.authorizations) == {"Bearer bearer-of-the-page"}


# --- AWS --------------------------------------------------------------------------------------


@pytest.fixture
def moto(aws_server: Moto) -> Moto:
    """AWS with the bucket of the pages, and nothing else."""
    aws_server.reset()
    aws_server.bucket(BUCKET)
    return aws_server


KEY_ARN = re.compile(r"arn:aws:kms:[a-z0-9-]+:\d{12}:key/[\w-]+")


def key_for(moto: Moto) -> str:
    """The ARN of a new key with the alias of the page."""
    kms = moto.client("kms")
    arn: str = kms.create_key()["KeyMetadata"]["Arn"]
    kms.create_alias(AliasName="alias/clef", TargetKeyId=arn)
    return arn


def test_an_object_in_s3(moto: Moto, tmp_path: Path) -> None:
    moto.client("s3").put_object(Bucket=BUCKET, Key=KEY, Body=packed())
    text = block("docs/sources.md", "Amazon S3").text
    env = {name: value for name, value in moto.environment.items() if name != "AWS_REGION"}
    serves(Terminal(tmp_path), text, {**env, **OPENED})


def test_what_is_packed_for_kms_and_uploaded_is_served_without_an_age_key(
    moto: Moto, tmp_path: Path
) -> None:
    key_for(moto)
    terminal = with_secrets(Terminal(tmp_path))
    text = block("docs/key-services.md", "AWS KMS").text
    serves(terminal, text, moto.environment, IN_FILE)


def with_secrets(terminal: Terminal) -> Terminal:
    """``terminal``, with a file of secrets."""
    (terminal.work / ".env").write_text("".join(f"{k}={v}\n" for k, v in IN_FILE.items()))
    return terminal


def test_the_policies_of_the_pages_are_enough_and_needed(moto: Moto, tmp_path: Path) -> None:
    of_bucket = json.loads(block("docs/sources.md", "Amazon S3", 1).text)
    of_key = json.loads(block("docs/key-services.md", "AWS KMS", 1).text)
    (for_key,) = of_key["Statement"]
    assert KEY_ARN.fullmatch(for_key["Resource"])
    assert KEY_ARN.fullmatch(key_for(moto))
    for_key["Resource"] = "*"  # moto judges requests of KMS by their action alone
    with_secrets(Terminal(tmp_path)).types(
        "clef-agent pack .env --identity api --environment production --kms aws"
        f" --kms-key-id alias/clef --output s3://{BUCKET}/{KEY}",
        **moto.environment,
    )
    policy = {**of_bucket, "Statement": [*of_bucket["Statement"], *of_key["Statement"]]}
    env = {**moto.environment, "CLEF_AGENT_SOURCE": f"s3://{BUCKET}/{KEY}"}
    with moto.enforcing(policy) as role:
        with AgentProcess(tmp_path, {**env, **role.environment}) as agent:
            assert agent.wait_until_ready().secrets().json == IN_FILE
        for alone, reason in ((of_bucket, "reason=kms_unwrap"), (of_key, "reason=fetch_failed")):
            role.policy = alone
            role.allow()
            with AgentProcess(tmp_path, {**env, **role.environment}) as agent:
                agent.wait_for(reason)


# --- Google and Azure -------------------------------------------------------------------------


class DocumentedGcp(FakeGcp):
    key_id = "projects/my-project/locations/global/keyRings/my-ring/cryptoKeys/clef"


class DocumentedAzure(FakeAzure):
    key_id = "https://my-vault.vault.azure.net/keys/clef"


def opens(cloud: Cloud, shown: Block, extra: str, home: Path) -> None:
    """Fails unless an agent serves what ``shown`` packs. ``pip`` is a stand-in: it looks whether
    there is such an extra, and installs nothing.
    """
    terminal = with_secrets(Terminal(home / "terminal", "pip"))
    assert cloud.key_id in shown.text
    with serving(cloud):
        env: dict[str, str] = cloud.environment
        terminal.types(shown.text, **env)
        assert [call.facts["extras"] for call in terminal.calls] == [[[extra]]]
        run = "CLEF_AGENT_SOURCE=api.production.json clef-agent"
        serves(terminal, run, env, IN_FILE)
        assert cloud.unwrapped == 1


def test_google_cloud_kms(tmp_path: Path) -> None:
    shown = block("docs/key-services.md", "Google Cloud KMS")
    opens(DocumentedGcp(tmp_path), shown, "gcp", tmp_path)


def test_azure_key_vault(tmp_path: Path) -> None:
    shown = block("docs/key-services.md", "Azure Key Vault")
    opens(DocumentedAzure(), shown, "azure", tmp_path)
