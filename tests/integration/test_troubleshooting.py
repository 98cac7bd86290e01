"""Messages of docs/troubleshooting.md, brought about for real and read where a person does."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess, Response, eventually, free_port, running
from artifact_store import ArtifactStore, serving
from command_line import clef_agent
from fakes import (
    AGE_KEY,
    ED25519_SIGNER,
    ED25519_VERIFY_KEY,
    NOW,
    OTHER_AGE_KEY,
    OTHER_ED25519_SIGNER,
    changed,
    packed,
)
from messages import PAGE, entries, pattern_of
from refresh_fakes import revoked

QUOTES = {quote for entry in entries(PAGE.read_text("utf-8")) for quote in entry.quotes}
SOURCE_TWICE = {"CLEF_AGENT_SOURCE": "a", "CLEF_AGENT_VCS_REPO": "org/repo"}
PLAIN_HTTP = {"CLEF_AGENT_KMS_ENDPOINT": "http://example.com"}
SIGNED = {"CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY}


def assert_has(said: str, quote: str) -> None:
    assert quote in QUOTES, "the page has no such entry"
    assert pattern_of(quote).search(said), f"{quote!r} is not in {said!r}"


def why_it_ends(home: Path, env: Mapping[str, str]) -> str:
    """What an agent says that cannot start."""
    with AgentProcess(home, env) as agent:
        assert agent.exit_code() == 1
        return agent.err


@pytest.mark.parametrize(
    ("env", "quote"),
    [
        ({}, "CLEF_AGENT_SOURCE is not set, nor are CLEF_AGENT_VCS_*: name where to read from"),
        ({"CLEF_AGENT_ID": ""}, "CLEF_AGENT_... is set but empty"),
        (SOURCE_TWICE, "... are both set; keep one"),
        (SOURCE_TWICE, "... must be set with the other VCS variables"),
        ({"CLEF_AGENT_CACHE_TTL": "5"}, "must be 0 (just-in-time) or at least ..."),
        (PLAIN_HTTP, "must be https, because credentials are sent to it"),
        ({"CLEF_AGENT_AGE_KEY_FILE": "/nowhere"}, "CLEF_AGENT_AGE_KEY_FILE cannot be read: ..."),
        ({"CLEF_AGENT_AGE_KEY_FILE": __file__}, "CLEF_AGENT_AGE_KEY_FILE is malformed: ..."),
        ({"CLEF_AGENT_VERIFY_KEY": "age1"}, "CLEF_AGENT_VERIFY_KEY is malformed: ..."),
    ],
)  # fmt: skip
def test_a_configuration_that_is_wrong(tmp_path: Path, env: dict[str, str], quote: str) -> None:
    assert_has(why_it_ends(tmp_path, env), quote)


@pytest.mark.parametrize(
    ("data", "env", "quote"),
    [
        (b"<!doctype html>", {}, "reason=json_parse"),
        (b"{}", {}, "reason=unsupported_version"),
        (changed(packed(), ciphertextHash="0" * 64), {}, "reason=integrity"),
        (packed(), SIGNED, "reason=signature_missing"),
        (packed(signer=OTHER_ED25519_SIGNER), SIGNED, "reason=signature_invalid"),
        (packed(), {"CLEF_AGENT_EXPECT_IDENTITY": "web"}, "reason=identity_mismatch"),
        (packed(expires_at=NOW - 1e9), {}, "reason=expired"),
        (revoked(packed()), {}, "reason=revoked"),
        (packed(), {"CLEF_AGENT_AGE_KEY": OTHER_AGE_KEY}, "reason=decrypt"),
        (packed(), {"CLEF_AGENT_AGE_KEY": OTHER_AGE_KEY}, "age cannot open it: ..."),
        (packed(signer=ED25519_SIGNER), SIGNED, ""),
    ],
)
def test_an_artifact_that_is_refused(
    tmp_path: Path, data: bytes, env: dict[str, str], quote: str
) -> None:
    source = tmp_path / "artifact.json"
    source.write_bytes(data)
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": AGE_KEY, **env}
    if not quote:  # the rest would be refused for another reason if this were
        with running(tmp_path, env) as agent:
            assert agent.secrets().status == 200
        return
    said = why_it_ends(tmp_path, env)
    assert_has(said, quote)
    assert_has(said, "the first load failed: ...")


def test_an_artifact_without_a_key(tmp_path: Path, artifact: Path) -> None:
    said = why_it_ends(tmp_path, {"CLEF_AGENT_SOURCE": str(artifact)})
    assert_has(said, "it is encrypted with age, and no age key is configured: ...")


def test_a_port_in_use_and_a_token_file_without_a_token(tmp_path: Path, artifact: Path) -> None:
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with running(tmp_path, env) as agent:
        said = why_it_ends(tmp_path, {**env, "CLEF_AGENT_PORT": str(agent.port)})
        assert_has(said, "port ... on 127.0.0.1 is in use by another process")
    token = tmp_path / "token"
    token.write_text("")
    said = why_it_ends(tmp_path, {**env, "CLEF_AGENT_TOKEN_FILE": str(token)})
    assert_has(said, "the token file ... is empty")


@pytest.mark.parametrize("status", [401, 404, 503])
def test_a_source_that_answers_with_something_else(tmp_path: Path, status: int) -> None:
    with serving(ArtifactStore(b"", status=status)) as store:
        env = {"CLEF_AGENT_SOURCE": store.url, "CLEF_AGENT_AGE_KEY": AGE_KEY}
        with AgentProcess(tmp_path, env) as agent:
            said = agent.wait_for("fetch failed")
            assert_has(said, "fetch failed: reason=fetch_failed: ...")
            assert f"answered {status}" in said
            assert_has(said, "... answered ...")


def test_a_misspelt_name_is_a_warning(tmp_path: Path, artifact: Path) -> None:
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with running(tmp_path, {**env, "CLEF_AGENT_CACHE_TLL": "60"}) as agent:
        assert_has(agent.err, "CLEF_AGENT_... is not a variable of clef-agent, and is ignored")


def test_answers_of_the_api_say_what_the_page_says(tmp_path: Path) -> None:
    source = tmp_path / "artifact.json"
    source.write_bytes(packed({"a": {"KEY": "1"}, "b": {"KEY": "2"}}))
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with running(tmp_path, env) as agent:
        for path, method, status, quote in (
            ("/v1/secrets/NO", "GET", 404, "Not found"),
            ("/v1/secrets", "POST", 405, "Method not allowed"),
            ("/v1/secrets?format=xml", "GET", 400, "format must be one of ..."),
            ("/v1/secrets?wait=x", "GET", 400, "wait must be a whole number of seconds, ..."),
            ("/v1/secrets/KEY", "GET", 409, "several secrets have that name"),
        ):
            assert_answers(agent.request(path, method=method), status, quote)
        assert_answers(agent.request("/v1/secrets", token="x"), 401, "Unauthorized")
        elsewhere = agent.request("/v1/secrets", headers={"Host": "example.com"})
        assert_answers(elsewhere, 403, "Forbidden: invalid Host header")
        eventually(lambda: is_refused(agent), "a refresh that comes too soon")


def assert_answers(answer: Response, status: int, quote: str) -> None:
    assert answer.status == status
    assert str(status) in QUOTES
    assert_has(answer.json["error"], quote)


def is_refused(agent: AgentProcess) -> bool:
    answer = agent.request("/v1/refresh", method="POST")
    return answer.status == 429 and answer.json["reason"] == "rate_limited"


def test_the_command_line_says_why_it_gets_no_answer(tmp_path: Path, artifact: Path) -> None:
    env = {"CLEF_AGENT_PORT": str(free_port()), "CLEF_AGENT_TOKEN": TOKEN}
    assert_has(clef_agent("get", "KEY", env=env).stderr.decode(), "no agent listens at ...")
    agent_env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with running(tmp_path, agent_env) as agent:
        env = {"CLEF_AGENT_PORT": str(agent.port), "CLEF_AGENT_TOKEN": "another"}
        said = clef_agent("keys", env=env).stderr.decode()
        assert_has(said, "the agent at ... does not accept the token that was found")


def test_exec_says_what_it_cannot_run(tmp_path: Path) -> None:
    source = tmp_path / "artifact.json"
    source.write_bytes(packed({"PATH": "/tmp", "KEY": json.dumps("v")}))
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    said = clef_agent("exec", "--", "true", env=env).stderr.decode()
    assert_has(said, "... cannot be a variable: ...")
    said = clef_agent("exec", "--only", "KEY", "--", "no-such-program", env=env).stderr.decode()
    assert_has(said, "... cannot be run: ...")
