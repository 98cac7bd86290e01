"""The agent in each of its forms beside another agent and the limits: one table, in one run.

The other agent is any that speaks the same API and takes the same variables: ``REFERENCE_CMD``.
All are asked in turns, round by round, so that others on the machine slow each of them alike.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Final

from bench import rivals, wrk
from bench.figures import Bound, Comparison, Figure
from bench.processes import (
    PATIENCE_S,
    TOKEN,
    MeasurementFailed,
    agent_env,
    cpu_s,
    free_port,
    memory_kib,
    running,
    wait_until_ready,
)
from bench.rivals import BARE, INSTALLED, NGINX, REFERENCE, Server
from bench.workload import KeyPair, fifty_keys, numbered
from process_tree import tree_of

_STARTS: Final = 11
_ROUNDS: Final = 9
_ROUND_S: Final = 1
_CONNECTIONS: Final = 16
_ROTATIONS: Final = 9
_REFRESHES: Final = 9
_SIZES: Final = (10, 1_000, 100_000)
#: A new artifact is found when we say so, and not before.
_UNWATCHED: Final = {"CLEF_AGENT_POLL_INTERVAL": "600", "CLEF_AGENT_CACHE_TTL": "3600"}
#: Until a new file's times have settled, and it is told apart by them alone; then it is watched.
_SETTLE_S, _IDLE_S, _HOUR_S = 4, 20, 3600
_POLL_S: Final = 0.002
#: Other agents look at a file as rarely as at a source far away.
_FOUND_S: Final = 90.0
_OK, _TOO_SOON = 200, 429
#: What a start may take of the reference's; installed, it is only told.
_START_BOUNDS: Final = {
    INSTALLED: None,
    "one file": Bound("at most", 1.0),
    "folder": Bound("at most", 0.6),
}


def measure(directory: Path) -> tuple[list[Figure], list[Comparison]]:
    """All figures of all servers, and the ratios that have floors."""
    keys = KeyPair.generate(directory)
    agents = rivals.agents()
    comparisons = [starts := _starts(agents, keys, directory / "starts")]
    loads, more = _loads(agents, keys, directory / "loads")
    comparisons += more
    just_in_time = _just_in_time(agents, keys, directory / "jit")
    comparisons.append(just_in_time)
    for count in _SIZES:
        comparisons += _refreshes(agents, keys, count, directory / f"keys-{count}")
    memory = next(one for one in comparisons if one.unit == "MB")
    return [
        *(
            figure
            for name, bound in _START_BOUNDS.items()
            for figure in _ratio(starts, name, REFERENCE, bound)
        ),
        *_ratio(loads, INSTALLED, BARE, Bound("at least", 0.75)),
        *_ratio(loads, INSTALLED, NGINX, Bound("at least", 0.3)),
        *_ratio(loads, INSTALLED, REFERENCE, Bound("at least", 4)),
        *_ratio(just_in_time, INSTALLED, REFERENCE, Bound("at least", 8)),
        *_memory_figures(memory),
    ], comparisons


# --- start --------------------------------------------------------------------------------------


def _starts(agents: dict[str, list[str]], keys: KeyPair, home: Path) -> Comparison:
    home.mkdir()
    artifact = home / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    taken: dict[str, list[float]] = defaultdict(list)
    for round_number in range(1 + _STARTS):
        for name, command in agents.items():
            port = free_port()
            began = time.perf_counter()
            with running(command, agent_env(port, artifact, keys.file)) as process:
                wait_until_ready(process, port)
                if round_number:  # the first leaves file caches warm, and does not count
                    taken[name].append((time.perf_counter() - began) * 1000)
    return Comparison("start to ready, file source", "ms", dict(taken))


# --- requests, and what the process is like afterwards ------------------------------------------


def _loads(
    agents: dict[str, list[str]], keys: KeyPair, home: Path
) -> tuple[Comparison, list[Comparison]]:
    comparisons: list[Comparison] = []
    with ExitStack() as stack:
        ours = [
            stack.enter_context(
                rivals.serving(name, command, keys, fifty_keys(), home / name.replace(" ", "-"))
            )
            for name, command in agents.items()
        ]
        for path in ("/v1/secrets", "/v1/keys", "/v1/health"):
            with _limits(path, ours[0], home / path.rpartition("/")[2]) as limits:
                comparisons += _requests(path, [*ours, *limits], f"GET {path}")
        comparisons.append(_idle(ours))
        comparisons.append(_memory(ours))
        comparisons.append(_rotations(ours, keys))
    return comparisons[0], comparisons


@contextlib.contextmanager
def _limits(path: str, agent: Server, home: Path) -> Iterator[list[Server]]:
    """Servers that send what ``agent`` answers, and do nothing else."""
    home.mkdir()
    status, headers, body = _answer(agent.port, path)
    response = home / "response.json"
    response.write_text(json.dumps({"status": status, "headers": headers, "body": body.decode()}))
    with ExitStack() as stack:
        servers = [stack.enter_context(rivals.bare_asgi(response))]
        if rivals.has_nginx():
            servers.append(stack.enter_context(rivals.nginx(body, headers, home / "nginx")))
        yield servers


def _requests(path: str, servers: Sequence[Server], title: str) -> list[Comparison]:
    """The rate first, then the times."""
    rates, halves, tails = ({server.name: list[float]() for server in servers} for _ in range(3))
    for number in range(_ROUNDS):
        # Who comes second profits from caches, or suffers from heat: each does, in turn.
        for server in servers if number % 2 else reversed(servers):
            load = wrk.run(server.port, path, connections=_CONNECTIONS, duration_s=_ROUND_S)
            rates[server.name].append(load.per_s)
            halves[server.name].append(load.p50_us / 1000)
            tails[server.name].append(load.p99_us / 1000)
    return [
        Comparison(title, "/s", rates),
        Comparison(f"{title}, p50", "ms", halves),
        Comparison(f"{title}, p99", "ms", tails),
    ]


def _idle(servers: Sequence[Server]) -> Comparison:
    time.sleep(_SETTLE_S)
    before, began = [_cpu_s(server) for server in servers], time.monotonic()
    time.sleep(_IDLE_S)
    elapsed_s = time.monotonic() - began
    used = [_cpu_s(server) - earlier for server, earlier in zip(servers, before, strict=True)]
    hours = {s.name: [one / elapsed_s * _HOUR_S] for s, one in zip(servers, used, strict=True)}
    return Comparison("CPU in an idle hour", "s", hours)


def _memory(servers: Sequence[Server]) -> Comparison:
    try:
        found = {server.name: [_sum_mb(server, "Pss")] for server in servers}
    except (PermissionError, FileNotFoundError):
        found = {}  # only root may look: the agent keeps its memory from its own user
    return Comparison("PSS after that load, all processes", "MB", found)


def _memory_figures(memory: Comparison) -> list[Figure]:
    return [
        Figure(f"PSS, {name}", memory.median(name), "MB", Bound("at most", limit), "50 keys")
        for name, limit in ((INSTALLED, 45), ("folder", 40), ("one file", 40))
        if memory.median(name) is not None
    ]


def _rotations(servers: Sequence[Server], keys: KeyPair) -> Comparison:
    taken: dict[str, list[float]] = defaultdict(list)
    for number in range(_ROTATIONS):
        for server in servers:
            taken[server.name].append(_rotation_ms(server, keys.pack(numbered(10, number))))
    return Comparison("from a replaced file to served", "ms", dict(taken))


def _rotation_ms(server: Server, artifact: bytes) -> float:
    old = _answer(server.port, "/v1/secrets")[2]
    began = _replace(server, artifact)
    _poll(lambda: _answer(server.port, "/v1/secrets")[2] != old, _FOUND_S)
    return (time.perf_counter() - began) * 1000


# --- just-in-time -------------------------------------------------------------------------------


def _just_in_time(agents: dict[str, list[str]], keys: KeyPair, home: Path) -> Comparison:
    with ExitStack() as stack:
        servers = [
            stack.enter_context(
                rivals.serving(
                    name, command, keys, fifty_keys(), home / str(number), CLEF_AGENT_CACHE_TTL="0"
                )
            )
            for number, (name, command) in enumerate(agents.items())
        ]
        return _requests("/v1/secrets", servers, "GET /v1/secrets, just in time (age)")[0]


# --- sizes --------------------------------------------------------------------------------------


def _refreshes(
    agents: dict[str, list[str]], keys: KeyPair, count: int, home: Path
) -> list[Comparison]:
    taken: dict[str, list[float]] = {}
    peaks: dict[str, list[float]] = {}
    artifacts = [keys.pack(numbered(count, seed)) for seed in range(2)]
    for number, (name, command) in enumerate(agents.items()):
        with rivals.serving(
            name,
            command,
            keys,
            numbered(count, 0),
            home / str(number),
            **_UNWATCHED,
        ) as server:
            times = [_refresh_ms(server, artifacts[(turn + 1) % 2]) for turn in range(_REFRESHES)]
            if None not in times:
                taken[name] = [one for one in times if one is not None]
            with contextlib.suppress(PermissionError, FileNotFoundError):
                peaks[name] = [_peak_mb(server)]
    return [
        Comparison(f"refresh of {count:,} keys", "ms", taken),
        Comparison(f"peak memory (RSS) with {count:,} keys", "MB", peaks),
    ]


def _refresh_ms(server: Server, artifact: bytes) -> float | None:
    """How long ``POST /v1/refresh`` takes when there is a new artifact; None without that API."""
    _replace(server, artifact)
    statuses: list[int] = []
    times: list[float] = []

    def is_done() -> bool:
        began = time.perf_counter()
        statuses.append(_answer(server.port, "/v1/refresh", method="POST")[0])
        times.append((time.perf_counter() - began) * 1000)
        return statuses[-1] != _TOO_SOON

    _poll(is_done)
    return times[-1] if statuses[-1] == _OK else None


# --- asking -------------------------------------------------------------------------------------


def _answer(port: int, path: str, method: str = "GET") -> tuple[int, dict[str, str], bytes]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, headers={"Authorization": f"Bearer {TOKEN}"})
        answer = connection.getresponse()
        headers = {name.lower(): value for name, value in answer.getheaders()}
        return answer.status, headers, answer.read()


def _replace(server: Server, data: bytes) -> float:
    """Puts ``data`` into the place of the artifact; returns when it was there."""
    assert server.artifact is not None
    passing = server.artifact.with_suffix(".new")
    passing.write_bytes(data)
    passing.replace(server.artifact)
    return time.perf_counter()


def _poll(is_done: Callable[[], bool], patience_s: float = PATIENCE_S) -> None:
    deadline = time.monotonic() + patience_s
    while not is_done():
        if time.monotonic() > deadline:
            raise MeasurementFailed(f"it did not come within {patience_s:g} s")
        time.sleep(_POLL_S)


def _cpu_s(server: Server) -> float:
    return sum(cpu_s(pid) for pid in tree_of(server.pid))


def _sum_mb(server: Server, name: str) -> float:
    return sum(memory_kib(pid)[name] for pid in tree_of(server.pid)) * 1024 / 1e6


def _peak_mb(server: Server) -> float:
    kib = 0
    for pid in tree_of(server.pid):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("VmHWM:"):
                kib += int(line.split()[1])
    return kib * 1024 / 1e6


# --- ratios -------------------------------------------------------------------------------------


def _ratio(comparison: Comparison, name: str, to: str, bound: Bound | None) -> list[Figure]:
    """What ``name`` took or gave, of what ``to`` did; nothing where one was not measured."""
    ratio = comparison.ratio(name, to)
    if ratio is None:
        return []
    note = f"{comparison.told(name)} beside {comparison.told(to)}, medians"
    return [Figure(f"{comparison.name}, {name}, of {to}", ratio, "x", bound, note)]
