"""The first pages' code, typed into a shell as it stands there: make, serve, ask, run, watch."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_process import eventually, replace_file, running
from documents import block, with_each
from fakes import AGE_KEY, packed
from otlp_collector import Collector, collecting
from terminal import Terminal, needs

#: The value that README's sample has, as a file and as what is served.
VALUE = "postgres://db/app"


# --- README -----------------------------------------------------------------------------------


def test_the_sample_is_what_the_line_to_paste_gets(tmp_path: Path) -> None:
    needs("curl")
    terminal = Terminal(tmp_path)
    shown = json.loads(block("README.md", "clef-agent", 2).text)
    with terminal.stays_in("clef-agent dev") as agent:
        agent.wait_for("Ctrl+C ends it")
        served = terminal.types(block("README.md", "clef-agent", 1).text, TOKEN=terminal.token)
    assert names(json.loads(served)) == names(shown)


def names(payload: dict[str, dict[str, str]]) -> dict[str, list[str]]:
    return {namespace: [*values] for namespace, values in payload.items()}


@pytest.fixture(scope="module")
def first_minute(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Terminal]:
    """The terminal in which the agent of README's first minute runs."""
    terminal = Terminal(tmp_path_factory.mktemp("minute"))
    text = block("README.md", "One minute to a first secret").text
    with terminal.stays_in(text) as agent:
        agent.wait_until_ready()
        yield terminal


def test_the_first_minute_ends_with_a_secret(first_minute: Terminal) -> None:
    text = block("README.md", "One minute to a first secret", 1).text
    assert first_minute.types(text) == f"{VALUE}\n"
    assert "age1" not in (first_minute.work / ".env").read_text()
    assert VALUE not in (first_minute.work / "api.production.json").read_text()


def test_each_request_by_curl_is_answered(first_minute: Terminal) -> None:
    needs("curl")
    text = block("README.md", "One minute to a first secret", 2).text
    typed = with_each(text, {"TOKEN=...": f"TOKEN={first_minute.token}"})
    answers = [*documents_in(first_minute.types(typed))]
    secrets = {"DATABASE_URL": VALUE}
    assert answers == [secrets, {"value": VALUE}, secrets, secrets]


def documents_in(text: str) -> Iterator[Any]:
    """JSON documents that follow each other."""
    decoder, at = json.JSONDecoder(), 0
    while at < len(text):
        document, at = decoder.raw_decode(text, at)
        yield document


def test_python_gets_it_too(first_minute: Terminal) -> None:
    code = block("README.md", "One minute to a first secret", 3).text
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nprint(database_url)"],
        env={
            "CLEF_ENDPOINT": f"http://127.0.0.1:{first_minute.port}",
            "CLEF_AGENT_TOKEN": first_minute.token,
        },
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.stdout, done.stderr) == (f"{VALUE}\n", "")


# --- exec -------------------------------------------------------------------------------------

#: Says which variable it has; with the short name it goes on until it is told to end.
SERVER = """#!/bin/sh
echo "long:${app__KEY:-} short:${KEY:-}"
[ -n "${KEY:-}" ] || exit 0
trap 'exit 0' TERM
while :; do sleep 0.1; done
"""


def with_server(home: Path) -> Terminal:
    """A terminal with the program of the page in its directory."""
    terminal = Terminal(home)
    server = terminal.work / "server"
    server.write_text(SERVER)
    server.chmod(0o755)
    return terminal


def test_a_program_gets_its_secrets_and_is_started_anew_when_they_change(tmp_path: Path) -> None:
    source = tmp_path / "artifact.json"
    source.write_bytes(packed({"app": {"KEY": "old"}}))
    terminal = with_server(tmp_path / "terminal")
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    text = block("docs/exec.md", "Programs that read environment variables").text
    with terminal.stays_in(text, **env) as programs:
        programs.wait_for("long:old short:")
        programs.wait_for("long: short:old")
        replace_file(source, packed({"app": {"KEY": "new"}}, packed_at=1_800_000_001))
        programs.wait_for("long: short:new")


def test_a_program_asks_the_running_agent_where_no_source_is_set(tmp_path: Path) -> None:
    source = tmp_path / "artifact.json"
    source.write_bytes(packed({"app": {"KEY": "running"}}))
    terminal = with_server(tmp_path / "terminal")
    with running(tmp_path, {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": AGE_KEY}) as of:
        env = {"CLEF_AGENT_PORT": str(of.port), "CLEF_AGENT_TOKEN": of.env["CLEF_AGENT_TOKEN"]}
        assert "long:running" in terminal.types("clef-agent exec -- ./server", **env)


# --- telemetry --------------------------------------------------------------------------------


def test_the_collector_is_told_with_the_credentials_that_were_packed(tmp_path: Path) -> None:
    dotenv = block("docs/telemetry.md", "Telemetry", 1).text
    headers = told(tmp_path / "headers", dotenv)
    assert (headers["dd-api-key"], headers["x-scope"]) == ("abc123", "7")
    assert "authorization" not in headers
    without_headers = "".join(
        line for line in dotenv.splitlines(keepends=True) if "CLEF_TELEMETRY_HEADERS" not in line
    )
    assert told(tmp_path / "token", without_headers)["authorization"] == "Bearer ..."


def told(home: Path, dotenv: str) -> dict[str, str]:
    """The headers with which the agent of the page tells of an artifact made of ``dotenv``."""
    terminal = Terminal(home)
    (terminal.work / ".env").write_text(dotenv)
    pack(terminal)
    with collecting(Collector()) as collector:
        text = with_each(
            block("docs/telemetry.md", "Telemetry").text,
            {"https://otel.example.com:4318": collector.origin},
        )
        with terminal.stays_in(text, **OPENED) as agent:
            eventually(lambda: "artifact.refreshed" in collector.names, "news of the artifact")
            assert agent.process.poll() is None
        return dict(collector.posts[0].headers)


OPENED = {"CLEF_AGENT_SOURCE": "artifact.json", "CLEF_AGENT_AGE_KEY_FILE": "age.key"}


def pack(terminal: Terminal) -> None:
    terminal.types(
        "clef-agent pack .env --identity api --environment production"
        " --recipient $(clef-agent keygen --output age.key) --output artifact.json"
    )
