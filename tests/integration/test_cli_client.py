"""``get``, ``keys``, ``secrets``, ``health``, ``ready`` as processes, with a scripted agent."""

from __future__ import annotations

import json
import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from clef_agent.token_file import served_token
from command_line import agent_command, clef_agent

TOKEN = "the-token"
#: Where nobody answers: whatever goes through a proxy gets lost there.
BLACK_HOLE = "http://127.0.0.1:9"
PROXIES = {
    name: BLACK_HOLE
    for lower in ("http_proxy", "https_proxy", "all_proxy")
    for name in (lower, lower.upper())
}


@dataclass
class Script:
    """What the scripted agent answers by path, and what it was asked."""

    answers: dict[str, tuple[int, object]] = field(default_factory=dict)
    headers: dict[str, str] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)


@dataclass
class ScriptedAgent:
    script: Script
    port: int
    env: dict[str, str]


def handler_for(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            script.asked.append((self.path, dict(self.headers)))
            authorization = self.headers.get("Authorization")
            status, body = script.answers.get(self.path, (404, {"error": "Not found"}))
            if self.path not in ("/v1/health", "/v1/ready") and authorization != f"Bearer {TOKEN}":
                status, body = 401, {"error": "Unauthorized"}
            data = body if isinstance(body, bytes) else json.dumps(body).encode()
            self.send_response(status)
            for name, value in {"Content-Length": str(len(data)), **script.headers}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - its name there
            pass

    return Handler


@pytest.fixture
def agent() -> Iterator[ScriptedAgent]:
    script = Script()
    with ThreadingHTTPServer(("127.0.0.1", 0), handler_for(script)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        port = server.server_address[1]
        yield ScriptedAgent(script, port, {"CLEF_AGENT_PORT": str(port), "CLEF_AGENT_TOKEN": TOKEN})
        server.shutdown()


def failure(process: subprocess.CompletedProcess[bytes]) -> tuple[str, str]:
    """The line and the hint of a failure, which prints nothing else."""
    assert (process.returncode, process.stdout) == (1, b"")
    line, hint = process.stderr.decode().splitlines()
    return line.removeprefix("[clef-agent] "), hint.removeprefix("[clef-agent] hint: ")


@pytest.fixture
def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- get --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("raw", "end"), [((), b"\n"), (("--raw",), b""), (("-n",), b"")])
def test_get_prints_the_value_to_the_letter(
    agent: ScriptedAgent, raw: tuple[str, ...], end: bytes
) -> None:
    agent.script.answers["/v1/secrets/app__KEY"] = (200, {"value": " é\x1b[1m\n☃ "})

    process = clef_agent("get", *raw, "app__KEY", env={**agent.env, "LC_ALL": "C"})

    assert process.stdout == " é\x1b[1m\n☃ ".encode() + end
    assert (process.returncode, process.stderr) == (0, b"")


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("KEY", "/v1/secrets/KEY"),
        ("app/KEY", "/v1/secrets/app/KEY"),
        ("a/b/c", "/v1/secrets/a/b%2Fc"),
        ("ü/a b", "/v1/secrets/%C3%BC/a%20b"),
        ("a?b#c%2F", "/v1/secrets/a%3Fb%23c%252F"),
        ("..", "/v1/secrets/.."),
        ("/KEY", "/v1/secrets/%2FKEY"),
    ],
)
def test_get_encodes_each_part_of_the_name(agent: ScriptedAgent, key: str, path: str) -> None:
    agent.script.answers[path] = (200, {"value": "v"})

    assert clef_agent("get", "--", key, env=agent.env).stdout == b"v\n"
    assert agent.script.asked[0][0] == path


def test_get_finds_a_key_that_has_a_slash_itself(agent: ScriptedAgent) -> None:
    agent.script.answers["/v1/secrets/a%2Fb"] = (200, {"value": "v"})

    assert clef_agent("get", "a/b", env=agent.env).stdout == b"v\n"


def test_get_says_that_there_is_no_such_secret(agent: ScriptedAgent) -> None:
    line, hint = failure(clef_agent("get", "NONE", env=agent.env))

    assert line == "there is no secret NONE"
    assert "clef-agent keys" in hint


# case 9
def test_get_lists_the_candidates_of_an_ambiguous_name(agent: ScriptedAgent) -> None:
    agent.script.answers["/v1/secrets/KEY"] = (
        409,
        {"error": "Ambiguous", "candidates": ["app__KEY", "mail__KEY"]},
    )

    line, _ = failure(clef_agent("get", "KEY", env=agent.env))

    assert line == "several secrets are called KEY: app__KEY, mail__KEY"


def test_get_without_a_name_is_wrong_usage() -> None:
    assert clef_agent("get").returncode == 2
    assert clef_agent("get", "").returncode == 2


# --- keys and secrets -------------------------------------------------------------------------


def test_keys_are_printed_one_a_line_or_as_json(agent: ScriptedAgent) -> None:
    agent.script.answers["/v1/keys"] = (200, ["app__A", "odd\nname"])

    assert clef_agent("keys", env=agent.env).stdout == b"app__A\nodd\\nname\n"
    as_json = clef_agent("keys", "--json", env=agent.env).stdout
    assert json.loads(as_json) == ["app__A", "odd\nname"]


def test_secrets_are_printed_as_json_nested_or_flat(agent: ScriptedAgent) -> None:
    agent.script.answers["/v1/secrets"] = (200, {"app": {"A": "é"}})
    agent.script.answers["/v1/secrets?format=flat"] = (200, {"app__A": "é"})

    assert json.loads(clef_agent("secrets", env=agent.env).stdout) == {"app": {"A": "é"}}
    assert json.loads(clef_agent("secrets", "--flat", env=agent.env).stdout) == {"app__A": "é"}


def test_colliding_names_are_told_and_not_merged(agent: ScriptedAgent) -> None:
    agent.script.answers["/v1/secrets?format=flat"] = (
        409,
        {"error": "Ambiguous", "candidates": ["a__b/c", "a/b__c"]},
    )

    line, _ = failure(clef_agent("secrets", "--flat", env=agent.env))

    assert line.endswith(": a__b/c, a/b__c")


def test_an_agent_with_nothing_to_serve_says_why(agent: ScriptedAgent) -> None:
    agent.script.answers["/v1/secrets"] = (
        503,
        {"error": "Unavailable", "reason": "cache_expired", "detail": "the source answered 500"},
    )

    line, hint = failure(clef_agent("secrets", env=agent.env))

    assert line.endswith("has nothing to serve: cache_expired: the source answered 500")
    assert "CLEF_AGENT_CACHE_TTL" in hint


# --- the token --------------------------------------------------------------------------------


# case 25
def test_the_token_that_an_agent_left_is_found(agent: ScriptedAgent, tmp_path: Path) -> None:
    agent.script.answers["/v1/keys"] = (200, [])
    del agent.env["CLEF_AGENT_TOKEN"]
    env = {**agent.env, "XDG_RUNTIME_DIR": str(tmp_path), "TMPDIR": str(tmp_path)}
    left = served_token(value=None, token_file=None, port=agent.port, env=env)
    assert left.path is not None
    Path(left.path).write_text(TOKEN)

    assert clef_agent("keys", env=env).returncode == 0


def test_a_missing_token_is_told_with_every_place_that_was_searched(
    agent: ScriptedAgent, tmp_path: Path
) -> None:
    del agent.env["CLEF_AGENT_TOKEN"]

    line, hint = failure(clef_agent("keys", env={**agent.env, "XDG_RUNTIME_DIR": str(tmp_path)}))

    assert line.endswith("asks for a token, and none was found")
    assert f"{tmp_path}/clef-agent/token-{agent.port}" in hint
    assert "CLEF_AGENT_TOKEN_FILE (not set)" in hint


def test_a_token_that_is_refused_is_told_by_its_place_and_not_printed(
    agent: ScriptedAgent,
) -> None:
    line, hint = failure(clef_agent("keys", env={**agent.env, "CLEF_AGENT_TOKEN": "wrong-token"}))

    assert "does not accept the token" in line
    assert "CLEF_AGENT_TOKEN" in hint
    assert "wrong-token" not in line + hint


def test_an_empty_token_variable_is_an_error_before_anything_is_sent(agent: ScriptedAgent) -> None:
    line, _ = failure(clef_agent("keys", env={**agent.env, "CLEF_AGENT_TOKEN": ""}))

    assert line == "CLEF_AGENT_TOKEN is empty"
    assert agent.script.asked == []


# --- the way there ----------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["keys", "health", "ready"])
def test_proxy_variables_are_ignored(agent: ScriptedAgent, command: str) -> None:
    for path in ("/v1/keys", "/v1/health", "/v1/ready"):
        agent.script.answers[path] = (200, [] if path == "/v1/keys" else {})

    assert clef_agent(command, env={**agent.env, **PROXIES}).returncode == 0


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("command", ["keys", "health"])
def test_no_redirect_is_followed(agent: ScriptedAgent, status: int, command: str) -> None:
    agent.script.headers["Location"] = f"http://127.0.0.1:{agent.port}/elsewhere"
    agent.script.answers[f"/v1/{command}"] = (status, {})

    line, _ = failure(clef_agent(command, env=agent.env))

    assert f"a redirect ({status})" in line
    assert [path for path, _ in agent.script.asked] == [f"/v1/{command}"]


def test_the_literal_loopback_address_is_used(agent: ScriptedAgent) -> None:
    agent.script.answers["/clef/v1/keys"] = (200, [])
    env = {**agent.env, "CLEF_ENDPOINT": f"http://localhost:{agent.port}/clef/"}

    assert clef_agent("keys", env=env).returncode == 0
    assert agent.script.asked[0][1]["Host"] == f"127.0.0.1:{agent.port}"


@pytest.mark.parametrize("endpoint", ["http://agent.example:7779", "127.0.0.1:7779", ""])
def test_an_endpoint_that_no_token_may_go_to_is_refused(endpoint: str) -> None:
    line, hint = failure(clef_agent("get", "KEY", env={"CLEF_ENDPOINT": endpoint}))

    assert line.startswith("CLEF_ENDPOINT ")
    assert "http://127.0.0.1:PORT" in hint


def test_a_unix_socket_is_an_endpoint(tmp_path: Path) -> None:
    class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
        def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
            connection, _ = super().get_request()
            return connection, ("unix", 0)

    script = Script({"/v1/secrets/KEY": (200, {"value": "v"})})
    path = tmp_path / "agent.sock"
    with Server(str(path), handler_for(script)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        env = {"CLEF_ENDPOINT": f"unix://{path}", "CLEF_AGENT_TOKEN": TOKEN}

        process = clef_agent("get", "KEY", env=env)
        server.shutdown()

    assert (process.returncode, process.stdout) == (0, b"v\n")


@pytest.mark.parametrize("command", [("get", "KEY"), ("keys",), ("health",), ("ready",)])
def test_when_no_agent_listens_it_is_said_where_and_how_to_start_one(
    free_port: int, command: tuple[str, ...]
) -> None:
    env = {"CLEF_AGENT_PORT": str(free_port), "CLEF_AGENT_TOKEN": TOKEN}

    line, hint = failure(clef_agent(*command, env=env))

    assert line == f"no agent listens at http://127.0.0.1:{free_port}"
    assert "clef-agent dev" in hint


def test_a_socket_that_is_not_there_is_no_agent_either(tmp_path: Path) -> None:
    env = {"CLEF_ENDPOINT": f"unix://{tmp_path}/agent.sock"}

    assert failure(clef_agent("health", env=env))[0].startswith("no agent listens at unix://")


@pytest.mark.parametrize("body", [b"<html>", b"", b"\xff", b"[" * 100_000])
def test_what_is_no_clef_agent_is_told(agent: ScriptedAgent, body: bytes) -> None:
    agent.script.answers["/v1/health"] = (200, body)

    line, _ = failure(clef_agent("health", env=agent.env))

    assert line.endswith("is not a clef-agent: its answer is not JSON")


def test_a_server_that_speaks_no_http_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:

        def answer() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65536)
                connection.sendall(b"220 mail.example ESMTP\r\n")

        threading.Thread(target=answer, daemon=True).start()
        port = server.getsockname()[1]

        line, _ = failure(clef_agent("health", env={"CLEF_AGENT_PORT": str(port)}))

    assert line.endswith("is not a clef-agent: its answer is not HTTP")


# --- probes: case 24 --------------------------------------------------------------------------


def test_health_needs_no_token_and_tells_the_mode(agent: ScriptedAgent) -> None:
    del agent.env["CLEF_AGENT_TOKEN"]
    agent.script.answers["/v1/health"] = (200, {"status": "ok", "mode": "jit", "revision": None})

    process = clef_agent("health", env=agent.env)

    assert (process.returncode, process.stdout) == (0, b"healthy (mode jit, revision none yet)\n")
    assert "Authorization" not in agent.script.asked[0][1]


def test_ready_succeeds_or_prints_the_reason(agent: ScriptedAgent) -> None:
    agent.script.answers["/v1/ready"] = (503, {"ready": False, "reason": "artifact_expired"})
    line, hint = failure(clef_agent("ready", env=agent.env))
    agent.script.answers["/v1/ready"] = (200, {"ready": True})
    process = clef_agent("ready", env=agent.env)

    assert line == "not ready: artifact_expired"
    assert "Pack" in hint
    assert (process.returncode, process.stdout) == (0, b"ready\n")


def test_ready_waits_for_an_agent_that_does_not_listen_yet(free_port: int) -> None:
    script = Script({"/v1/ready": (200, {"ready": True})})
    waiting = subprocess.Popen(
        [*agent_command(), "ready", "--wait", "30"],
        env={"CLEF_AGENT_PORT": str(free_port)},
        stdout=subprocess.PIPE,
    )
    with ThreadingHTTPServer(("127.0.0.1", free_port), handler_for(script)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        output, _ = waiting.communicate(timeout=30)
        server.shutdown()

    assert (waiting.returncode, output) == (0, b"ready\n")


def test_ready_gives_up_when_the_time_is_over(free_port: int) -> None:
    env = {"CLEF_AGENT_PORT": str(free_port)}

    assert "no agent listens" in failure(clef_agent("ready", "--wait", "0.3", env=env))[0]


@pytest.mark.parametrize("wait", ["-1", "soon", "nan"])
def test_a_time_to_wait_that_is_none_is_wrong_usage(wait: str) -> None:
    assert clef_agent("ready", f"--wait={wait}").returncode == 2


# --- the program ------------------------------------------------------------------------------


PRINTING = [["health"], ["ready"], ["get", "KEY"], ["keys"], ["--help"], ["--version"]]


@pytest.fixture
def talkative(agent: ScriptedAgent) -> ScriptedAgent:
    agent.script.answers.update(
        {
            "/v1/health": (200, {}),
            "/v1/ready": (200, {"ready": True}),
            "/v1/secrets/KEY": (200, {"value": "v" * 100_000}),
            "/v1/keys": (200, ["KEY"]),
        }
    )
    return agent


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is Linux's")
@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_full_disk_under_the_output_is_said(talkative: ScriptedAgent, command: list[str]) -> None:
    with Path("/dev/full").open("wb") as full:
        done = subprocess.run(
            [*agent_command(), *command],
            env=talkative.env, stdout=full, stderr=subprocess.PIPE, check=False, timeout=30,
        )  # fmt: skip
    assert done.stderr.decode() == (
        "[clef-agent] standard output cannot be written: No space left on device\n"
    )
    assert done.returncode == 1


@pytest.mark.parametrize("command", PRINTING, ids=" ".join)
def test_a_reader_that_has_gone_is_nothing_to_talk_about(
    talkative: ScriptedAgent, command: list[str]
) -> None:
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = subprocess.run(
            [*agent_command(), *command],
            env=talkative.env, stdout=writing, stderr=subprocess.PIPE, check=False, timeout=30,
        )  # fmt: skip
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, b"")


#: What a probe does without, and what a plain one does besides, which needs no command line.
HEAVY = "asyncio boto3 cryptography httpx opentelemetry pyrage rich uvicorn uvloop"
HEAVIER = "click dataclasses encodings.idna inspect threading typer urllib.parse"


@pytest.mark.parametrize(
    ("imported", "call", "without"),
    [
        ("clef_agent.cli.app import app", "app(['health'])", HEAVY),
        ("clef_agent.__main__ import main", "main()", f"{HEAVY} {HEAVIER}"),
    ],
    ids=["by the command line", "plain"],
)
def test_probes_import_nothing_that_they_can_do_without(
    agent: ScriptedAgent, imported: str, call: str, without: str
) -> None:
    agent.script.answers["/v1/health"] = (200, {})
    program = (
        "import sys\n"
        f"from {imported}\n"
        "try:\n"
        f"    {call}\n"
        "except SystemExit as end:\n"
        "    assert end.code == 0\n"
        f"print(sorted(set({without!r}.split()) & set(sys.modules)))\n"
    )

    process = subprocess.run(
        [sys.executable, "-c", program, "health"], env=agent.env, capture_output=True, check=True
    )

    assert process.stdout.decode().splitlines()[-1] == "[]"


def test_the_version_is_printed() -> None:
    from clef_agent import __version__

    assert clef_agent("--version").stdout.decode() == f"clef-agent {__version__}\n"


def test_help_names_every_command_and_explains_every_argument() -> None:
    text = clef_agent("--help").stdout.decode()
    asking = ("get", "keys", "secrets", "health", "ready")
    making = ("pack", "inspect", "verify", "revoke", "keygen")

    assert [command for command in ("dev", *asking, *making) if f"│ {command} " not in text] == []
    assert "NAMESPACE/KEY" in clef_agent("get", "-h").stdout.decode()


def test_an_unknown_command_is_wrong_usage() -> None:
    assert clef_agent("nonsense").returncode == 2


@pytest.mark.parametrize("command", [("health",), ("ready",), ("ready", "--wait", "9"), ("keys",)])
def test_a_person_who_gives_up_waiting_sees_no_traceback(command: tuple[str, ...]) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        env = {"PATH": os.environ["PATH"], "CLEF_AGENT_PORT": str(silent.getsockname()[1]),
               "CLEF_AGENT_TOKEN": TOKEN}  # fmt: skip
        asking = subprocess.Popen(
            [*agent_command(), *command], env=env, stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        silent.settimeout(30)
        connection, _ = silent.accept()
        with connection:
            connection.recv(1)
            asking.send_signal(signal.SIGINT)
            out, err = asking.communicate(timeout=30)
    assert (asking.returncode, out) == (130, b"")
    assert b"Traceback" not in err
