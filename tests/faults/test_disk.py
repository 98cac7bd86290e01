"""A disk that is full, read-only, out of files, or gone: a warning, and nothing else."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent_process import PATIENCE_S, AgentProcess, eventually
from artifact_store import ArtifactStore, serving
from fakes import AGE_KEY, PAYLOAD, packed
from watch import Watch

NEW_PAYLOAD = {"app": {"KEY": "new"}}
WARNING = "the copy on disk could not be written"

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a disk of one's own takes root, and namespaces",
)


@dataclass(frozen=True)
class Disk:
    """A small disk in a mount namespace; ``path`` is where it lies in there."""

    holder: int
    path: Path

    @property
    def prefix(self) -> tuple[str, ...]:
        """What stands before a command that shall see it."""
        return ("nsenter", f"--target={self.holder}", "--mount", "--")

    @property
    def seen_from_here(self) -> Path:
        return Path(f"/proc/{self.holder}/root{self.path}")

    def remount(self, options: str) -> None:
        command = ["mount", "-o", f"remount,{options}", str(self.path)]
        subprocess.run([*self.prefix, *command], check=True, timeout=PATIENCE_S)

    def fill(self) -> None:
        with contextlib.suppress(OSError), (self.seen_from_here / "clef-filler").open("wb") as file:
            while True:
                file.write(b"x" * 4096)
                file.flush()

    def empty(self) -> None:
        (self.seen_from_here / "clef-filler").unlink()

    def use_up_files(self) -> None:
        with contextlib.suppress(OSError):
            for number in range(1_000):
                (self.seen_from_here / f"clef-file-{number}").touch()

    def give_files_back(self) -> None:
        for path in self.seen_from_here.glob("clef-file-*"):
            path.unlink()

    def holds(self, number: int) -> bool:
        """Whether so many whole artifacts with their record lie there, and nothing half-written."""
        cache = self.seen_from_here / "cache"
        found = [path.name for path in cache.iterdir()] if cache.exists() else []
        records = [name for name in found if name.endswith(".record.json")]
        return len(records) == number and len(found) == 2 * number


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    script = 'mount -t tmpfs -o size=64k,nr_inodes=40 tmpfs "$0" && echo up && exec sleep infinity'
    holder = subprocess.Popen(
        ["unshare", "--mount", "--kill-child", "sh", "-c", script, str(path)],
        stdout=subprocess.PIPE,
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"up\n"
        yield Disk(holder.pid, path)
    finally:
        holder.kill()
        holder.communicate()


class Rig:
    """An agent whose copies go to ``disk``."""

    def __init__(self, home: Path, disk: Disk, store: ArtifactStore) -> None:
        self._home = home
        self._disk = disk
        self._env = {
            "CLEF_AGENT_SOURCE": store.url,
            "CLEF_AGENT_AGE_KEY": AGE_KEY,
            "CLEF_AGENT_CACHE_PATH": str(disk.path / "cache"),
            "CLEF_AGENT_POLL_INTERVAL": "5",
        }

    def agent(self) -> AgentProcess:
        return AgentProcess(self._home, self._env, prefix=self._disk.prefix)


@pytest.fixture
def store() -> Iterator[ArtifactStore]:
    with serving(ArtifactStore(packed())) as made:
        yield made


@pytest.fixture
def rig(tmp_path: Path, disk: Disk, store: ArtifactStore) -> Rig:
    return Rig(tmp_path, disk, store)


TROUBLES = {
    "full": (Disk.fill, Disk.empty),
    "read-only": (lambda disk: disk.remount("ro"), lambda disk: disk.remount("rw")),
    "out of files": (Disk.use_up_files, Disk.give_files_back),
}


@pytest.mark.parametrize("trouble", ["full", "read-only"])
def test_a_start_on_a_disk_that_is(
    trouble: str, rig: Rig, disk: Disk, store: ArtifactStore
) -> None:
    begin, end = TROUBLES[trouble]
    begin(disk)
    with rig.agent() as agent:
        agent.wait_until_ready()
        assert agent.wait_for(WARNING) in agent.err_lines
        with Watch(agent, PAYLOAD, NEW_PAYLOAD) as watch:
            store.body = packed(NEW_PAYLOAD)
            eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "what the source has")
            end(disk)
            eventually(lambda: disk.holds(1), "the copy")
        assert watch.lost == []
        assert agent.stop() == 0


@pytest.mark.parametrize("trouble", ["full", "read-only", "out of files"])
def test_a_disk_that_becomes(trouble: str, rig: Rig, disk: Disk, store: ArtifactStore) -> None:
    begin, end = TROUBLES[trouble]
    with rig.agent() as agent:
        agent.wait_until_ready()
        eventually(lambda: disk.holds(1), "the copy")
        begin(disk)
        with Watch(agent, PAYLOAD, NEW_PAYLOAD) as watch:
            store.body = packed(NEW_PAYLOAD)
            eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "what the source has")
            agent.wait_for(WARNING)
            assert disk.holds(1), "the old copy is whole"
        assert watch.lost == []
        agent.process.kill()
    # The source is away: the copy of before is what there is.
    store.status = 503
    with rig.agent() as agent:
        agent.wait_until_ready()
        assert agent.secrets().json == PAYLOAD
        store.status = 200
        end(disk)
        eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "what the source has")


def test_a_directory_that_is_taken_away_is_made_anew(
    rig: Rig, disk: Disk, store: ArtifactStore
) -> None:
    with rig.agent() as agent:
        agent.wait_until_ready()
        eventually(lambda: disk.holds(1), "the copy")
        with Watch(agent, PAYLOAD, NEW_PAYLOAD) as watch:
            shutil.rmtree(disk.seen_from_here / "cache")
            store.body = packed(NEW_PAYLOAD)
            eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "what the source has")
            eventually(lambda: disk.holds(1), "the copy")
        assert watch.lost == []


def test_a_limit_on_the_size_of_files_is_a_full_disk(
    tmp_path: Path, disk: Disk, store: ArtifactStore
) -> None:
    import resource

    rig = Rig(tmp_path, disk, store)
    with rig.agent() as agent:
        agent.wait_until_ready()
        eventually(lambda: disk.holds(1), "the copy")
        resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY))
        with Watch(agent, PAYLOAD, NEW_PAYLOAD) as watch:
            store.body = packed(NEW_PAYLOAD)
            eventually(lambda: agent.secrets().json == NEW_PAYLOAD, "what the source has")
            agent.wait_for(WARNING)
            assert disk.holds(1), "the old copy is whole"
            infinite = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
            resource.prlimit(agent.process.pid, resource.RLIMIT_FSIZE, infinite)
            store.body = packed(PAYLOAD)
            eventually(lambda: agent.secrets().json == PAYLOAD, "what the source has")
            eventually(lambda: disk.holds(1), "the copy")
        assert watch.lost == []
