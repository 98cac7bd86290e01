"""Processes under measurement: the installed agent and what it is compared with."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

TOKEN = "the-token-of-the-bench"
PROGRAMS = Path(__file__).parent / "programs"

#: How long a process may take to answer or to end, in seconds.
PATIENCE_S = 30.0
_POLL_S = 0.001
_READY = b"GET /v1/ready HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


class MeasurementFailed(RuntimeError):
    """A figure could not be had; the text says why, to a person."""


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def agent_command() -> list[str]:
    """The ``clef-agent`` script, as it was installed beside this interpreter."""
    return [str(Path(sysconfig.get_path("scripts")) / "clef-agent")]


def program_command(name: str, *arguments: str) -> list[str]:
    """One of our programs, by the same interpreter that runs the agent."""
    return [sys.executable, str(PROGRAMS / f"{name}.py"), *arguments]


def agent_env(port: int, artifact: Path, key_file: Path, **more: str) -> dict[str, str]:
    """All that an agent gets as its environment to serve ``artifact`` on ``port``."""
    return {
        "PATH": os.environ["PATH"],
        "CLEF_AGENT_PORT": str(port),
        "CLEF_AGENT_TOKEN": TOKEN,
        "CLEF_AGENT_SOURCE": str(artifact),
        "CLEF_AGENT_AGE_KEY_FILE": str(key_file),
        **more,
    }


@contextlib.contextmanager
def running(
    command: Sequence[str], env: Mapping[str, str] | None = None, **streams: Any
) -> Iterator[subprocess.Popen[bytes]]:
    """The process of ``command``, ended with all its children when the block is left.

    Its standard output is dropped unless ``streams`` says otherwise; its errors are shown.
    """
    streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.DEVNULL, **streams}
    process = subprocess.Popen(command, env=env, start_new_session=True, **streams)
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def wait_until_ready(process: subprocess.Popen[bytes], port: int) -> None:
    """Returns at the first 200 for ``/v1/ready``, to a millisecond.

    Raises:
        MeasurementFailed: the process ended, or took too long.
    """
    deadline = time.monotonic() + PATIENCE_S
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port)) as client:
            client.settimeout(PATIENCE_S)
            client.sendall(_READY)
            if client.recv(64).startswith(b"HTTP/1.1 200 "):
                return
        if process.poll() is not None:
            raise MeasurementFailed(f"it ended with {process.returncode} before it was ready")
        time.sleep(_POLL_S)
    raise MeasurementFailed(f"it was not ready within {PATIENCE_S:g} s")


def cpu_s(pid: int) -> float:
    """Seconds of CPU that a process has used, its ended threads included, to the nanosecond.

    ``/proc/PID/stat`` would do, but it counts in hundredths: too coarse for an idle process.

    Source: clock_getcpuclockid(3)
    """
    clock = ctypes.c_int()
    failure = ctypes.CDLL(None).clock_getcpuclockid(pid, ctypes.byref(clock))
    if failure:
        raise MeasurementFailed(f"its CPU clock cannot be read: {os.strerror(failure)}")
    return time.clock_gettime(clock.value)


def memory_kib(pid: int) -> dict[str, int]:
    """``Pss``, ``Rss``, ``Private_Dirty`` and so on, in KiB.

    Raises:
        PermissionError: the process is not dumpable, and we are not root.

    Source: proc_pid_smaps(5), smaps_rollup
    """
    memory: dict[str, int] = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, _, value = line.partition(":")
        memory[name] = int(value.split()[0])
    return memory


def pss_mb(pid: int) -> float:
    """The proportional set size of one process, in millions of bytes."""
    return memory_kib(pid)["Pss"] * 1024 / 1e6
