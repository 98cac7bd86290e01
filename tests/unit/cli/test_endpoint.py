"""Where our own clients send a token, and where never."""

from __future__ import annotations

from pathlib import Path

import pytest

from clef_agent.cli.endpoint import Agent, parse_endpoint
from clef_agent.cli.failure import Failure
from clef_agent.client import TcpEndpoint, UnixEndpoint


@pytest.mark.parametrize(
    ("text", "endpoint"),
    [
        ("http://127.0.0.1:7779", TcpEndpoint("127.0.0.1", 7779)),
        ("http://127.0.0.1:7779/", TcpEndpoint("127.0.0.1", 7779)),
        ("http://localhost:7779", TcpEndpoint("127.0.0.1", 7779)),
        ("HTTP://LOCALHOST:7779", TcpEndpoint("127.0.0.1", 7779)),
        ("http://127.0.0.1", TcpEndpoint("127.0.0.1", 80)),
        ("http://[::1]:7779", TcpEndpoint("::1", 7779)),
        ("https://agent.example", TcpEndpoint("agent.example", 443, tls=True)),
        ("https://h.example:1/clef/", TcpEndpoint("h.example", 1, tls=True, base_path="/clef")),
        ("https://localhost:1", TcpEndpoint("127.0.0.1", 1, tls=True)),
        ("unix:///run/clef.sock", UnixEndpoint("/run/clef.sock")),
        ("unix:///run/a%20b.sock", UnixEndpoint("/run/a b.sock")),
    ],
)
def test_loopback_https_and_unix_sockets_are_endpoints(
    text: str, endpoint: TcpEndpoint | UnixEndpoint
) -> None:
    assert parse_endpoint(text) == endpoint


@pytest.mark.parametrize(
    "text",
    [
        "",
        "127.0.0.1:7779",
        "localhost:7779",
        "http://",
        "http://:7779",
        "http://127.0.0.1:0",
        "http://127.0.0.1:x",
        "http://127.0.0.1:70000",
        "http://127.0.0.1:7779 ",
        "http://127.0.0.1:7779/?a=b",
        "http://127.0.0.1:7779/#f",
        "http://127.0.0.1\n:7779",
        "http://[::1",
        "ftp://127.0.0.1",
        "unix://run/clef.sock",
        "unix:run/clef.sock",
        "http://token@127.0.0.1:7779",
        "http://10.0.0.1:7779",
        "http://0.0.0.0:7779",
        "http://agent.example:7779",
        "http://localhost.example:7779",
        "http://127.0.0.1.example:7779",
        "http://127.1:7779",
        "http://2130706433:7779",
        "http://[::ffff:10.0.0.1]:7779",
    ],
)
def test_everything_else_is_refused_with_a_hint(text: str) -> None:
    with pytest.raises(Failure, match="CLEF_ENDPOINT") as raised:
        parse_endpoint(text)
    assert "token@" not in str(raised.value)
    assert "CLEF_AGENT_TOKEN" in raised.value.hint or "127.0.0.1" in raised.value.hint


@pytest.mark.parametrize("port", ["", "0", "65536", "1_0", "٣", " 80", "x"])
def test_a_port_that_is_none_is_refused(port: str) -> None:
    with pytest.raises(Failure, match="CLEF_AGENT_PORT"):
        Agent.from_env({"CLEF_AGENT_PORT": port})


def test_the_default_is_the_agents_own_port() -> None:
    assert Agent.from_env({}).endpoint == TcpEndpoint("127.0.0.1", 7779)
    assert Agent.from_env({"CLEF_AGENT_PORT": "80"}).endpoint == TcpEndpoint("127.0.0.1", 80)


def test_a_token_left_on_this_machine_is_not_for_an_agent_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "token-443").touch(mode=0o600)
    (tmp_path / "token-443").write_text("ours\n")
    tmp_path.chmod(0o700)
    env = {"RUNTIME_DIRECTORY": str(tmp_path)}

    assert Agent(TcpEndpoint("127.0.0.1", 443, tls=True), env).token() == "ours"
    elsewhere = Agent(TcpEndpoint("agent.example", 443, tls=True), env)
    assert elsewhere.token() is None
    assert "token-443" not in elsewhere.token_places()
    given = Agent(elsewhere.endpoint, {**env, "CLEF_AGENT_TOKEN": "given"})
    assert given.token() == "given"


def test_the_token_for_a_unix_socket_is_that_of_the_agents_port(tmp_path: Path) -> None:
    tmp_path.chmod(0o700)
    (tmp_path / "token-80").touch(mode=0o600)
    (tmp_path / "token-80").write_text("ours\n")
    env = {"RUNTIME_DIRECTORY": str(tmp_path), "CLEF_AGENT_PORT": "80"}

    assert Agent(UnixEndpoint("/run/clef.sock"), env).token() == "ours"
