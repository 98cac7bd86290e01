"""How much of a secret that is no longer held a running agent still has in its memory: nothing.

The values searched for are those of the payload, in each form in which they could lie there: as
JSON and as text of one, two or four bytes a character, whole or in pieces of 16 characters. Out of
scope are the age identities and the agent's own token, which live as long as the process, a data
key in the clients of the key services, and the two values of a payload that the agent uses itself
(telemetry's); SECURITY.md says so.
"""

from __future__ import annotations

import ctypes
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from agent_process import AgentProcess, eventually, replace_file
from clef_agent.artifact.pack import Packing, Payload, ToKeyService, WrappedKey, pack
from clouds import FakeKms
from fake_service import serving
from fakes import AGE_KEY, changed, packed
from process_memory import Marked, copies_of
from process_tree import tree_of

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's"),
    pytest.mark.skipif(
        not hasattr(ctypes.CDLL(None), "mallopt"), reason="this C library does not overwrite"
    ),
]


def short(marked: Marked) -> Payload:
    """Less than a page in all: where Python's own allocator and glibc's caches would keep it."""
    return {"app": {"URL": marked.value(3), "KEY": marked.value(1) + '"\\é'}, "b": {"K": "x"}}


def usual(marked: Marked) -> Payload:
    """Some kilobytes: many values, one of several lines, one that Python has as UTF-32."""
    keys = {f"KEY_{number}": marked.value(4) for number in range(50)}
    return {
        "app": keys,
        "other": {
            "LINES": "\n".join(marked.value(4) for _ in range(20)),
            "WIDE": marked.value(4) + "🔑",
        },
    }


def large(marked: Marked) -> Payload:
    """Nearly a megabyte: opened in a thread, written in pieces."""
    keys = {f"KEY_{number}": marked.value(6) for number in range(5000)}
    return {"app": keys, "b": {"BIG": "\n".join(marked.value(4) for _ in range(6000)), "€": "€"}}


every_size = pytest.mark.parametrize("payload_of", [short, usual, large])
MakePayload = Callable[[Marked], Payload]


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    return tmp_path / "artifact.json"


def agent_for(artifact: Path, **more: str) -> AgentProcess:
    env = {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY, **more}
    return AgentProcess(artifact.parent, env)


def use(agent: AgentProcess, payload: Payload) -> None:
    """Asks for ``payload`` in every way that there is."""
    for _ in range(3):
        assert agent.secrets().json == payload
        etag = agent.secrets().headers["etag"]
        assert agent.request("/v1/secrets", headers={"If-None-Match": etag}).status == 304
        for path in ("/v1/secrets?format=flat", "/v1/keys", "/v1/metrics"):
            assert agent.request(path).status == 200
        assert agent.request("/v1/secrets", method="HEAD").status == 200
        for namespace, values in payload.items():
            for key in list(values)[:50]:
                assert (
                    agent.request(f"/v1/secrets/{namespace}/{key.replace('€', '%E2%82%AC')}").status
                    == 200
                )


def count(marked: Marked, agent: AgentProcess, what: str) -> int:
    """Copies in all processes, whole or in pieces; printed, with where they lie. Skips where
    nobody may look.
    """
    copies: Counter[str] = Counter()
    try:
        for pid in tree_of(agent.process.pid):  # the one-file executable is two
            copies += copies_of(marked, pid)
    except PermissionError:
        pytest.skip("only root, with CAP_SYS_PTRACE, may read the memory of an agent")
    sys.stdout.write(f"{what}: {copies.total()} copies {dict(copies.most_common(5))}\n")
    return copies.total()


@every_size
def test_nothing_of_the_old_secrets_is_left_after_a_rotation_nor_of_any_after_a_revocation(
    payload_of: MakePayload, artifact: Path
) -> None:
    old, new = Marked(), Marked()
    artifact.write_bytes(packed(payload := payload_of(old)))
    with agent_for(artifact) as agent:
        agent.wait_until_ready()
        use(agent, payload)
        assert count(old, agent, "held") > 0
        replace_file(artifact, packed(payload := payload_of(new)))
        assert agent.refresh().status == 200
        use(agent, payload)
        assert count(old, agent, "after a rotation") == 0
        assert count(new, agent, "held") > 0
        replace_file(artifact, changed(artifact.read_bytes(), revokedAt="2027-01-15T08:00:00Z"))
        agent.refresh()
        assert agent.secrets().status == 503
        assert count(old, agent, "the one before, after a revocation") == 0
        assert count(new, agent, "after a revocation") == 0


@every_size
def test_nothing_is_left_after_the_artifact_has_expired(
    payload_of: MakePayload, artifact: Path
) -> None:
    old, expiring = Marked(), Marked()
    artifact.write_bytes(packed(payload := payload_of(old)))
    with agent_for(artifact) as agent:
        agent.wait_until_ready()
        use(agent, payload)
        replace_file(artifact, packed(payload_of(expiring), expires_at=time.time() + 3))
        eventually(lambda: agent.secrets().status == 503, "the expiry")
        assert count(old, agent, "after the expiry of its successor") == 0
        assert count(expiring, agent, "after its expiry") == 0


@every_size
def test_a_rejected_payload_leaves_nothing(payload_of: MakePayload, artifact: Path) -> None:
    # Its plaintext is known by the time it is refused, and the failure is remembered.
    served, refused = Marked(), Marked()
    artifact.write_bytes(packed(payload := payload_of(served)))
    with agent_for(artifact) as agent:
        agent.wait_until_ready()
        replace_file(artifact, packed({**payload_of(refused), "deep": {"a": {"b": "c"}}}))  # type: ignore[dict-item]  # so it shall be
        assert agent.refresh().json["reason"] == "payload_parse"
        assert agent.secrets().json == payload
        assert count(refused, agent, "after a rejection") == 0


@every_size
def test_nothing_outlives_a_response_in_just_in_time_mode(
    payload_of: MakePayload, artifact: Path
) -> None:
    marked = Marked()
    artifact.write_bytes(packed(payload := payload_of(marked)))
    with agent_for(artifact, CLEF_AGENT_CACHE_TTL="0") as agent:
        agent.wait_until_ready()
        use(agent, payload)
        assert count(marked, agent, "between requests") == 0


class ByService:
    """A KeyWrapper that has ``service`` wrap."""

    def __init__(self, service: FakeKms) -> None:
        self._service = service

    def wrap(self, data_key: bytes) -> WrappedKey:
        wrapped = self._service.wrap(data_key)
        return WrappedKey("aws", self._service.arn, wrapped, self._service.algorithm)


@every_size
@pytest.mark.parametrize("ttl_s", [0, 300])
def test_nothing_is_left_of_what_a_key_service_helped_to_open(
    ttl_s: int, payload_of: MakePayload, artifact: Path
) -> None:
    marked = Marked()
    with serving(FakeKms()) as service:
        packing = Packing(
            identity="api",
            environment="production",
            encryption=ToKeyService(ByService(service)),
            packed_at=time.time(),
        )
        artifact.write_bytes(pack(payload := payload_of(marked), packing))
        more = {**service.environment, "CLEF_AGENT_CACHE_TTL": str(ttl_s)}
        with agent_for(artifact, **more) as agent:
            agent.wait_until_ready()
            use(agent, payload)
            assert count(marked, agent, f"with a TTL of {ttl_s}") > 0 or ttl_s == 0
            if ttl_s > 0:
                revoked = changed(artifact.read_bytes(), revokedAt="2027-01-15T08:00:00Z")
                replace_file(artifact, revoked)
                agent.refresh()
                assert agent.secrets().status == 503
            assert count(marked, agent, "after that") == 0
