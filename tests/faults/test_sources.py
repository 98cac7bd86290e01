"""A source that misbehaves: what was served goes on being served, and the next good answer counts.

One agent meets all faults, one after the other. Those that last until the deadline of 15 s meet
an agent each, all at once.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import bad_source
from agent_process import AgentProcess, eventually, running, wait_for_copy
from bad_source import BadSource, Fault, head, says, serving
from fakes import (
    AGE_KEY,
    ED25519_SIGNER,
    ED25519_VERIFY_KEY,
    OTHER_AGE_RECIPIENT,
    OTHER_ED25519_SIGNER,
    packed,
)
from watch import Watch

FETCH = "fetch_failed"
HTML = b"<html><title>Sign in</title></html>"


def answers(body: bytes, *lines: str, status: str = "200 OK") -> Fault:
    return says(head(len(body), *lines, status=status) + body)


FAULTS: dict[str, tuple[Fault, str]] = {
    "hangs up": (bad_source.hangs_up, FETCH),
    "resets": (bad_source.resets, FETCH),
    "resets in the body": (bad_source.resets_in_the_body, FETCH),
    "truncates": (bad_source.truncates, FETCH),
    "truncates chunks": (bad_source.truncates_chunks, FETCH),
    "cuts a body without a length": (bad_source.cuts_without_a_length, "json_parse"),
    "promises less than it sends": (bad_source.promises_less, "json_parse"),
    "promises more than it sends": (bad_source.promises_more, FETCH),
    "promises two lengths": (bad_source.promises_two_lengths, FETCH),
    "promises a gigabyte": (bad_source.promises_a_gigabyte, FETCH),
    "promises nonsense": (says(head(None, "Content-Length: -1")), FETCH),
    "redirects in circles": (bad_source.redirects_in_circles, FETCH),
    "redirects elsewhere": (bad_source.redirects_elsewhere, FETCH),
    "redirects nowhere": (answers(b"", status="302 Found"), FETCH),
    "answers with a page": (answers(HTML, "Content-Type: text/html"), "json_parse"),
    "answers with nothing": (answers(b""), "json_parse"),
    "answers 204": (says(head(None, status="204 No Content")), FETCH),
    "answers 206": (answers(b"{}", status="206 Partial Content"), FETCH),
    "answers 304 unasked": (says(head(None, status="304 Not Modified")), FETCH),
    "answers 401": (answers(HTML, status="401 Unauthorized"), FETCH),
    "answers 403": (answers(HTML, status="403 Forbidden"), FETCH),
    "answers 404": (answers(HTML, status="404 Not Found"), FETCH),
    "answers 410": (answers(HTML, status="410 Gone"), FETCH),
    "answers 429": (answers(b"", "Retry-After: 1", status="429 Slow Down"), FETCH),
    "answers 500": (answers(HTML, status="500 Oops"), FETCH),
    "answers 999": (answers(HTML, status="999 What"), FETCH),
    "speaks ssh": (says(b"SSH-2.0-OpenSSH_9.6\r\n"), FETCH),
    "speaks tls": (says(b"\x15\x03\x03\x00\x02\x02\x28"), FETCH),
    "speaks http 0.9": (says(HTML), FETCH),
    "sends zeros": (answers(bytes(100_000)), "json_parse"),
    "sends a bomb": (answers(b"\x1f\x8b\x08", "Content-Encoding: gzip"), FETCH),
    "sends deep nesting": (answers(b"[" * 1_000_000), "json_parse"),
    "sends another's json": (answers(b'{"version":1}'), "missing_fields"),
    "sends a wrong signature": (answers(packed(signer=OTHER_ED25519_SIGNER)), "signature_invalid"),
    "sends no signature": (answers(packed()), "signature_missing"),
    "sends what no key opens": (
        answers(packed(signer=ED25519_SIGNER, recipient=OTHER_AGE_RECIPIENT)),
        "decrypt",
    ),
    "floods the body": (bad_source.floods_the_body, FETCH),
    "floods headers": (bad_source.floods_headers, FETCH),
    "floods one header": (bad_source.floods_one_header, FETCH),
    "floods line ends": (bad_source.floods_line_ends, FETCH),
}
SLOW_FAULTS: dict[str, Fault] = {
    "stalls": bad_source.stalls,
    "stalls in the body": bad_source.stalls_in_the_body,
    "promises more and stalls": bad_source.promises_more_and_stalls,
    "drips the head": bad_source.drips_the_head,
    "drips the body": bad_source.drips_the_body,
    "drips early hints": bad_source.drips_early_hints,
    "floods early hints": bad_source.floods_early_hints,
    "floods tiny chunks": bad_source.floods_tiny_chunks,
}
#: Of the faults, those that just-in-time mode meets, too: one of each kind.
JUST_IN_TIME = (
    "resets in the body",
    "truncates",
    "promises less than it sends",
    "redirects in circles",
    "answers with a page",
    "answers 500",
    "sends a wrong signature",
    "sends what no key opens",
    "floods the body",
)

_versions = count(1)


def fresh() -> tuple[Any, bytes]:
    """A payload that was never served before, and a signed artifact of it."""
    payload = {"app": {"VERSION": str(next(_versions))}}
    return payload, packed(payload, signer=ED25519_SIGNER)


def environment(source: BadSource) -> dict[str, str]:
    return {
        "CLEF_AGENT_SOURCE": source.url,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY,
        "CLEF_AGENT_POLL_INTERVAL": "5",
    }


@dataclass
class Subject:
    """An agent, its source, and what it serves."""

    agent: AgentProcess
    source: BadSource
    payload: Any

    def endure(self, fault: Fault, reason: str) -> None:
        """``fault`` is refused for ``reason``, costs nothing, and is over when the source says."""
        self.source.fault = fault
        with Watch(self.agent, self.payload) as watch:
            refused = self.agent.refresh()
            assert (refused.status, refused.json["reason"]) == (503, reason)
            assert self.agent.request("/v1/ready").status == 200
            payload, body = fresh()
            watch.allow(payload)
            self.source.body, self.source.fault = body, None
            eventually(lambda: self.agent.secrets().json == payload, "what the source has now")
        assert watch.lost == []
        self.payload = payload


@contextlib.contextmanager
def subject_at(home: Path, **env: str) -> Iterator[Subject]:
    payload, body = fresh()
    with (
        serving(BadSource(body)) as source,
        running(home, {**environment(source), **env}) as agent,
    ):
        yield Subject(agent, source, payload)


@pytest.fixture(scope="module")
def subject(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with subject_at(tmp_path_factory.mktemp("subject")) as made:
        yield made


@pytest.mark.parametrize("name", FAULTS)
def test_a_source_that(subject: Subject, name: str) -> None:
    fault, reason = FAULTS[name]
    subject.endure(fault, reason)


@pytest.fixture(scope="module")
def just_in_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Subject]:
    with subject_at(tmp_path_factory.mktemp("jit"), CLEF_AGENT_CACHE_TTL="0") as made:
        yield made


@pytest.mark.parametrize("name", JUST_IN_TIME)
def test_a_source_that_just_in_time_mode_meets(just_in_time: Subject, name: str) -> None:
    fault, reason = FAULTS[name]
    just_in_time.endure(fault, reason)


@pytest.fixture(scope="module")
def slow_runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[None]]]:
    def run(fault: Fault, home: Path) -> None:
        with subject_at(home) as made:
            made.endure(fault, FETCH)

    with ThreadPoolExecutor(len(SLOW_FAULTS)) as pool:
        yield {
            name: pool.submit(run, fault, tmp_path_factory.mktemp("slow"))
            for name, fault in SLOW_FAULTS.items()
        }


@pytest.mark.parametrize("name", SLOW_FAULTS)
def test_a_source_that_never_ends(slow_runs: dict[str, Future[None]], name: str) -> None:
    slow_runs[name].result(120)


@pytest.mark.parametrize(
    "name", ["resets", "truncates", "promises less than it sends", "answers with a page"]
)
def test_an_agent_that_starts_serves_its_copy_where_the_source(tmp_path: Path, name: str) -> None:
    payload, body = fresh()
    cache = tmp_path / "cache"
    with serving(BadSource(body)) as source:
        env = {**environment(source), "CLEF_AGENT_CACHE_PATH": str(cache)}
        with running(tmp_path, env) as agent:
            wait_for_copy(cache)
            assert agent.stop() == 0
        source.fault = FAULTS[name][0]
        with AgentProcess(tmp_path, env) as agent:
            agent.wait_until_ready()
            assert agent.secrets().json == payload
            with Watch(agent, payload) as watch:
                payload, body = fresh()
                watch.allow(payload)
                source.body, source.fault = body, None
                eventually(lambda: agent.secrets().json == payload, "what the source has now")
            assert watch.lost == []
