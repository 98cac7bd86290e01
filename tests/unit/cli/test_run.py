"""What becomes of a run: its exit code, and the words for a failure."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from clef_agent.cli.run import run_daemon
from clef_agent.errors import PortInUse
from clef_agent.lifecycle.agent import Agent

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
