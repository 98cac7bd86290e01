"""Every remote source through the same fates: rotation, outage, rate limit, revoked permission."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from agent_process import AgentProcess, eventually
from clef_agent import config as configuration
from clef_agent.artifact.verify import Policy
from clef_agent.aws import Aws
from clef_agent.cache.memory import Memory
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.errors import CacheExpired, SourceDenied
from clef_agent.refresh import Failed, Parts, Refreshed, Refresher
from clef_agent.regular_file import read_regular_file
from clef_agent.schedule import Schedule
from clef_agent.wiring import make_source
from command_line import clef_agent
from fake_service import Reply, serving
from fakes import AGE_KEY, AGE_RECIPIENT, ENVIRONMENT, IDENTITY, PAYLOAD, FakeClock, packed
from moto_server import Moto, moto_server
from refresh_fakes import FakeKeeper, Recorder
from stores import (
    BRANCH,
    BitbucketCloudStore,
    BitbucketServerStore,
    GitHubStore,
    GitLabStore,
    S3Store,
    Store,
)

INTERVAL_S = 5
#: "Served within 1.1 poll intervals and a second", and what a busy machine adds to measuring it.
ROTATED_WITHIN_S = 1.1 * INTERVAL_S + 1
FORGES = (GitHubStore, GitLabStore, BitbucketCloudStore, BitbucketServerStore)
NAMES = ["s3", *(forge.name for forge in FORGES)]


@pytest.fixture(scope="module")
def moto() -> Iterator[Moto]:
    with moto_server() as server:
        yield server


@pytest.fixture
def store(request: pytest.FixtureRequest, moto: Moto) -> Iterator[Store]:
    with serving(made(request.param, moto)) as store:
        store.put(packed())
        yield store


def made(name: str, moto: Moto) -> Store:
    if name == "s3":
        moto.reset()
        return S3Store(moto)
    return next(forge for forge in FORGES if forge.name == name)()


def environment(store: Store, **more: str) -> dict[str, str]:
    return {
        **store.environment,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_POLL_INTERVAL": str(INTERVAL_S),
        **more,
    }


every_store = pytest.mark.parametrize("store", NAMES, indirect=True)
every_forge = pytest.mark.parametrize("store", NAMES[1:], indirect=True)


# --- as a process -------------------------------------------------------------------------------


def test_a_rotation_by_pack_is_served_from_each_source_in_time(tmp_path: Path, moto: Moto) -> None:
    secrets = tmp_path / "rotated.json"
    secrets.write_text('{"app":{"API_KEY":"rotated"}}')
    with contextlib.ExitStack() as stack:
        agents = []
        for name in NAMES:
            store = stack.enter_context(
                serving(S3Store(moto) if name == "s3" else made(name, moto))
            )
            store.put(packed())
            home = tmp_path / name
            home.mkdir()
            agent = stack.enter_context(AgentProcess(home, environment(store)))
            agents.append((store, agent))
        for _, agent in agents:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
        done = clef_agent(
            "pack", str(secrets), "--recipient", AGE_RECIPIENT,
            "--identity", IDENTITY, "--environment", ENVIRONMENT,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        put_at = {}
        for store, _ in agents:
            store.put(done.stdout)
            put_at[store.name] = time.monotonic()
        took_s: dict[str, float] = {}

        def all_rotated() -> bool:
            for store, agent in agents:
                if store.name not in took_s:
                    answer = agent.request("/v1/secrets/API_KEY")
                    if answer.json == {"value": "rotated"}:
                        took_s[store.name] = time.monotonic() - put_at[store.name]
            return len(took_s) == len(agents)

        eventually(all_rotated, "the rotated value from each source")
        assert max(took_s.values()) <= ROTATED_WITHIN_S, took_s


@every_store
@pytest.mark.parametrize("mode", ["down", "reset", "denied"])
def test_a_source_that_fails_stops_nothing_and_gives_nothing_away(
    store: Store, mode: str, tmp_path: Path
) -> None:
    # case 5
    with AgentProcess(tmp_path, environment(store)) as agent:
        agent.wait_until_ready()
        store.mode = mode  # type: ignore[assignment]  # one of them
        refused = agent.refresh()
        assert (refused.status, refused.json["reason"]) == (503, "fetch_failed")
        assert agent.secrets().json == PAYLOAD
        agent.wait_for("reason=fetch_failed")
        store.mode = "up"
        store.put(packed({"app": {"API_KEY": "back"}}))
        eventually(lambda: agent.request("/v1/secrets/API_KEY").json == {"value": "back"}, "it")
        for text in (agent.said, refused.body.decode()):
            assert store.token not in text


@every_store
def test_a_rate_limit_is_obeyed_and_is_no_refusal(store: Store, tmp_path: Path) -> None:
    with AgentProcess(tmp_path, environment(store)) as agent:
        agent.wait_until_ready()
        store.mode = "limited"
        refused = agent.refresh()
        assert (refused.status, refused.json["reason"]) == (503, "fetch_failed")
        asked = len(store.asked)
        again = agent.request("/v1/refresh", method="POST")
        assert again.status == 429
        assert 3000 < int(again.headers["retry-after"]) <= 4000
        assert agent.secrets().json == PAYLOAD
        assert len(store.asked) == asked


@every_forge
def test_a_rotated_token_is_used_at_the_next_fetch_and_changes_nothing(
    store: Store, tmp_path: Path
) -> None:
    token_file = tmp_path / "token"
    token_file.write_text(store.token + "\n")
    env = {k: v for k, v in environment(store).items() if k != "CLEF_AGENT_VCS_TOKEN"}
    with AgentProcess(tmp_path, {**env, "CLEF_AGENT_VCS_TOKEN_FILE": str(token_file)}) as agent:
        agent.wait_until_ready()
        store.token = "another-token"
        assert agent.refresh().status == 503
        token_file.write_text(store.token)
        answer = agent.refresh()
        assert (answer.status, answer.json["changed"]) == (200, False)


@pytest.mark.parametrize("forge", FORGES)
def test_a_branch_with_a_slash_is_found(
    forge: type[GitHubStore | GitLabStore | BitbucketCloudStore | BitbucketServerStore],
    tmp_path: Path,
) -> None:
    with serving(forge(BRANCH)) as store:
        store.put(packed())
        with AgentProcess(tmp_path, environment(store)) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
            assert agent.refresh().json["changed"] is False


# case 21
@every_forge
def test_an_artifact_of_megabytes_is_whole(store: Store, tmp_path: Path) -> None:
    payload = {"app": {"BIG": "x" * 3_000_000}}
    store.put(packed(payload))
    with AgentProcess(tmp_path, environment(store)) as agent:
        assert agent.wait_until_ready().secrets().json == payload


@pytest.mark.parametrize(
    ("forge", "token"),
    [(BitbucketCloudStore, "me@example.com:secret"), (GitLabStore, "glcbt-64_x")],
)
def test_tokens_of_other_kinds_go_as_their_kind_does(
    forge: type[BitbucketCloudStore | GitLabStore], token: str, tmp_path: Path
) -> None:
    with serving(forge()) as store:
        store.token = token
        store.put(packed())
        with AgentProcess(tmp_path, environment(store)) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
            assert agent.refresh().json["changed"] is False


# case 21
@every_forge
@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "Git LFS"),
        (b"../other/production.age.json", "symbolic link"),
        (b'[{"type":"file","path":"x","name":"x"}]', "directory"),
        (b'{"pagelen":10,"values":[],"page":1}', "directory"),
    ],
)
def test_what_is_no_file_is_called_by_its_name(
    store: Store, content: bytes, words: str, tmp_path: Path
) -> None:
    store.put(content)
    with AgentProcess(tmp_path, environment(store)) as agent:
        assert agent.exit_code() == 1
        assert words in agent.err


# case 6
@every_forge
def test_a_redirect_takes_no_token_along(store: Store, tmp_path: Path) -> None:
    with serving(GitHubStore()) as other, AgentProcess(tmp_path, environment(store)) as agent:
        agent.wait_until_ready()
        target = f"{other.url}/elsewhere"
        store.limit = lambda: Reply(302, b"", {"Location": target})  # type: ignore[method-assign]
        store.mode = "limited"
        assert agent.refresh().status == 503
        assert other.asked == []


# --- the source and the refresh, without a process ------------------------------------------------


class CountingDecryptor(Decryptor):
    """Counts how often something was decrypted."""

    def __init__(self) -> None:
        super().__init__(AgeKeyring(AGE_KEY, None, read_regular_file), EnvelopeOpener({}))
        self.opened = 0

    async def decrypt(self, verified: object) -> object:  # type: ignore[override]
        self.opened += 1
        return await super().decrypt(verified)  # type: ignore[arg-type]


def refresher(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> tuple[Refresher, Memory, FakeClock, CountingDecryptor, configuration.Config]:
    env = environment(store)
    for name, value in env.items():
        if name.startswith("AWS_"):
            monkeypatch.setenv(name, value)  # botocore reads the process's own
    config = configuration.load(env, read_regular_file)
    clock, memory, decryptor = FakeClock(wall=time.time()), Memory(300), CountingDecryptor()
    parts = Parts(
        source=make_source(config.source, Aws(os.environ)),
        decryptor=decryptor,
        memory=memory,
        keeper=FakeKeeper(),
        policy=Policy(),
        clock=clock,
        schedule=Schedule(30, Random(1)),
        emit=Recorder(),
    )
    return Refresher(parts, keeps_plaintext=True), memory, clock, decryptor, config


@every_store
def test_a_hundred_polls_of_the_same_artifact_are_one_download(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, _, _, decryptor, _ = refresher(store, monkeypatch)

    async def poll() -> None:
        for _ in range(100):
            assert isinstance(await subject.refresh(), Refreshed)
        await subject._parts.source.aclose()

    asyncio.run(poll())
    assert (store.downloads, store.not_modified) == (1, 99)
    assert decryptor.opened == 1


@every_store
def test_a_permission_taken_away_ends_the_trust_with_the_ttl_and_given_back_restores_it(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, memory, clock, _, _ = refresher(store, monkeypatch)

    async def live() -> None:
        assert isinstance(await subject.refresh(), Refreshed)
        store.mode = "denied"
        clock.advance(299)
        failed = await subject.refresh()
        assert isinstance(failed, Failed)
        assert isinstance(failed.error, SourceDenied)
        assert memory.held is not None
        clock.advance(2)
        subject.enforce()
        assert memory.why_not(clock.now()) is CacheExpired
        store.mode = "up"
        assert isinstance(await subject.refresh(), Refreshed)
        assert memory.why_not(clock.now()) is None
        await subject._parts.source.aclose()

    asyncio.run(live())
