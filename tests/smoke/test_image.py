"""The image's root, with nothing but what it brings: read-only, uid 65532, no capabilities."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from agent_process import AgentProcess
from fakes import AGE_KEY, PAYLOAD, packed
from process_tree import runs, tree_of

ASSEMBLE = Path(__file__).resolve().parents[2] / "release" / "container" / "image.py"
MEGABYTE = 1_000_000

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="the owners of an image's files need root"),
    pytest.mark.skipif(shutil.which("umoci") is None, reason="umoci is not installed"),
    pytest.mark.skipif(shutil.which("apt-get") is None, reason="it is made of Debian's packages"),
]

#: The root, a directory of the test, /dev and /proc are all that there is.
IN_THE_ROOT = """
set -e
mount --bind "$1" "$1"
mkdir -p "$1/run/test"
mount --bind "$2" "$1/run/test"
mount -o remount,bind,ro "$1"
mount --rbind /dev "$1/dev"
mount -t proc proc "$1/proc"
cd "$1"
shift 2
exec chroot --userspec=65532:65532 . "$@"
"""


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory, executable: Path, is_one_file: bool) -> Path:
    if is_one_file:
        pytest.skip("the image is made of the folder")
    work = tmp_path_factory.mktemp("image")
    command = [
        sys.executable,
        *map(str, (ASSEMBLE, executable.parent, work / "layout", work / "work")),
    ]
    subprocess.run(command, check=True)
    return work


def test_it_is_quick_to_pull(work: Path) -> None:
    size = sum(path.stat().st_size for path in (work / "layout").rglob("*") if path.is_file())
    assert size <= 26 * MEGABYTE


def test_it_holds_no_shell(work: Path) -> None:
    root = work / "work" / "bundle" / "rootfs"
    assert not [path for path in root.rglob("*sh") if path.parent.name in {"bin", "sbin"}]


def capabilities(pid: int) -> set[int]:
    """What a process may do beyond its user, now or by what it starts."""
    status = Path(f"/proc/{pid}/status").read_text()
    held = re.findall(r"^Cap(?:Prm|Eff|Inh|Amb):\s*(\w+)", status, re.MULTILINE)
    return {int(digits, 16) for digits in held}


def test_its_agent_serves_and_answers_probes(work: Path, tmp_path: Path) -> None:
    shared = tmp_path / "shared"
    shared.mkdir(mode=0o755)
    (shared / "artifact.json").write_bytes(packed())
    (shared / "artifact.json").chmod(0o644)
    root = work / "work" / "bundle" / "rootfs"
    (root / "run" / "test").mkdir(exist_ok=True)
    prefix = ("unshare", "--mount", "--pid", "--fork", "--kill-child",
              "sh", "-c", IN_THE_ROOT, "sh", str(root), str(shared))  # fmt: skip
    env = {"CLEF_AGENT_SOURCE": "/run/test/artifact.json", "CLEF_AGENT_AGE_KEY": AGE_KEY}
    program = "/opt/clef-agent/clef-agent"
    with AgentProcess(tmp_path, env, prefix=prefix, program=program) as agent:
        assert agent.wait_until_ready().secrets().json == PAYLOAD
        *_, serving = tree_of(agent.process.pid)  # below those that have made its root
        assert runs(program, serving)
        assert capabilities(serving) == {0}
        probe = subprocess.run([*prefix, program, "health"], env=agent.env, check=False, timeout=30)
        assert probe.returncode == 0
