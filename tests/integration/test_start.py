"""How the agent starts: what it says, what ends it, and what it reads on the way."""

from __future__ import annotations

import json
import socket
import stat
import threading
import time
from pathlib import Path

import pyrage
import pytest

from agent_process import TOKEN, AgentProcess, free_port, replace_file, running
from artifact_store import ArtifactStore, serving
from command_line import clef_agent
from fakes import (
    AGE_KEY,
    AGE_RECIPIENT,
    ED25519_SIGNER,
    ED25519_VERIFY_KEY,
    OTHER_AGE_KEY,
    OTHER_ED25519_SIGNER,
    PAYLOAD,
    changed,
    packed,
)

HEAVY = (
    "boto3",
    "botocore",
    "click",
    "cryptography",
    "google",
    "httpx",
    "opentelemetry",
    "prometheus_client",
    "requests",
    "rich",
    "typer",
)


@pytest.fixture
def env(artifact: Path) -> dict[str, str]:
    return {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}


def problems(agent: AgentProcess) -> list[str]:
    """What an agent that could not start says, which it says on stderr and with exit code 1."""
    assert agent.exit_code() == 1
    assert "Traceback" not in agent.err
    *lines, hint = agent.err_lines
    assert hint.startswith("[clef-agent] hint: ")
    return [line.removeprefix("[clef-agent] cannot start: ") for line in lines]


# --- log lines --------------------------------------------------------------------------------


def test_the_lines_that_tools_wait_for_come_in_their_words_and_order(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(tmp_path, env) as agent:
        assert agent.stop() == 0

    assert agent.err == ""
    assert [line for line in agent.out_lines if "artifact loaded" not in line] == [
        f"[clef-agent] source: {env['CLEF_AGENT_SOURCE']}",
        "[clef-agent] mode: cached",
        "[clef-agent] token: [set]",
        "[clef-agent] lifecycle: daemon",
        "[clef-agent] Agent ready. Polling for updates.",
        "[clef-agent] stopping",
    ]
    assert agent.out_lines[2].startswith("[clef-agent] artifact loaded: revision=")


def test_just_in_time_mode_is_named(tmp_path: Path, env: dict[str, str]) -> None:
    with running(tmp_path, {**env, "CLEF_AGENT_CACHE_TTL": "0"}) as agent:
        assert "[clef-agent] mode: jit" in agent.out_lines
        assert agent.secrets().json == PAYLOAD
        assert agent.request("/v1/health").json["mode"] == "jit"


def test_every_line_of_the_json_format_is_an_object(tmp_path: Path, env: dict[str, str]) -> None:
    with running(tmp_path, {**env, "CLEF_AGENT_LOG_FORMAT": "json"}) as agent:
        replace_file(Path(env["CLEF_AGENT_SOURCE"]), b"no artifact")
        agent.wait_for("reason=json_parse")
        assert agent.stop() == 0

    said = [json.loads(line) for line in agent.out_lines]
    complained = [json.loads(line) for line in agent.err_lines]
    assert "Agent ready. Polling for updates." in [line["message"] for line in said]
    assert {line["level"] for line in said} == {"info"}
    assert {line["level"] for line in complained} == {"error"}


def test_configuration_errors_are_json_too_where_json_is_asked_for(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, {"CLEF_AGENT_LOG_FORMAT": "json"}) as agent:
        assert agent.exit_code() == 1

    assert all(json.loads(line)["level"] == "error" for line in agent.err_lines)
    assert "CLEF_AGENT_SOURCE" in json.loads(agent.err_lines[0])["message"]


# --- what ends the start ----------------------------------------------------------------------


# case 25
def test_all_problems_of_the_configuration_are_told_at_once(tmp_path: Path) -> None:
    env = {
        "CLEF_AGENT_TOKEN": "",
        "CLEF_AGENT_PORT": "70000",
        "CLEF_AGENT_CACHE_TTL": "5",
        "CLEF_AGENT_AGE_KEY": "AGE-SECRET-KEY-1NOTREALLY",
    }
    with AgentProcess(tmp_path, env) as agent:
        told = problems(agent)

    assert agent.out == ""
    for name in ("TOKEN", "PORT", "CACHE_TTL", "AGE_KEY", "SOURCE"):
        assert [line for line in told if line.startswith(f"CLEF_AGENT_{name} ")], name
    assert "CLEF_AGENT_TOKEN is set but empty" in told
    assert "NOTREALLY" not in agent.said


# case 3
def test_a_taken_port_ends_the_start_and_leaves_nothing_behind(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = holder.getsockname()[1]
        token_file = tmp_path / "token"
        taken = {"CLEF_AGENT_PORT": str(port), "CLEF_AGENT_TOKEN_FILE": str(token_file)}
        with AgentProcess(tmp_path, {**env, **taken}) as agent:
            assert problems(agent) == [f"port {port} on 127.0.0.1 is in use by another process"]
        holder.setblocking(False)
        with pytest.raises(BlockingIOError):
            holder.accept()

    assert agent.out == ""
    assert not token_file.exists()
    assert list(agent.runtime_directory.iterdir()) == []


# case 3
def test_a_taken_port_stops_the_agent_before_it_asks_the_source(tmp_path: Path) -> None:
    with socket.socket() as holder, serving(ArtifactStore(packed())) as store:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        port = str(holder.getsockname()[1])
        env = {"CLEF_AGENT_SOURCE": store.url, "CLEF_AGENT_AGE_KEY": AGE_KEY}
        with AgentProcess(tmp_path, {**env, "CLEF_AGENT_PORT": port}) as agent:
            assert agent.exit_code() == 1
        assert store.asked_at == []


def test_what_waiting_cannot_mend_ends_the_start_at_once(
    tmp_path: Path, env: dict[str, str]
) -> None:
    signed_by_other = tmp_path / "other.json"
    signed_by_other.write_bytes(packed(signer=OTHER_ED25519_SIGNER))
    changes = {
        "reason=decrypt": {"CLEF_AGENT_AGE_KEY": OTHER_AGE_KEY},
        "reason=signature_missing": {"CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY},
        "reason=signature_invalid": {
            "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY,
            "CLEF_AGENT_SOURCE": str(signed_by_other),
        },
        "reason=identity_mismatch": {"CLEF_AGENT_EXPECT_IDENTITY": "somebody-else"},
        "there is no directory": {"CLEF_AGENT_SOURCE": str(tmp_path / "none" / "artifact.json")},
    }
    for words, change in changes.items():
        with AgentProcess(tmp_path, {**env, **change}) as agent:
            assert agent.exit_code() == 1
        assert words in agent.err
        assert "[clef-agent] cannot start: the first load failed: " in agent.err
        assert "[clef-agent] hint: " in agent.err
        assert "trying again" not in agent.said
        assert "token: [set]" not in agent.said


@pytest.mark.parametrize(
    ("field", "reason"),
    [("revokedAt", "reason=revoked"), ("expiresAt", "reason=expired")],
)
def test_revoked_or_expired_at_the_start_is_the_end(
    tmp_path: Path, env: dict[str, str], field: str, reason: str
) -> None:
    Path(env["CLEF_AGENT_SOURCE"]).write_bytes(changed(packed(), **{field: "2020-01-01T00:00:00Z"}))
    with AgentProcess(tmp_path, env) as agent:
        assert agent.exit_code() == 1
    assert reason in agent.err
    assert "trying again" not in agent.said


def test_a_file_that_comes_late_is_waited_for(tmp_path: Path, env: dict[str, str]) -> None:
    path = Path(env["CLEF_AGENT_SOURCE"])
    path.unlink()
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_for("trying again in 2 s")
        assert agent.request("/v1/ready").json == {"ready": False, "reason": "not_loaded"}
        assert agent.secrets().status == 503
        replace_file(path, packed())
        agent.wait_until_ready()
        assert agent.secrets().json == PAYLOAD


def test_three_attempts_two_and_four_seconds_apart_then_the_end(tmp_path: Path) -> None:
    with serving(ArtifactStore(b"", status=502)) as store:
        env = {"CLEF_AGENT_SOURCE": store.url, "CLEF_AGENT_AGE_KEY": AGE_KEY}
        with AgentProcess(tmp_path, env) as agent:
            assert agent.exit_code() == 1

    first, second, third = store.asked_at
    assert second - first == pytest.approx(2, abs=1)
    assert third - second == pytest.approx(4, abs=1)
    assert "[clef-agent] trying again in 2 s" in agent.out_lines
    assert "[clef-agent] trying again in 4 s" in agent.out_lines
    assert "502" in agent.err


def test_a_retry_after_replaces_the_wait(tmp_path: Path) -> None:
    with serving(ArtifactStore(b"", status=429, headers={"Retry-After": "1"})) as store:
        env = {"CLEF_AGENT_SOURCE": store.url, "CLEF_AGENT_AGE_KEY": AGE_KEY}
        with AgentProcess(tmp_path, env) as agent:
            agent.wait_for("trying again in 1 s")
            store.status, store.headers, store.body = 200, {}, packed()
            agent.wait_until_ready()
    assert store.asked_at[1] - store.asked_at[0] < 1.9


# --- token and keys ---------------------------------------------------------------------------


# case 25
def test_a_generated_token_lies_in_a_file_that_the_log_names_and_clients_find(
    tmp_path: Path, env: dict[str, str]
) -> None:
    port = free_port()
    runtime = tmp_path / "runtime"
    runtime.mkdir(mode=0o700)
    place = {"RUNTIME_DIRECTORY": str(runtime), "CLEF_AGENT_PORT": str(port)}
    token_file = runtime / f"token-{port}"
    with AgentProcess(tmp_path, {**env, **place}, without=("CLEF_AGENT_TOKEN",)) as agent:
        agent.wait_until_ready()
        token = token_file.read_text().strip()
        found = clef_agent("get", "DATABASE_URL", env=place)
        answer = agent.request("/v1/keys", token=token)

    assert found.stdout.decode().strip() == "postgres://db/app"
    assert answer.status == 200
    assert stat.S_IMODE(token_file.stat().st_mode) == 0o600
    assert [line for line in agent.out_lines if str(token_file) in line] == [agent.out_lines[0]]
    assert len(token) == 64
    assert token not in agent.said


# case 26
def test_a_key_file_that_cannot_be_read_ends_the_start(tmp_path: Path, env: dict[str, str]) -> None:
    del env["CLEF_AGENT_AGE_KEY"]
    with AgentProcess(tmp_path, {**env, "CLEF_AGENT_AGE_KEY_FILE": str(tmp_path)}) as agent:
        (line,) = problems(agent)
    assert line.startswith("CLEF_AGENT_AGE_KEY_FILE cannot be read")


# case 26
@pytest.mark.parametrize("content", [None, "", "# no key in here\n", "AGE-SECRET-KEY-1NONE\n"])
def test_a_key_file_without_a_usable_key_ends_the_start(
    tmp_path: Path, env: dict[str, str], content: str | None
) -> None:
    key_file = tmp_path / "key"
    if content is not None:
        key_file.write_text(content)
    del env["CLEF_AGENT_AGE_KEY"]
    with AgentProcess(tmp_path, {**env, "CLEF_AGENT_AGE_KEY_FILE": str(key_file)}) as agent:
        (line,) = problems(agent)
    assert line.startswith("CLEF_AGENT_AGE_KEY_FILE ")
    assert "1NONE" not in agent.said


# case 26
def test_every_key_of_a_file_is_tried_and_a_rotated_file_is_read_anew(
    tmp_path: Path, env: dict[str, str]
) -> None:
    key_file = tmp_path / "key"
    key_file.write_text(f"# the old one\n{OTHER_AGE_KEY}\n\n# the new one\n{AGE_KEY}\n")
    del env["CLEF_AGENT_AGE_KEY"]
    newest_key = pyrage.x25519.Identity.generate()
    with running(tmp_path, {**env, "CLEF_AGENT_AGE_KEY_FILE": str(key_file)}) as agent:
        assert agent.secrets().json == PAYLOAD
        replace_file(key_file, f"{newest_key}\n".encode())
        rotated = packed({"app": {"KEY": "rotated"}}, recipient=str(newest_key.to_public()))
        replace_file(Path(env["CLEF_AGENT_SOURCE"]), rotated)
        assert agent.refresh().status == 200
        assert agent.secrets().json == {"app": {"KEY": "rotated"}}


# --- the way to ready -------------------------------------------------------------------------


@pytest.mark.parametrize("verify", [False, True])
def test_nothing_heavy_is_imported_on_the_way_to_ready(
    tmp_path: Path, env: dict[str, str], verify: bool
) -> None:
    heavy = set(HEAVY)
    if verify:
        heavy.remove("cryptography")  # it is what checks a signature
        env["CLEF_AGENT_VERIFY_KEY"] = ED25519_VERIFY_KEY
        Path(env["CLEF_AGENT_SOURCE"]).write_bytes(
            packed(signer=ED25519_SIGNER, recipient=AGE_RECIPIENT)
        )
    with AgentProcess(tmp_path, env, interpreter=("-X", "importtime")) as agent:
        agent.wait_until_ready()
        assert agent.secrets().status == 200
        assert agent.stop() == 0

    imported = {line.rpartition("|")[2].strip().partition(".")[0] for line in agent.err_lines}
    assert {"uvicorn", "pyrage", "clef_agent"} <= imported
    assert heavy & imported == set()


# case 27
def test_localhost_is_a_name_of_the_agent_and_others_are_not(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(tmp_path, env) as agent:
        for host in (f"localhost:{agent.port}", "LOCALHOST", f"127.0.0.1:{agent.port}"):
            assert agent.request("/v1/secrets", headers={"Host": host}).status == 200
        for host in ("attacker.example", f"localhost:{agent.port + 1}"):
            assert agent.request("/v1/secrets", headers={"Host": host}).status == 403


# case 24
def test_the_probes_need_no_shell_and_can_wait(tmp_path: Path, env: dict[str, str]) -> None:
    path = Path(env["CLEF_AGENT_SOURCE"])
    path.unlink()
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_for("trying again")
        place = {"CLEF_AGENT_PORT": str(agent.port)}
        unready = clef_agent("ready", env=place)
        assert (unready.returncode, clef_agent("health", env=place).returncode) == (1, 0)
        assert b"not_loaded" in unready.stderr
        waiting = threading.Timer(0.1, replace_file, (path, packed()))
        waiting.start()
        ready = clef_agent("ready", "--wait", "20", env=place)
        waiting.join()
        assert (ready.returncode, ready.stdout) == (0, b"ready\n")
        agent.stop()
        gone = time.monotonic()
        assert clef_agent("health", env=place).returncode == 1
        assert clef_agent("ready", "--wait", "0.3", env=place).returncode == 1
        assert time.monotonic() - gone < 10


def test_the_token_of_the_tests_is_the_one_asked_for(tmp_path: Path, env: dict[str, str]) -> None:
    with running(tmp_path, env) as agent:
        assert agent.request("/v1/secrets", token=None).status == 401
        assert agent.request("/v1/secrets", token="another").status == 401
        assert agent.request("/v1/secrets", token=TOKEN).status == 200
