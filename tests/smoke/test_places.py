"""The executable in the places where it has to live, and how it leaves them."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import AgentProcess, eventually, running
from fakes import AGE_KEY, PAYLOAD, packed
from process_tree import is_ours, open_to, runs, tree_of

pytestmark = [
    pytest.mark.usefixtures("executable"),
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and other users need root"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
]

AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")
NOBODY = ("setpriv", "--reuid=65532", "--regid=65532", "--clear-groups")
NO_PLACE = "no temporary directory that can be written to and run from; set TMPDIR"


def with_temporary(options: str) -> tuple[str, ...]:
    """A prefix: the usual temporary directories are mounted with ``options``."""
    setup = f'for t in /tmp /var/tmp; do mount -t tmpfs -o {options} tmpfs $t; done; exec "$@"'
    return ("unshare", "--mount", "sh", "-c", setup, "sh")


@pytest.fixture
def home() -> Iterator[Path]:
    """A directory outside /tmp, which some tests cover."""
    path = Path(f"/run/clef-agent-smoke-{os.getpid()}")
    path.mkdir(mode=0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def source(home: Path) -> dict[str, str]:
    artifact = home / "artifact.json"
    artifact.write_bytes(packed())
    artifact.chmod(0o644)
    return {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}


@pytest.fixture
def outside_tmp(
    executable: Path, home: Path, is_one_file: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The executable as a copy that stays in sight when /tmp is covered."""
    copy = home / "copied" / executable.name
    if is_one_file:
        copy.parent.mkdir()
        shutil.copy(executable, copy)
    else:
        shutil.copytree(executable.parent, copy.parent, symlinks=True)
    monkeypatch.setenv("CLEF_AGENT_EXECUTABLE", str(copy))


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2][0] != "Z"
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("delay_s", [0.0, 0.02, 0.05, 0.1, 0.2, 2.0])
def test_a_signal_at_any_time_ends_the_one_file_with_0_and_nothing_unpacked_stays(
    delay_s: float, source: dict[str, str], home: Path, is_one_file: bool
) -> None:
    if not is_one_file:
        pytest.skip("the folder unpacks nothing")
    temporary = home / "temporary"
    temporary.mkdir()
    with AgentProcess(home, {**source, "TMPDIR": str(temporary)}) as agent:
        eventually(lambda: list(temporary.glob("_MEI*")), "the start of unpacking")
        time.sleep(delay_s)  # the moment is what is tried
        assert agent.stop() == 0
    assert list(temporary.iterdir()) == []


# case 15
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_as_process_1_a_signal_ends_it_with_0(
    number: signal.Signals, source: dict[str, str], home: Path
) -> None:
    with AgentProcess(home, source, prefix=AS_PID_1) as agent:
        agent.wait_until_ready()
        (first,) = children_of(agent.process.pid)
        os.kill(first, number)
        assert agent.exit_code() == 0


# case 29
def test_no_orphan_goes_on_serving(source: dict[str, str], home: Path, is_one_file: bool) -> None:
    if not is_one_file:
        pytest.skip("the folder is one process")
    with running(home, source) as agent:
        (child,) = children_of(agent.process.pid)
        agent.send(signal.SIGKILL)
        eventually(lambda: not is_running(child), "the end of the orphan")


@pytest.mark.parametrize("arguments", [(), ("exec", "--watch", "restart", "--", "sleep", "600")])
def test_each_of_its_processes_is_closed_to_their_own_user(
    arguments: tuple[str, ...], source: dict[str, str], home: Path, is_one_file: bool
) -> None:
    with AgentProcess(home, source, *arguments, prefix=NOBODY) as agent:
        if arguments:
            eventually(lambda: runs("sleep", agent.process.pid), "the program's start")
        else:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
        ours = [pid for pid in tree_of(agent.process.pid) if is_ours(pid)]
        assert len(ours) == (2 if is_one_file else 1)
        for pid in ours:
            assert open_to(NOBODY, pid) == []


@pytest.mark.usefixtures("outside_tmp")
# case 29
@pytest.mark.parametrize("options", ["ro", "noexec"])
def test_without_a_usable_temporary_directory_the_one_file_says_what_to_do(
    options: str, source: dict[str, str], home: Path, is_one_file: bool
) -> None:
    prefix = with_temporary(options)
    with AgentProcess(home, source, prefix=prefix) as agent:
        if is_one_file:
            assert agent.exit_code() == 1
            assert NO_PLACE in agent.err
            assert len(agent.err_lines) == 1
        else:
            assert agent.wait_until_ready().secrets().json == PAYLOAD
    with AgentProcess(home, {**source, "TMPDIR": str(home)}, prefix=prefix) as agent:
        assert agent.wait_until_ready().secrets().json == PAYLOAD


@pytest.mark.usefixtures("outside_tmp")
def test_a_full_disk_keeps_nothing_that_was_unpacked(
    source: dict[str, str], home: Path, is_one_file: bool
) -> None:
    if not is_one_file:
        pytest.skip("the folder unpacks nothing")
    setup = 'mount -t tmpfs -o size=8m tmpfs /tmp; "$@"; code=$?; ls -A /tmp; exit $code'
    prefix = ("unshare", "--mount", "sh", "-c", setup, "sh")
    with AgentProcess(home, {**source, "TMPDIR": "/tmp"}, prefix=prefix) as agent:
        assert agent.exit_code() == 1
        assert "set TMPDIR to a directory with 64 MB to spare" in agent.err
        assert agent.out == ""


def test_without_an_environment_it_says_what_is_missing(executable: Path) -> None:
    done = subprocess.run([executable], env={}, check=False, capture_output=True, timeout=30)
    assert done.returncode == 1
    assert b"CLEF_AGENT_SOURCE" in done.stderr
