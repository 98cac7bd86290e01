"""``clef-agent dev`` as a person meets it."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from agent_process import PATIENCE_S, TOKEN, AgentProcess, eventually, replace_file
from command_line import clef_agent

#: One second is promised; the rest is for a busy machine.
START_S = 5.0
GREETING_ENDS = "Ctrl+C ends it"


def curl_line(agent: AgentProcess) -> str:
    """The line to paste, as it was printed."""
    agent.wait_for(GREETING_ENDS)
    (line,) = [line for line in agent.out_lines if line.strip().startswith("curl ")]
    return line


def test_the_printed_curl_line_works_within_seconds_of_the_start(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    with AgentProcess(tmp_path, {}, "dev", without=("CLEF_AGENT_TOKEN",)) as agent:
        line = curl_line(agent)
        pasted = subprocess.run(
            ["sh", "-c", line], capture_output=True, timeout=PATIENCE_S, check=False
        )
        assert time.monotonic() - agent.started < START_S
        assert pasted.returncode == 0, pasted.stderr
        assert json.loads(pasted.stdout)["mail"] == {"SMTP_PASSWORD": "battery-staple"}
        assert f"http://127.0.0.1:{agent.port}" in agent.out
        assert agent.err == ""


def test_dev_honours_the_port_and_a_token_with_quotes(tmp_path: Path) -> None:
    if shutil.which("curl") is None:
        pytest.skip("there is no curl here")
    env = {"CLEF_AGENT_TOKEN": "o'clock $HOME `id`"}
    with AgentProcess(tmp_path, env, "dev") as agent:
        line = curl_line(agent)
        pasted = subprocess.run(["sh", "-c", line], capture_output=True, check=True)
        assert "app" in json.loads(pasted.stdout)
        assert f":{agent.port}/" in line


def test_dev_ignores_a_production_configuration_around_it(tmp_path: Path) -> None:
    env = {
        "CLEF_AGENT_SOURCE": "https://store.example/artifact.json",
        "CLEF_AGENT_AGE_KEY": "AGE-SECRET-KEY-1NONE",
        "CLEF_AGENT_VERIFY_KEY": "none",
        "CLEF_AGENT_CACHE_TTL": "0",
    }
    with AgentProcess(tmp_path, env, "dev") as agent:
        agent.wait_for(GREETING_ENDS)
        assert agent.secrets().status == 200
        assert "mode: cached" in agent.out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_ends_it_without_a_trace(tmp_path: Path, number: signal.Signals) -> None:
    with AgentProcess(tmp_path, {}, "dev") as agent:
        agent.wait_for(GREETING_ENDS)
        assert agent.stop(number) == 0
    assert agent.err == ""


@pytest.mark.parametrize(
    ("name", "first", "edited", "broken"),
    [
        (".env", b"KEY=one\n", b"KEY=two\nNEW='a b'\n", b"KEY=one\nno assignment\n"),
        ("app.json", b'{"KEY":"one"}', b'{"KEY":"two","NEW":"a b"}', b'{"KEY":'),
    ],
)
def test_a_file_is_served_and_its_edits_are_followed(
    tmp_path: Path, name: str, first: bytes, edited: bytes, broken: bytes
) -> None:
    file = tmp_path / name
    file.write_bytes(first)
    with AgentProcess(tmp_path, {}, "dev", str(file)) as agent:
        agent.wait_for(GREETING_ENDS)
        assert agent.secrets().json == {"KEY": "one"}

        replace_file(file, edited)
        replaced = time.monotonic()
        eventually(lambda: agent.secrets().json == {"KEY": "two", "NEW": "a b"}, "the edit")
        assert time.monotonic() - replaced < 4

        file.write_bytes(broken)  # in place, as many editors do
        complaint = agent.wait_for("fetch failed")
        assert complaint in agent.err_lines
        assert str(file) in complaint
        assert complaint.endswith("until then the secrets from before are served.")
        assert agent.secrets().json == {"KEY": "two", "NEW": "a b"}

        file.write_bytes(first)
        eventually(lambda: agent.secrets().json == {"KEY": "one"}, "the mended file")
        assert "a b" not in agent.said


@pytest.mark.parametrize(
    ("name", "content"),
    [("none.env", None), ("broken.env", b"no assignment"), ("broken.json", b'{"KEY": 1}')],
)
def test_a_file_that_cannot_be_served_ends_the_start(
    tmp_path: Path, name: str, content: bytes | None
) -> None:
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with AgentProcess(tmp_path, {}, "dev", str(tmp_path / name)) as agent:
        assert agent.exit_code() == 1
    assert agent.out == ""
    line, hint = agent.err_lines
    assert line.startswith(f"[clef-agent] {tmp_path / name}")
    assert hint.startswith("[clef-agent] hint: ")


# case 3
def test_a_second_dev_on_the_same_port_says_who_is_in_its_way(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, {}, "dev") as agent:
        agent.wait_for(GREETING_ENDS)
        second = clef_agent("dev", env={"CLEF_AGENT_PORT": str(agent.port)})
    assert second.returncode == 1
    assert b"is in use by another process" in second.stderr
    assert second.stdout == b""


def test_the_commands_of_the_readme_find_a_dev_agent(tmp_path: Path) -> None:
    with AgentProcess(tmp_path, {}, "dev") as agent:
        agent.wait_for(GREETING_ENDS)
        place = {"CLEF_AGENT_PORT": str(agent.port), "CLEF_AGENT_TOKEN": TOKEN}
        assert clef_agent("get", "API_KEY", env=place).stdout == b"sample-api-key-7f3a\n"
        assert clef_agent("health", env=place).returncode == 0
