"""Ten thousand connections: idle, half-open, dripping, and slow to read."""

from __future__ import annotations

import contextlib
import os
import resource
import socket
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess, eventually, replace_file, running
from fakes import AGE_KEY, PAYLOAD, packed
from watch import Watch

CROWD = 10_000
#: More than the agent keeps: the last ones are kept out, or take others' places.
BEYOND = 10_400
NEW_PAYLOAD = {"app": {"KEY": "new"}}
MB = 1024 * 1024

HALF_HEAD = b"GET /v1/secrets HTTP/1.1\r\nHost: 127.0.0.1\r\nX: "
HALF_BODY = (
    f"POST /v1/refresh HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer wrong {TOKEN}\r\n"
    "Content-Length: 100\r\n\r\nhalf"
).encode()
WHOLE = f"GET /v1/secrets HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {TOKEN}\r\n\r\n"
KINDS = {
    "idle": b"",
    "half a head": HALF_HEAD,
    "half a body": HALF_BODY,
    "asks and never reads": WHOLE.encode(),
}

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or resource.getrlimit(resource.RLIMIT_NOFILE)[1] < BEYOND + 500,
    reason="the machine gives too few descriptors",
)


@pytest.fixture(autouse=True)
def many_descriptors() -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def agent(tmp_path: Path, artifact: Path) -> Iterator[AgentProcess]:
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with running(tmp_path, env) as made:
        yield made


def crowd_of(agent: AgentProcess, number: int, sent: bytes) -> list[socket.socket]:
    """``number`` clients from four addresses, which have all said ``sent``."""
    clients = []
    for at in range(number):
        client = socket.socket()
        client.settimeout(30)
        client.bind((f"127.0.0.{2 + at % 4}", 0))
        client.connect(("127.0.0.1", agent.port))
        with contextlib.suppress(ConnectionError):
            client.sendall(sent)
        client.setblocking(False)
        clients.append(client)
    return clients


def leave(clients: list[socket.socket]) -> None:
    for client in clients:
        client.close()


def descriptors(agent: AgentProcess) -> int:
    return len([*Path(f"/proc/{agent.process.pid}/fd").iterdir()])


def resident_bytes(agent: AgentProcess) -> int:
    pages = int(Path(f"/proc/{agent.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def serves(agent: AgentProcess, payload: object) -> bool:
    answer = agent.secrets()
    return answer.status == 200 and bool(answer.json == payload)


@pytest.mark.parametrize("kind", KINDS)
def test_ten_thousand_clients_keep_no_other_out(
    agent: AgentProcess, artifact: Path, kind: str
) -> None:
    before = descriptors(agent)
    clients = crowd_of(agent, BEYOND, KINDS[kind])
    eventually(lambda: descriptors(agent) > CROWD, "the crowd to be in")
    with Watch(agent, PAYLOAD, NEW_PAYLOAD) as watch:
        eventually(lambda: watch.served > 20, "answers")
        replace_file(artifact, packed(NEW_PAYLOAD))
        eventually(lambda: serves(agent, NEW_PAYLOAD), "what the source has")
        assert resident_bytes(agent) < 400 * MB
        leave(clients)
        eventually(lambda: descriptors(agent) < before + 50, "an end of the crowd")
    assert watch.lost == []


@pytest.mark.parametrize("kind", ["half a head", "half a body"])
def test_requests_that_drip_are_cut_and_their_clients_need_not_leave(
    agent: AgentProcess, kind: str
) -> None:
    before = descriptors(agent)
    clients = crowd_of(agent, CROWD, KINDS[kind])
    with Watch(agent, PAYLOAD) as watch:

        def drip() -> bool:
            for client in clients:
                with contextlib.suppress(OSError):
                    client.send(b"x")
            return descriptors(agent) < before + 50

        eventually(drip, "an end of the crowd", patience_s=60)
    leave(clients)
    assert watch.lost == []


def test_slow_readers_get_what_they_were_promised_and_hold_one_copy_of_it(
    agent: AgentProcess, artifact: Path
) -> None:
    large = {"big": {"BLOB": "x" * (4 * MB)}}
    replace_file(artifact, packed(large))
    eventually(lambda: serves(agent, large), "what the source has")
    clients = crowd_of(agent, 300, WHOLE.encode())
    with Watch(agent, large, NEW_PAYLOAD) as watch:
        began = resident_bytes(agent)
        replace_file(artifact, packed(NEW_PAYLOAD))
        eventually(lambda: serves(agent, NEW_PAYLOAD), "what the source has")
        assert resident_bytes(agent) - began < 100 * MB
        for client in clients[:20]:
            client.settimeout(30)
            answer = b""
            while len(answer) < 4 * MB or not answer.endswith(b'"}}'):
                answer += (received := client.recv(MB))
                assert received
            assert answer.count(b"x" * 1024) == 4 * 1024
    leave(clients)
    assert watch.lost == []


def test_clients_that_come_and_go_leave_nothing_behind(agent: AgentProcess) -> None:
    before = descriptors(agent)
    began = time.monotonic()
    with Watch(agent, PAYLOAD) as watch:
        for round_ in range(10):
            leave(crowd_of(agent, 500, list(KINDS.values())[round_ % len(KINDS)]))
        eventually(lambda: descriptors(agent) < before + 50, "an end of the crowd")
    assert watch.lost == []
    assert time.monotonic() - began < 60
