"""No descriptor left, and no memory."""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import resource
import socket
import sys
import time
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess, eventually, running
from artifact_store import ArtifactStore, serving
from fakes import AGE_KEY, PAYLOAD, packed
from watch import Watch

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="prlimit is Linux's")

NEW_PAYLOAD = {"app": {"KEY": "new"}}
MB = 1024 * 1024


def environment(store: ArtifactStore) -> dict[str, str]:
    return {
        "CLEF_AGENT_SOURCE": store.url,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_POLL_INTERVAL": "5",
    }


@pytest.fixture
def store() -> Iterator[ArtifactStore]:
    with serving(ArtifactStore(packed())) as made:
        yield made


def serves(agent: AgentProcess, payload: object) -> bool:
    answer = agent.secrets()
    return answer.status == 200 and bool(answer.json == payload)


# --- descriptors --------------------------------------------------------------------------------


def descriptors(agent: AgentProcess) -> set[int]:
    return {int(path.name) for path in Path(f"/proc/{agent.process.pid}/fd").iterdir()}


@pytest.mark.parametrize("limit", [70, 80, 128])
@pytest.mark.parametrize("sent", [b"", b"GET /v1/secrets HTTP/1.1\r\nHo"], ids=["idle", "half"])
def test_clients_that_use_up_what_there_is_keep_no_other_out(
    tmp_path: Path, store: ArtifactStore, limit: int, sent: bytes
) -> None:
    prefix = ("prlimit", f"--nofile={limit}:{limit}", "--")
    with (
        AgentProcess(tmp_path, environment(store), prefix=prefix) as agent,
        contextlib.ExitStack() as crowd,
    ):
        agent.wait_until_ready()
        before = len(descriptors(agent))
        for _ in range(200):
            client = crowd.enter_context(socket.create_connection(("127.0.0.1", agent.port)))
            client.sendall(sent)
        with Watch(agent, PAYLOAD, NEW_PAYLOAD) as watch:
            store.body = packed(NEW_PAYLOAD)
            eventually(lambda: serves(agent, NEW_PAYLOAD), "what the source has")
        assert watch.lost == []
        crowd.close()
        eventually(lambda: len(descriptors(agent)) <= before + 2, "an end of all connections")
        assert serves(agent, NEW_PAYLOAD)


def test_without_a_single_descriptor_those_who_are_connected_are_served(
    tmp_path: Path, store: ArtifactStore
) -> None:
    with running(tmp_path, environment(store)) as agent:
        connection = http.client.HTTPConnection("127.0.0.1", agent.port, timeout=20)

        def status() -> int:
            connection.request("GET", "/v1/secrets", headers={"Authorization": f"Bearer {TOKEN}"})
            response = connection.getresponse()
            response.read()
            return response.status

        with contextlib.closing(connection):
            assert status() == 200
            _, hard = resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE)
            used = descriptors(agent)
            free = next(number for number in count() if number not in used)
            resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (free, hard))
            store.body = packed(NEW_PAYLOAD)
            agent.wait_for("fetch failed")
            assert status() == 200
            with socket.create_connection(("127.0.0.1", agent.port)):
                before_s = _processor_s(agent)
                began = time.monotonic()
                eventually(lambda: time.monotonic() - began > 1, "a second")
                assert _processor_s(agent) - before_s < 0.5, "it spins"
                assert status() == 200
            resource.prlimit(agent.process.pid, resource.RLIMIT_NOFILE, (hard, hard))
        eventually(lambda: _is_served(agent, NEW_PAYLOAD), "what the source has")


def _is_served(agent: AgentProcess, payload: object) -> bool:
    try:
        return serves(agent, payload)
    except OSError:
        return False


def _processor_s(agent: AgentProcess) -> float:
    fields = Path(f"/proc/{agent.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- memory -------------------------------------------------------------------------------------


def _bytes_of(agent: AgentProcess, name: str) -> int:
    text = Path(f"/proc/{agent.process.pid}/status").read_text()
    match = re.search(rf"^{name}:\s+(\d+) kB", text, re.MULTILINE)
    assert match is not None
    return int(match[1]) * 1024


BIG_JSON = b'{"version":1,"ciphertext":"' + b"A" * (30 * MB) + b'"}'


@pytest.mark.parametrize("spare_mb", [0, 4, 16, 40, 80])
@pytest.mark.parametrize("what", ["a large artifact", "large nonsense"])
def test_an_artifact_that_no_memory_is_left_for_changes_nothing(
    tmp_path: Path, store: ArtifactStore, spare_mb: int, what: str
) -> None:
    large = {"big": {"BLOB": "x" * (20 * MB)}}
    with running(tmp_path, environment(store)) as agent:
        limit = _bytes_of(agent, "VmSize") + spare_mb * MB
        infinity = resource.RLIM_INFINITY
        with Watch(agent, PAYLOAD, NEW_PAYLOAD, large) as watch:
            resource.prlimit(agent.process.pid, resource.RLIMIT_AS, (limit, infinity))
            store.body = BIG_JSON if what == "large nonsense" else packed(large)
            answer = agent.refresh()
            assert answer.status in (200, 503)
            if answer.status == 200:
                assert what == "a large artifact"
            resource.prlimit(agent.process.pid, resource.RLIMIT_AS, (infinity, infinity))
            store.body = packed(NEW_PAYLOAD)
            eventually(lambda: serves(agent, NEW_PAYLOAD), "what the source has")
        assert watch.lost == []
        assert "Traceback" not in agent.said
