"""The client for applications, against real agents and against what is none."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess, eventually, free_port, replace_file, running
from clef_agent.client import (
    AgentMisbehaved,
    AgentUnreachable,
    AsyncClefClient,
    ClefClient,
    ClientError,
    EndpointRefused,
    NobodyListens,
    SecretAmbiguous,
    SecretMissing,
    SecretsUnavailable,
    Unauthorized,
)
from fake_service import Asked, FakeService, Reply, serving
from fakes import AGE_KEY, PAYLOAD, changed, packed


@pytest.fixture
def agent(tmp_path: Path, artifact: Path) -> Iterator[AgentProcess]:
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with running(tmp_path, env) as agent:
        yield agent


def of(agent: AgentProcess, **options: object) -> ClefClient:
    return ClefClient(f"http://127.0.0.1:{agent.port}", TOKEN, **options)  # type: ignore[arg-type]  # each by its name


def swap(agent: AgentProcess, artifact: Path, data: bytes) -> None:
    """Puts ``data`` in the artifact's place, and returns when the agent has taken it."""

    def revision() -> object:
        return agent.request("/v1/health").json["revision"]

    before = revision()
    replace_file(artifact, data)
    # One refresh may have begun before that, and seen what was there then.
    eventually(lambda: (agent.refresh(), revision() != before)[1], "the new artifact")


def test_a_secret_is_found_by_each_of_its_names(agent: AgentProcess) -> None:
    client = of(agent)
    assert client.get("STRIPE_KEY") == "stripe-key"
    assert client.get("payments__STRIPE_KEY") == "stripe-key"
    assert client.get("STRIPE_KEY", namespace="payments") == "stripe-key"
    assert client.get_all() == PAYLOAD
    assert sorted(client.keys()) == ["app__API_KEY", "app__DATABASE_URL", "payments__STRIPE_KEY"]
    assert client.health()["status"] == "ok"


def test_the_same_from_asyncio(agent: AgentProcess) -> None:
    client = AsyncClefClient(f"http://127.0.0.1:{agent.port}", TOKEN)

    async def ask() -> tuple[str, object, list[str], object]:
        return (
            await client.get("STRIPE_KEY"),
            await client.get_all(),
            await client.keys(),
            (await client.health())["mode"],
        )

    value, payload, keys, mode = asyncio.run(ask())
    assert (value, payload, len(keys), mode) == ("stripe-key", PAYLOAD, 3, "cached")


def test_the_environment_says_where_and_with_which_token(agent: AgentProcess) -> None:
    env = {"CLEF_ENDPOINT": f"http://localhost:{agent.port}", "CLEF_AGENT_TOKEN": TOKEN}
    assert ClefClient(env=env).get("STRIPE_KEY") == "stripe-key"
    by_port = {"CLEF_AGENT_PORT": str(agent.port), "CLEF_AGENT_TOKEN": TOKEN}
    assert ClefClient(env=by_port).get("STRIPE_KEY") == "stripe-key"


def test_a_token_file_is_read_at_each_request(agent: AgentProcess, tmp_path: Path) -> None:
    file = tmp_path / "the-token"
    client = ClefClient(
        env={"CLEF_AGENT_PORT": str(agent.port), "CLEF_AGENT_TOKEN_FILE": str(file)}
    )
    with pytest.raises(Unauthorized):
        client.get("STRIPE_KEY")
    file.write_text(TOKEN + "\n")
    assert client.get("STRIPE_KEY") == "stripe-key"


def test_names_that_lead_nowhere_or_to_several_are_told_apart(
    agent: AgentProcess, artifact: Path
) -> None:
    client = of(agent)
    for key, namespace in (("NONE", None), ("API_KEY", "payments"), ("app", None)):
        with pytest.raises(SecretMissing):
            client.get(key, namespace)
    swap(agent, artifact, packed({"a": {"K": "1"}, "b": {"K": "2"}}))
    with pytest.raises(SecretAmbiguous) as caught:
        client.get("K")
    assert caught.value.candidates == ("a__K", "b__K")
    assert client.get("K", "b") == "2"


# case 9
def test_two_names_that_flatten_to_one_are_told_apart(agent: AgentProcess, artifact: Path) -> None:
    swap(agent, artifact, packed({"a__b": {"c": "1"}, "a": {"b__c": "2"}}))
    client = of(agent)
    with pytest.raises(SecretAmbiguous) as caught:
        client.get("a__b__c")
    assert caught.value.candidates == ("a/b__c", "a__b/c")
    assert (client.get("c", "a__b"), client.get("b__c", "a")) == ("1", "2")


@pytest.mark.parametrize("token", ["the-secret\nof-two-lines", "", "the-secret\x00"])
def test_a_token_that_is_none_is_not_shown(token: str) -> None:
    with pytest.raises(Unauthorized) as caught:
        ClefClient("http://127.0.0.1:1", token).get("KEY")
    assert "the-secret" not in str(caught.value)


@pytest.mark.parametrize(
    "env", [{"CLEF_ENDPOINT": ""}, {"CLEF_AGENT_PORT": "0"}, {"CLEF_AGENT_PORT": "port"}]
)
def test_an_endpoint_that_is_none_is_not_passed_over(env: dict[str, str]) -> None:
    with pytest.raises(EndpointRefused):
        ClefClient(env=env)


def test_a_flat_payload_is_named_by_its_bare_keys(agent: AgentProcess, artifact: Path) -> None:
    swap(agent, artifact, packed({"K": "v", "L": ""}))
    client = of(agent)
    assert (client.get("K"), client.get("L"), client.get_all()) == ("v", "", {"K": "v", "L": ""})


def test_a_rotation_is_seen_and_what_did_not_change_does_not_travel(
    agent: AgentProcess, artifact: Path
) -> None:
    client = of(agent)
    assert client.get("STRIPE_KEY") == "stripe-key"
    assert client.get("STRIPE_KEY") == "stripe-key"
    metrics = agent.request("/v1/metrics", token=None).body.decode()
    assert 'route="/v1/secrets",status="304"} 1.0' in metrics
    swap(agent, artifact, packed({"payments": {"STRIPE_KEY": "rotated"}}))
    assert client.get("STRIPE_KEY") == "rotated"


def test_what_was_handed_out_can_be_changed_without_changing_what_is_kept(
    agent: AgentProcess,
) -> None:
    client = of(agent)
    client.get_all().clear()
    assert client.get_all() == PAYLOAD


def test_a_revoked_artifact_is_an_error_and_never_an_old_value(
    agent: AgentProcess, artifact: Path
) -> None:
    client = of(agent, env={"STRIPE_KEY": "old", "CLEF_AGENT_TOKEN": TOKEN}, sleep=lambda _: None)
    assert client.get("STRIPE_KEY") == "stripe-key"
    swap(agent, artifact, changed(artifact.read_bytes(), revokedAt="2026-01-01T00:00:00Z"))
    with pytest.raises(SecretsUnavailable) as caught:
        client.get("STRIPE_KEY")
    assert caught.value.reason == "revoked"


def test_a_wrong_token_is_refused_without_being_shown(agent: AgentProcess) -> None:
    client = ClefClient(f"http://127.0.0.1:{agent.port}", "the-wrong-token")
    with pytest.raises(Unauthorized) as caught:
        client.get("STRIPE_KEY")
    assert "the-wrong-token" not in str(caught.value) + repr(client)


def test_a_unix_socket_is_an_endpoint(tmp_path: Path, artifact: Path) -> None:
    path = tmp_path / "agent.sock"
    env = {
        "CLEF_AGENT_SOURCE": str(artifact),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_SOCKET": str(path),
    }
    with running(tmp_path, env):
        assert ClefClient(f"unix://{path}", TOKEN).get("STRIPE_KEY") == "stripe-key"


# --- without an agent -----------------------------------------------------------------------------


def test_the_environment_answers_where_no_agent_is_meant_to_be() -> None:
    nobody = {"CLEF_AGENT_PORT": str(free_port()), "KEY": "from the environment"}
    client = ClefClient(env=nobody, sleep=lambda _: None)
    assert client.get("KEY") == "from the environment"
    with pytest.raises(AgentUnreachable):
        client.get("OTHER")
    nobody["ns__KEY"] = "of the namespace"
    assert client.get("KEY", "ns") == "of the namespace"
    with pytest.raises(NobodyListens):
        client.get("KEY", "elsewhere")
    strict = ClefClient(env=nobody, env_fallback=False, sleep=lambda _: None)
    with pytest.raises(AgentUnreachable):
        strict.get("KEY")


@pytest.mark.parametrize("name", ["CLEF_ENDPOINT", "CLEF_AGENT_TOKEN"])
def test_an_agent_that_is_configured_and_away_is_an_error(name: str) -> None:
    port = free_port()
    configured = {"CLEF_ENDPOINT": f"http://127.0.0.1:{port}", "CLEF_AGENT_TOKEN": "t"}
    env = {"CLEF_AGENT_PORT": str(port), "KEY": "old", name: configured[name]}
    with pytest.raises(AgentUnreachable):
        ClefClient(env=env, sleep=lambda _: None).get("KEY")


@pytest.mark.parametrize(
    "endpoint",
    [
        "http://example.com",
        "http://10.0.0.1:7779",
        "ftp://127.0.0.1",
        "http://u:p@127.0.0.1",
        "http://127.0.0.1/?x",
        "127.0.0.1:7779",
        "unix://relative",
    ],
)
def test_a_token_is_sent_to_this_machine_or_over_https_only(endpoint: str) -> None:
    with pytest.raises(EndpointRefused):
        ClefClient(endpoint, "token")


# --- what answers is not always an agent ----------------------------------------------------------


class Scripted(FakeService):
    def __init__(self, *replies: Reply) -> None:
        super().__init__()
        self.replies = list(replies)

    def answer(self, asked: Asked) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


GOOD = Reply.json(200, {"app": {"K": "v"}}, ETag='"1"')


def test_a_lost_connection_is_asked_for_once_more() -> None:
    with serving(Scripted(GOOD)) as service:
        service.resets = 1
        assert ClefClient(service.url, "t", sleep=lambda _: None).get("K") == "v"
        service.resets = 2
        with pytest.raises(AgentUnreachable):
            ClefClient(service.url, "t", sleep=lambda _: None).get("K")


def test_an_answer_that_breaks_off_is_no_answer_and_no_reason_to_fall_back() -> None:
    short = Reply(200, b'{"K":"v"}', {"Content-Length": "100", "Connection": "close"})
    with serving(Scripted(short)) as service:
        env = {"CLEF_AGENT_PORT": str(service.port), "K": "old"}
        with pytest.raises(AgentUnreachable):
            ClefClient(env=env, sleep=lambda _: None).get("K")
        assert len(service.asked) == 2


@pytest.mark.parametrize(("retry_after", "attempts"), [("1", 2), ("30", 1), ("soon", 1)])
def test_an_agent_that_asks_for_a_moment_is_given_one(retry_after: str, attempts: int) -> None:
    busy = Reply.json(503, {"reason": "cache_expired"}, Retry_After=retry_after)
    slept: list[float] = []
    with serving(Scripted(busy)) as service:
        with pytest.raises(SecretsUnavailable) as caught:
            ClefClient(service.url, "t", sleep=slept.append).get("K")
        assert len(service.asked) == attempts
    assert caught.value.reason == "cache_expired"
    assert slept == [1.0] * (attempts - 1)


@pytest.mark.parametrize(
    "reply",
    [
        Reply(302, b"", {"Location": "http://127.0.0.1:1/"}),
        Reply(200, b"<html>"),
        Reply(200, b"[" * 100_000),
        Reply.json(200, ["a"]),
        Reply.json(200, {"a": 1}),
        Reply.json(200, {"a": {"b": {"c": "d"}}}),
        Reply.json(500, {}),
    ],
)
def test_what_is_no_agent_is_not_believed(reply: Reply) -> None:
    with serving(Scripted(reply)) as service, pytest.raises(AgentMisbehaved):
        ClefClient(service.url, "t", sleep=lambda _: None).get("K")


def test_no_proxy_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with serving(Scripted(GOOD)) as proxy, serving(Scripted(GOOD)) as service:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        monkeypatch.delenv("NO_PROXY", raising=False)
        monkeypatch.delenv("no_proxy", raising=False)
        assert ClefClient(service.url, "t").get("K") == "v"
        assert proxy.asked == []


def test_every_error_is_one_of_the_clients() -> None:
    kinds = (
        AgentMisbehaved,
        AgentUnreachable,
        EndpointRefused,
        SecretAmbiguous,
        SecretMissing,
        SecretsUnavailable,
        Unauthorized,
    )
    assert all(issubclass(kind, ClientError) for kind in kinds)
    assert str(SecretMissing("no such secret")) == "no such secret"


def test_it_loads_nothing_of_the_agent_and_nothing_heavy() -> None:
    program = (
        "import sys, clef_agent.client;"
        "print(sorted(m for m in sys.modules if m.startswith('clef_agent') or m in"
        " ('asyncio', 'dataclasses', 'inspect', 'httpx', 'uvicorn', 'pyrage', 'cryptography')))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.decode().strip() == "['clef_agent', 'clef_agent.client']"
