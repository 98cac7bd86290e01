"""The copy on disk, cut, altered, and left by writers that were killed."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from agent_process import AgentProcess, eventually, running
from artifact_store import ArtifactStore, serving
from clef_agent.cache.disk import DiskCache
from clef_agent.clock import Instant
from clef_agent.errors import DiskCopyUnusable
from fakes import AGE_KEY, PAYLOAD, packed

Record = Callable[[str, object], None]
NOW = Instant(1_000.0, 10.0)
NEW_PAYLOAD = {"app": {"KEY": "new"}}
WRITER = Path(__file__).with_name("crashing_writer.py")


@pytest.fixture
def kept(tmp_path: Path) -> tuple[DiskCache, bytes, dict[str, Path]]:
    data = packed()
    cache = DiskCache(str(tmp_path), key="k", boot_id="b")
    cache.store(data, hashlib.sha256(data).hexdigest(), NOW, None)
    (record,) = tmp_path.glob("*.record.json")
    (artifact,) = tmp_path.glob("*.artifact.json")
    return cache, data, {"record": record, "artifact": artifact}


def is_whole_or_refused(cache: DiskCache, data: bytes) -> bool:
    try:
        copy = cache.load(NOW)
    except DiskCopyUnusable:
        return True
    return copy is None or copy.data == data


@pytest.mark.parametrize("name", ["artifact", "record"])
@pytest.mark.parametrize("damage", ["cut", "flipped", "zeroed to its end"])
def test_a_copy_damaged_at_each_byte_is_whole_or_refused(
    kept: tuple[DiskCache, bytes, dict[str, Path]],
    name: str,
    damage: str,
    record_property: Record,
) -> None:
    cache, data, paths = kept
    whole = paths[name].read_bytes()
    for at in range(len(whole)):
        damaged = {
            "cut": whole[:at],
            "flipped": whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :],
            "zeroed to its end": whole[:at] + bytes(len(whole) - at),
        }[damage]
        paths[name].write_bytes(damaged)
        assert is_whole_or_refused(cache, data), at
        if name == "artifact":
            with pytest.raises(DiskCopyUnusable):
                cache.load(NOW)
    paths[name].write_bytes(whole)
    copy = cache.load(NOW)
    assert copy is not None
    assert copy.data == data
    record_property("arrangements", len(whole))


@pytest.mark.parametrize(
    ("operation", "allowed"),
    [
        ("first", {"none", "new"}),
        ("replace", {"old", "new"}),
        ("confirm", {"old"}),
        ("purge", {"old", "none"}),
    ],
)
def test_a_writer_killed_at_each_call_leaves_the_old_copy_or_the_new(
    tmp_path: Path, operation: str, allowed: set[str], record_property: Record
) -> None:
    done = subprocess.run(
        [sys.executable, str(WRITER), str(tmp_path), operation],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    lines: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    found = [line["found"] for line in lines]
    if operation == "purge":
        # Between the removal and the new record, the old one names what is gone.
        allowed = {*allowed, "unusable: its bytes are not those that its record names"}
    assert set(found) <= allowed
    assert len(lines) > 30
    assert [line["killed"] for line in lines] == [True] * (len(lines) - 1) + [False]
    assert {line["after"] for line in lines} == {"new"}
    assert {line["files"] for line in lines} == {2}, "something half-written was left"
    if operation != "first":
        assert None not in {line["mark"] for line in lines}, "the rollback mark was lost"
    record_property("arrangements", len(lines))


# --- real agents --------------------------------------------------------------------------------


def environment(store: ArtifactStore, cache: Path) -> dict[str, str]:
    return {
        "CLEF_AGENT_SOURCE": store.url,
        "CLEF_AGENT_AGE_KEY": AGE_KEY,
        "CLEF_AGENT_CACHE_PATH": str(cache),
        "CLEF_AGENT_POLL_INTERVAL": "5",
    }


def is_kept(cache: Path, data: bytes) -> bool:
    digest = hashlib.sha256(data).hexdigest()
    records = [path.read_bytes() for path in cache.glob("*.record.json")]
    return any(digest.encode() in record for record in records)


def is_whole(cache: Path, data: bytes) -> bool:
    """Whether the copy is there to its last byte, and its record, and nothing half-written.

    A record that a cut has left alone names the copy before it is whole again.
    """
    copies = [path.read_bytes() for path in cache.glob("*.artifact.json")]
    return is_kept(cache, data) and copies == [data] and len([*cache.iterdir()]) == 2


@pytest.mark.parametrize("suffix", ["artifact", "record"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.99])
def test_an_agent_starts_without_a_cut_copy_once_the_source_is_back(
    tmp_path: Path, suffix: str, share: float
) -> None:
    cache = tmp_path / "cache"
    store = ArtifactStore(packed())
    with serving(store):
        env = environment(store, cache)
        with running(tmp_path, env) as agent:
            eventually(lambda: is_kept(cache, store.body), "the copy")
            assert agent.stop() == 0
    (path,) = cache.glob(f"*.{suffix}.json")
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_for("trying again")
        assert agent.secrets().status == 503
        with serving(store, store.port):
            agent.wait_until_ready()
            assert agent.secrets().json == PAYLOAD
            eventually(lambda: is_whole(cache, store.body), "a whole copy, and nothing beside it")


@pytest.mark.parametrize("changes", range(1, 9))
def test_an_agent_killed_while_it_writes_its_copy_starts_from_it(
    tmp_path: Path, changes: int
) -> None:
    """Killed when its directory has changed ``changes`` times, or else once all is written."""
    cache = tmp_path / "cache"
    store = ArtifactStore(packed())
    with serving(store):
        env = environment(store, cache)
        with running(tmp_path, env) as agent:
            eventually(lambda: is_kept(cache, store.body), "the copy")
            store.body = packed(NEW_PAYLOAD)
            seen = [names(cache)]
            asking = threading.Thread(target=_refresh, args=(agent,), daemon=True)
            asking.start()
            eventually(
                lambda: _changed(cache, seen) >= changes or is_kept(cache, store.body),
                "a change",
            )
            agent.process.kill()
            agent.exit_code()
            asking.join(30)
    with AgentProcess(tmp_path, env) as agent:
        agent.wait_until_ready()
        assert agent.secrets().json in (PAYLOAD, NEW_PAYLOAD)
        with serving(store, store.port):
            eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "what the source has")
            eventually(lambda: is_kept(cache, store.body), "a copy of it")
            eventually(lambda: len(names(cache)) == 2, "nothing half-written")


def names(cache: Path) -> frozenset[str]:
    return frozenset(path.name for path in cache.iterdir())


def _changed(cache: Path, seen: list[frozenset[str]]) -> int:
    if (now := names(cache)) != seen[-1]:
        seen.append(now)
    return len(seen) - 1


def _refresh(agent: AgentProcess) -> None:
    try:
        agent.refresh()
    except (OSError, ValueError, AssertionError):
        assert agent.process.poll() is not None
