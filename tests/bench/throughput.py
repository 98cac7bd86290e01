"""``GET /v1/secrets`` beside a bare ASGI function that sends the same bytes; memory after it."""

from __future__ import annotations

import http.client
import json
import subprocess
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final

from bench import wrk
from bench.figures import Bound, Figure
from bench.processes import (
    TOKEN,
    agent_command,
    agent_env,
    cpu_s,
    free_port,
    memory_kib,
    program_command,
    running,
    wait_until_ready,
)
from bench.workload import KeyPair, fifty_keys

_ROUNDS: Final = 9
_ROUND_S: Final = 2
_CONNECTIONS: Final = 16
_PATH: Final = "/v1/secrets"


@dataclass(frozen=True, slots=True)
class Served:
    """One round of one server: what wrk saw, and the CPU that each request cost."""

    load: wrk.Load
    cpu_us: float


def measure(directory: Path) -> list[Figure]:
    """Both servers under the same load in turns, and then the agent's memory."""
    keys = KeyPair.generate(directory)
    artifact = directory / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    agent_port, bare_port = free_port(), free_port()
    with running(agent_command(), agent_env(agent_port, artifact, keys.file)) as agent:
        wait_until_ready(agent, agent_port)
        response = directory / "response.json"
        response.write_text(json.dumps(_response(agent_port)))
        with running(program_command("bare_asgi", str(bare_port), str(response))) as bare:
            wait_until_ready(bare, bare_port)
            rounds = _rounds((agent, agent_port), (bare, bare_port))
        # Alone: pages that a second process of the same interpreter maps count half in a PSS.
        memory = _memory(agent)
    return [*_figures(rounds), memory]


def _response(port: int) -> dict[str, object]:
    """What the agent answers, for another to repeat."""
    with closing(http.client.HTTPConnection("127.0.0.1", port)) as connection:
        connection.request("GET", _PATH, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return {"status": answer.status, "headers": headers, "body": answer.read().decode()}


def _rounds(
    agent: tuple[subprocess.Popen[bytes], int], bare: tuple[subprocess.Popen[bytes], int]
) -> list[tuple[Served, Served]]:
    rounds = []
    for number in range(_ROUNDS):
        # Who is second profits from caches, or suffers from heat: each is, in turn.
        if number % 2:
            by_bare, by_agent = _serve(*bare), _serve(*agent)
        else:
            by_agent, by_bare = _serve(*agent), _serve(*bare)
        rounds.append((by_agent, by_bare))
    return rounds


def _serve(process: subprocess.Popen[bytes], port: int) -> Served:
    before = cpu_s(process.pid)
    load = wrk.run(port, _PATH, connections=_CONNECTIONS, duration_s=_ROUND_S)
    return Served(load, (cpu_s(process.pid) - before) / load.requests * 1e6)


def _figures(rounds: list[tuple[Served, Served]]) -> list[Figure]:
    agent, bare = (list(served) for served in zip(*rounds, strict=True))
    ratio = median(ours.load.per_s / theirs.load.per_s for ours, theirs in rounds)
    cpu, bare_cpu = (median(one.cpu_us for one in served) for served in (agent, bare))
    return [
        Figure(
            "GET /v1/secrets, of a bare ASGI function",
            ratio,
            "x",
            Bound("at least", 0.75),
            f"median of {_ROUNDS} pairs; {_told(agent)} beside {_told(bare)}",
        ),
        Figure("CPU for each request", cpu, "us", None, f"beside {bare_cpu:.1f} us"),
    ]


def _told(served: list[Served]) -> str:
    per_s = median(one.load.per_s for one in served)
    p50, p99 = (
        median(one.load.p50_us for one in served),
        median(one.load.p99_us for one in served),
    )
    return f"{per_s:,.0f}/s (p50 {p50 / 1000:.2f} ms, p99 {p99 / 1000:.2f} ms)"


def _memory(agent: subprocess.Popen[bytes]) -> Figure:
    name, bound = "PSS with 50 keys, after that load", Bound("at most", 45)
    try:
        memory = memory_kib(agent.pid)
    except PermissionError:
        why = "only root may look: the agent keeps its memory from its own user (PR_SET_DUMPABLE)"
        return Figure(name, None, "MB", bound, why)
    except FileNotFoundError:
        return Figure(name, None, "MB", bound, "this system has no smaps_rollup")
    private = memory["Private_Clean"] + memory["Private_Dirty"]
    note = f"RSS {_mb(memory['Rss']):.1f} MB, of that its alone {_mb(private):.1f} MB"
    return Figure(name, _mb(memory["Pss"]), "MB", bound, note)


def _mb(kib: int) -> float:
    return kib * 1024 / 1e6
