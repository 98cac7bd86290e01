"""What a configuration becomes."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from agent_process import free_port
from clef_agent import __version__
from clef_agent import config as configuration
from clef_agent.cache.keeper import BackgroundKeeper, NoCopy
from clef_agent.errors import PortInUse, TokenUnusable
from clef_agent.lifecycle.agent import Agent
from clef_agent.provider import CachedSecrets, JustInTimeSecrets
from clef_agent.regular_file import read_regular_file
from clef_agent.sources.file import FileSource
from clef_agent.sources.http import HttpSource
from clef_agent.telemetry import events
from clef_agent.telemetry.base import NoTelemetry
from clef_agent.telemetry.sending import OtlpTelemetry
from clef_agent.wiring import assemble
from fakes import AGE_KEY


@pytest.fixture
def base(tmp_path: Path) -> dict[str, str]:
    runtime = tmp_path / "run"
    runtime.mkdir(mode=0o700)
    return {
        "CLEF_AGENT_SOURCE": str(tmp_path / "artifact.json"),
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_PORT": str(free_port()),
        "CLEF_AGENT_TOKEN": "token",
        "RUNTIME_DIRECTORY": str(runtime),
    }


@contextlib.contextmanager
def assembled(env: Mapping[str, str]) -> Iterator[Agent]:
    agent = assemble(configuration.load(env, read_regular_file), env)
    try:
        yield agent
    finally:
        for listening in agent.sockets:
            listening.close()
        asyncio.run(agent.close())


def test_a_path_becomes_a_file_source_without_a_copy(base: dict[str, str], tmp_path: Path) -> None:
    with assembled({**base, "CLEF_AGENT_CACHE_PATH": str(tmp_path / "cache")}) as agent:
        assert isinstance(agent.core.source, FileSource)
        assert isinstance(agent.core.keeper, NoCopy)
        assert isinstance(agent.core.provider, CachedSecrets)


def test_a_url_becomes_an_http_source_with_a_copy_where_one_is_wanted(
    base: dict[str, str], tmp_path: Path
) -> None:
    env = {**base, "CLEF_AGENT_SOURCE": "https://store.example/artifact.json"}
    with assembled(env) as agent:
        assert isinstance(agent.core.source, HttpSource)
        assert isinstance(agent.core.keeper, NoCopy)
    with assembled({**env, "CLEF_AGENT_CACHE_PATH": str(tmp_path / "cache")}) as agent:
        assert isinstance(agent.core.keeper, BackgroundKeeper)
    assert not (tmp_path / "cache").exists()


def test_a_ttl_of_zero_is_the_just_in_time_mode(base: dict[str, str]) -> None:
    with assembled({**base, "CLEF_AGENT_CACHE_TTL": "0"}) as agent:
        assert isinstance(agent.core.provider, JustInTimeSecrets)


def test_both_sockets_are_bound_before_anything_is_loaded(
    base: dict[str, str], tmp_path: Path
) -> None:
    path = tmp_path / "agent.sock"
    with assembled({**base, "CLEF_AGENT_SOCKET": str(path)}) as agent:
        assert [listening.getsockname() for listening in agent.sockets] == [
            ("127.0.0.1", int(base["CLEF_AGENT_PORT"])),
            str(path),
        ]
        assert agent.core.memory.never_loaded


def test_a_collector_makes_telemetry_and_without_one_there_is_none(base: dict[str, str]) -> None:
    with assembled(base) as agent:
        assert isinstance(agent.core.telemetry, NoTelemetry)
    url = {"CLEF_AGENT_TELEMETRY_URL": "http://127.0.0.1:4318"}
    with assembled({**base, **url}) as agent:
        assert isinstance(agent.core.telemetry, OtlpTelemetry)
    with assembled({**base, **url, "OTEL_SDK_DISABLED": "true"}) as agent:
        assert isinstance(agent.core.telemetry, NoTelemetry)


def test_garbage_is_looked_for_again_once_all_is_loaded_but_not_in_that(
    base: dict[str, str],
) -> None:
    with assembled(base) as agent:
        try:
            gc.disable()  # as at the start of the process
            asyncio.run(agent.listen())
            assert gc.isenabled()
            assert gc.get_freeze_count() > 0
        finally:
            gc.unfreeze()
            gc.enable()


class Told(NoTelemetry):
    """Telemetry that remembers what it is asked to do."""

    def __init__(self) -> None:
        self.asked: list[object] = []

    def begin(self) -> None:
        self.asked.append("begin")

    def hurry(self) -> None:
        self.asked.append("hurry")


def test_telemetry_begins_with_the_first_secrets_and_hurries_at_the_end(
    base: dict[str, str],
) -> None:
    with assembled(base) as agent:
        told = Told()
        heard = replace(agent, core=replace(agent.core, telemetry=told, emit=told.asked.append))
        heard.started()
        heard.stopped("signal")
    started, begin, stopped, hurry = told.asked
    assert started == events.AgentStarted(__version__)
    assert isinstance(stopped, events.AgentStopped)
    assert (begin, stopped.reason, hurry) == ("begin", "signal", "hurry")
    assert 0 <= stopped.uptime_s < 60


# case 3
def test_a_taken_port_leaves_no_token_behind(base: dict[str, str], tmp_path: Path) -> None:
    del base["CLEF_AGENT_TOKEN"]
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", int(base["CLEF_AGENT_PORT"])))
        holder.listen()
        with pytest.raises(PortInUse), assembled(base):
            pass
    assert list((tmp_path / "run").iterdir()) == []


def test_a_reload_takes_the_token_that_its_file_has_by_then(
    base: dict[str, str], tmp_path: Path
) -> None:
    del base["CLEF_AGENT_TOKEN"]
    token_file = tmp_path / "token"
    token_file.write_text("first\n")
    with assembled({**base, "CLEF_AGENT_TOKEN_FILE": str(token_file)}) as agent:
        assert agent.bearer.is_shown_by(b"Bearer first")
        token_file.write_text("second\n")
        agent.reload()
        assert agent.bearer.is_shown_by(b"Bearer second")
        assert not agent.bearer.is_shown_by(b"Bearer first")
        token_file.write_text("")
        agent.reload()
        assert agent.bearer.is_shown_by(b"Bearer second")
        token_file.unlink()
        agent.reload()
        assert agent.bearer.is_shown_by(b"Bearer second")
        assert not agent.bearer.is_shown_by(b"Bearer first")


def test_a_token_of_a_variable_or_of_our_own_making_survives_a_reload(
    base: dict[str, str],
) -> None:
    with assembled(base) as agent:
        agent.reload()
        assert agent.bearer.is_shown_by(b"Bearer token")
    del base["CLEF_AGENT_TOKEN"]
    with assembled(base) as agent:
        agent.reload()
        assert agent.bearer.is_shown_by(f"Bearer {agent.token.value}".encode())


def test_an_unusable_token_file_ends_the_start_and_frees_the_sockets(
    base: dict[str, str], tmp_path: Path
) -> None:
    del base["CLEF_AGENT_TOKEN"]
    token_file = tmp_path / "token"
    token_file.write_bytes(b"\n")
    unix_socket = tmp_path / "agent.sock"
    base["CLEF_AGENT_TOKEN_FILE"] = str(token_file)
    base["CLEF_AGENT_SOCKET"] = str(unix_socket)
    with pytest.raises(TokenUnusable), assembled(base):
        pass
    assert not unix_socket.exists()
    token_file.write_text("token")
    with assembled(base):
        assert unix_socket.exists()


def test_no_part_of_an_agent_prints_a_secret(base: dict[str, str]) -> None:
    secret = os.urandom(8).hex()
    with assembled({**base, "CLEF_AGENT_TOKEN": secret}) as agent:
        text = repr(agent)
    assert secret not in text
    assert AGE_KEY not in text
