"""The HTTP API of a running agent, asked by its port and by its Unix socket."""

from __future__ import annotations

import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from fakes import AGE_KEY, packed

TOKEN = "correct-horse"
PAYLOAD = {"app": {"KEY": "a", "a/b": "slash", "100%": "percent"}, "web": {"KEY": "w"}}
NEXT = {"app": {"KEY": "next"}}
PATIENCE_S = 20.0


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str) -> None:
        super().__init__("anything.example", timeout=PATIENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(PATIENCE_S)
        self.sock.connect(self._path)


@dataclass(frozen=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Agent:
    process: subprocess.Popen[bytes]
    port: int
    artifact: Path
    unix_path: str

    def ask(
        self,
        target: str,
        method: str = "GET",
        *,
        token: str | None = TOKEN,
        unix: bool = False,
        **headers: str,
    ) -> Answer:
        connection = (
            UnixConnection(self.unix_path)
            if unix
            else http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        )
        try:
            given = {name.replace("_", "-"): value for name, value in headers.items()}
            if token is not None:
                given["Authorization"] = f"Bearer {token}"
            connection.request(method, target, headers=given)
            response = connection.getresponse()
            return Answer(response.status, response.headers, response.read())
        finally:
            connection.close()

    def publish(self, data: bytes) -> None:
        fresh = self.artifact.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(self.artifact)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture(params=["300", "0"], ids=["cached", "jit"])
def agent(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Agent]:
    now = time.time()
    artifact, unix_path = tmp_path / "artifact.json", str(tmp_path / "s")
    artifact.write_bytes(packed(PAYLOAD, packed_at=now))
    port = free_port()
    env = {
        "PATH": os.environ["PATH"],
        "CLEF_AGENT_SOURCE": str(artifact),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_TOKEN": TOKEN,
        "CLEF_AGENT_PORT": str(port),
        "CLEF_AGENT_CACHE_TTL": request.param,
        "CLEF_AGENT_SOCKET": unix_path,
    }
    process = subprocess.Popen([sys.executable, "-m", "clef_agent"], env=env)
    agent = Agent(process, port, artifact, unix_path)
    try:
        wait_until_ready(agent)
        yield agent
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait(PATIENCE_S) == 0
        assert not Path(unix_path).exists()


def wait_until_ready(agent: Agent) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while True:
        try:
            if agent.ask("/v1/ready").status == 200:
                return
        except OSError:
            pass
        assert agent.process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_every_route_answers_as_the_contract_says(agent: Agent) -> None:
    assert agent.ask("/v1/secrets").json == PAYLOAD
    assert agent.ask("/v1/secrets?format=flat").json["app__KEY"] == "a"
    assert agent.ask("/v1/secrets/app__KEY").json == {"value": "a"}
    assert agent.ask("/v1/secrets/app/KEY").json == {"value": "a"}
    assert agent.ask("/v1/secrets/app__a%2Fb").json == {"value": "slash"}
    assert agent.ask("/v1/secrets/app/a%2Fb").json == {"value": "slash"}
    assert agent.ask("/v1/secrets/100%25").json == {"value": "percent"}
    assert agent.ask("/v1/secrets/app%252FKEY").status == 404
    assert agent.ask("/v1/secrets/KEY").json["candidates"] == ["app__KEY", "web__KEY"]  # case 9
    assert agent.ask("/v1/keys").json == ["app__KEY", "app__a/b", "app__100%", "web__KEY"]
    health = agent.ask("/v1/health", token=None).json
    assert (health["status"], health["expired"]) == ("ok", False)
    assert agent.ask("/v1/ready", token=None).json == {"ready": True}
    metrics = agent.ask("/v1/metrics", token=None)
    assert b"clef_agent_ready 1.0" in metrics.body
    assert b"a/b" not in metrics.body


def test_every_answer_whatever_its_status_is_not_to_be_stored(agent: Agent) -> None:
    etag = agent.ask("/v1/secrets").headers["ETag"]
    for status, answer in (
        (200, agent.ask("/v1/secrets")),
        (200, agent.ask("/v1/secrets", "HEAD")),
        (304, agent.ask("/v1/secrets", If_None_Match=etag)),
        (304, agent.ask("/v1/secrets?wait=1", If_None_Match=etag)),
        (400, agent.ask("/v1/secrets?wait=0")),
        (401, agent.ask("/v1/secrets", token="wrong")),
        (403, agent.ask("/v1/nothing", Host="evil.example")),
        (404, agent.ask("/v1/nothing", token=None)),
        (405, agent.ask("/v1/secrets", "DELETE", token=None)),
        (409, agent.ask("/v1/secrets/KEY")),
    ):
        assert answer.status == status
        assert answer.headers.get_all("Cache-Control") == ["no-store"]
        assert answer.headers.get_all("Date") is answer.headers.get_all("Server") is None


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST:{}", "127.0.0.1:{}"])
def test_the_names_of_loopback_are_let_in(agent: Agent, host: str) -> None:  # case 27
    assert agent.ask("/v1/keys", Host=host.format(agent.port)).status == 200


def test_the_unix_socket_serves_whatever_the_host_to_whoever_has_the_token(agent: Agent) -> None:
    assert agent.ask("/v1/secrets", unix=True).json == PAYLOAD
    assert agent.ask("/v1/secrets", unix=True, token=None).status == 401
    assert Path(agent.unix_path).stat().st_mode & 0o777 == 0o600


def test_a_refresh_on_demand_brings_the_new_secrets_once_a_second(agent: Agent) -> None:
    agent.publish(packed(NEXT, packed_at=time.time() + 1))
    first, second = agent.ask("/v1/refresh", "POST"), agent.ask("/v1/refresh", "POST")
    assert first.status == 200
    assert set(first.json) == {"revision", "changed"}
    assert agent.ask("/v1/secrets").json == NEXT
    assert (second.status, second.headers["Retry-After"]) == (429, "1")


def test_who_waits_for_a_change_gets_it_when_it_comes(agent: Agent) -> None:
    etag = agent.ask("/v1/secrets").headers["ETag"]
    answers: list[Answer] = []
    asking = threading.Thread(
        target=lambda: answers.append(agent.ask("/v1/secrets?wait=60", If_None_Match=etag))
    )
    asking.start()
    agent.publish(packed(NEXT, packed_at=time.time() + 1))
    agent.ask("/v1/refresh", "POST")
    asking.join(PATIENCE_S)
    assert [(answer.status, answer.json) for answer in answers] == [(200, NEXT)]


def test_a_rejected_artifact_is_the_reason_of_a_failed_refresh(agent: Agent) -> None:
    agent.publish(b"no artifact")
    answer = agent.ask("/v1/refresh", "POST")
    if answer.status == 429:  # the file's own watcher was faster by less than a second
        pytest.skip("a poll came in between")
    assert (answer.status, answer.json["reason"]) == (503, "json_parse")
    assert answer.json["detail"]
    assert agent.ask("/v1/secrets").json == PAYLOAD


def test_a_second_agent_on_the_port_says_so_and_ends(agent: Agent) -> None:  # case 3
    env = {
        "PATH": os.environ["PATH"],
        "CLEF_AGENT_SOURCE": str(agent.artifact),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_TOKEN": TOKEN,
        "CLEF_AGENT_PORT": str(agent.port),
    }
    ended = subprocess.run(
        [sys.executable, "-m", "clef_agent"],
        env=env,
        capture_output=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert ended.returncode == 1
    assert b"in use" in ended.stderr
    assert b"ready" not in ended.stdout
    assert agent.ask("/v1/secrets").json == PAYLOAD
