"""The artifacts of another implementation, each at the start and as an update of real agents."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any, TypeAlias

import pytest

from agent_process import AgentProcess, replace_file
from clef_agent.artifact.verify import Policy
from clef_agent.cache.memory import Memory
from clef_agent.clock import SystemClock
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.errors import NotLoaded
from clef_agent.keys import parse_verify_key
from clef_agent.provider import CachedSecrets
from clef_agent.refresh import Failed, Outcome, Parts, Refreshed, Refresher
from clef_agent.schedule import Schedule
from fakes import FakeFiles, FakeUnwrapper, shared
from refresh_fakes import FakeKeeper, FakeSource, Recorder

Case: TypeAlias = "dict[str, Any]"

_MANIFEST = Path(__file__).resolve().parents[3] / "shared" / "vectors" / "manifest.json"
MANIFEST: dict[str, Any] = json.loads(_MANIFEST.read_bytes()) if _MANIFEST.exists() else {}
CASES: list[Case] = MANIFEST.get("cases", [])
#: What these want from a key service is proven without a process, where one can be stood in for.
NEED_A_KEY_SERVICE = {
    "kms-aws",
    "kms-gcp",
    "kms-azure",
    "kms-aws-signed",
    "kms-bad-auth-tag",
    "kms-short-auth-tag",
}
PROCESS_CASES = [case for case in CASES if case["name"] not in NEED_A_KEY_SERVICE]
#: No vector is good under the key named "wrong", so there is nothing that could be updated.
UPDATE_CASES = [case for case in PROCESS_CASES if case.get("verifyKey") != "wrong"]
#: Refused artifacts that take the secrets away with them.
WIPING = {"revoked": "revoked", "expired": "artifact_expired"}
#: An artifact that is good under each verify key.
GOOD = {
    None: "age-two-namespaces",
    "ed25519": "signed-ed25519",
    "ecdsaP256": "signed-ecdsa-p256",
}
_STARTS_AT_ONCE = 3
_MOST_CASES_OF_ONE_AGENT = 13


@dataclass(frozen=True)
class Start:
    """How an agent that found the artifact at its start went on."""

    exit_code: int | None
    secrets: object
    err: str


@dataclass(frozen=True)
class Update:
    """What a running agent answered before and after an artifact took the place of a good one."""

    refresh_status: int
    refresh_reason: str | None
    before: tuple[int, object]
    after: tuple[int, object]


def environment(source: Path, verify_key: str | None) -> dict[str, str]:
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": MANIFEST["ageKey"]}
    if verify_key is not None:
        env["CLEF_AGENT_VERIFY_KEY"] = MANIFEST["verifyKeys"][verify_key]
    return env


def named(name: str) -> Case:
    return next(case for case in CASES if case["name"] == name)


def data_of(case: Case) -> bytes:
    path: Path = shared("vectors") / case["file"]
    return path.read_bytes()


def start_with(case: Case, home: Path) -> Start:
    source = shared("vectors") / case["file"]
    with AgentProcess(home, environment(source, case.get("verifyKey"))) as agent:
        if "reject" in case["expect"]:
            return Start(agent.exit_code(), None, agent.err)
        return Start(None, agent.wait_until_ready().secrets().json, agent.err)


def update_with_each(cases: list[Case], home: Path) -> dict[str, Update]:
    """One running agent takes ``cases``, all of one verify key, one after the other."""
    verify_key = cases[0].get("verifyKey")
    good = data_of(named(GOOD[verify_key]))
    source = home / "artifact.json"
    updates = {}
    source.write_bytes(good)
    with AgentProcess(home, environment(source, verify_key)) as agent:
        agent.wait_until_ready()
        for case in cases:
            if agent.secrets().status != 200:
                replace_file(source, good)
                assert agent.refresh().status == 200
            before = agent.secrets()
            replace_file(source, data_of(case))
            refresh = agent.refresh()
            after = agent.secrets()
            updates[case["name"]] = Update(
                refresh.status,
                refresh.json.get("reason"),
                (before.status, before.json),
                (after.status, after.json),
            )
    return updates


@pytest.fixture(scope="module")
def starts(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Future[Start]]]:
    home = tmp_path_factory.mktemp("starts")
    with ThreadPoolExecutor(_STARTS_AT_ONCE) as pool:
        yield {case["name"]: pool.submit(start_with, case, home) for case in PROCESS_CASES}
        pool.shutdown(cancel_futures=True)


@pytest.fixture(scope="module")
def updates(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Update]]:
    rows: dict[str | None, list[Case]] = {}
    for case in UPDATE_CASES:
        rows.setdefault(case.get("verifyKey"), []).append(case)
    parts = [
        row[start : start + _MOST_CASES_OF_ONE_AGENT]
        for row in rows.values()
        for start in range(0, len(row), _MOST_CASES_OF_ONE_AGENT)
    ]
    with ThreadPoolExecutor(max(len(parts), 1)) as pool:
        homes = [tmp_path_factory.mktemp("updates") for _ in parts]
        made: dict[str, Update] = {}
        for some in pool.map(update_with_each, parts, homes):
            made.update(some)
        yield made


def name_of(case: Case) -> str:
    name: str = case["name"]
    return name


def test_the_vectors_are_there() -> None:
    shared("vectors")
    assert len(CASES) == 59
    assert len(PROCESS_CASES) == 53
    assert len(UPDATE_CASES) == 52


@pytest.mark.parametrize("case", PROCESS_CASES, ids=name_of)
def test_an_artifact_found_at_the_start_is_served_or_ends_it(
    case: Case, starts: dict[str, Future[Start]]
) -> None:
    start = starts[case["name"]].result()

    if "values" in case["expect"]:
        assert (start.exit_code, start.secrets) == (None, case["expect"]["values"])
    else:
        assert start.exit_code == 1
        assert f"reason={case['expect']['reject']}" in start.err
        assert "[clef-agent] hint: " in start.err


@pytest.mark.parametrize("case", UPDATE_CASES, ids=name_of)
def test_an_update_is_served_or_refused_without_harm(
    case: Case, updates: dict[str, Update]
) -> None:
    expected, update = case["expect"], updates[case["name"]]

    assert update.before[0] == 200
    if "values" in expected:
        assert (update.refresh_status, update.after) == (200, (200, expected["values"]))
        return
    assert (update.refresh_status, update.refresh_reason) == (503, expected["reject"])
    if expected["reject"] in WIPING:
        status, body = update.after
        assert status == 503
        assert isinstance(body, dict)
        assert body["reason"] == WIPING[expected["reject"]]
    else:
        assert update.after == update.before


# --- with a key service that can be stood in for ----------------------------------------------


def refreshed_with(case: Case, *datas: bytes) -> tuple[Outcome, object]:
    """The outcome of the last of ``datas``, each found by the same refresher; what it serves."""
    key = MANIFEST["verifyKeys"][case["verifyKey"]] if "verifyKey" in case else None
    unwrapper = FakeUnwrapper(base64.b64decode(case["dek"]))
    source, clock, memory = FakeSource(), SystemClock(), Memory(300)
    refresher = Refresher(
        Parts(
            source=source,
            decryptor=Decryptor(
                AgeKeyring(MANIFEST["ageKey"], None, FakeFiles()),
                EnvelopeOpener(dict.fromkeys(("aws", "gcp", "azure"), unwrapper)),
            ),
            memory=memory,
            keeper=FakeKeeper(),
            policy=Policy(verify_key=parse_verify_key(key) if key else None),
            clock=clock,
            schedule=Schedule(60, Random(0)),
            emit=Recorder(),
        ),
        keeps_plaintext=True,
    )

    async def refresh_with_each() -> tuple[Outcome, object]:
        for data in datas:
            source.data = data
            outcome = await refresher.refresh()
        try:
            opened = await CachedSecrets(memory, refresher, clock).open()
        except NotLoaded:
            return outcome, None
        return outcome, json.loads(bytes(opened.secrets.json))

    return asyncio.run(refresh_with_each())


@pytest.mark.parametrize(
    "case", [case for case in CASES if "dek" in case], ids=lambda case: case["name"]
)
def test_an_envelope_is_served_or_refused_at_the_start_and_as_an_update(case: Case) -> None:
    good, data, expected = named(GOOD[case.get("verifyKey")]), data_of(case), case["expect"]

    at_start, served_at_start = refreshed_with(case, data)
    as_update, served_after_update = refreshed_with(case, data_of(good), data)

    if "values" in expected:
        assert isinstance(at_start, Refreshed)
        assert isinstance(as_update, Refreshed)
        assert served_at_start == served_after_update == expected["values"]
    else:
        assert isinstance(at_start, Failed)
        assert isinstance(as_update, Failed)
        assert at_start.error.reason == as_update.error.reason == expected["reject"]
        assert (served_at_start, served_after_update) == (None, good["expect"]["values"])
