"""What becomes of a run: its exit code, and the words for a failure."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from pathlib import Path

import pytest

from clef_agent.cli.run import _file_name, _supervisor_in, run_daemon
from clef_agent.errors import PortInUse
from clef_agent.lifecycle.agent import Agent
from notify_listener import listening
from refresh_fakes import in_virtual_time

_LEAVES_WITH_A_HUNG_THREAD = """
import sys, threading
from clef_agent.cli.run import leave
threading.Thread(target=threading.Event().wait).start()
print("unflushed", end="")
sys.stderr.close()
leave(3)
"""


def test_leaving_waits_for_no_thread_and_loses_no_line() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _LEAVES_WITH_A_HUNG_THREAD],
        stdout=subprocess.PIPE,
        env={"PATH": os.environ["PATH"]},
        timeout=30,
        check=False,
    )
    assert (done.returncode, done.stdout) == (3, b"unflushed")


def test_leaving_survives_a_reader_that_has_gone() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LEAVES_WITH_A_HUNG_THREAD],
            stdout=write_end,
            env={"PATH": os.environ["PATH"]},
            timeout=30,
            check=False,
        )
    finally:
        os.close(write_end)
    assert done.returncode == 3


def test_what_cannot_be_assembled_is_raised_to_the_caller() -> None:
    def assemble() -> Agent:
        raise PortInUse("port 7779 on 127.0.0.1 is in use by another process")

    with pytest.raises(PortInUse):
        run_daemon(assemble)


@pytest.mark.parametrize(("is_frozen", "signs"), [(False, 0), (True, 1)])
def test_the_outer_process_of_a_one_file_executable_may_be_the_watched_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_frozen: bool, signs: int
) -> None:
    monkeypatch.setattr(sys, "frozen", is_frozen, raising=False)

    @in_virtual_time
    async def watch(address: str) -> None:
        environ = {"NOTIFY_SOCKET": address, "WATCHDOG_USEC": "10000000"}
        supervisor = _supervisor_in({**environ, "WATCHDOG_PID": str(os.getppid())})
        watching = asyncio.create_task(supervisor.watch(lambda: True))
        await asyncio.sleep(6)
        watching.cancel()

    with listening(tmp_path / "notify") as manager:
        watch(manager.address)
        assert len(manager.of("WATCHDOG")) == signs


@pytest.mark.parametrize(
    ("started", "name"),
    [
        ("/opt/extensions/clef-agent", "clef-agent"),
        ("/opt/extensions/10-secrets", "10-secrets"),
        ("clef-agent", "clef-agent"),
        ("/usr/lib/python3/site-packages/clef_agent/__main__.py", "clef-agent"),
    ],
)
def test_an_extension_goes_by_the_file_that_was_started(started: str, name: str) -> None:
    assert _file_name(started) == name
