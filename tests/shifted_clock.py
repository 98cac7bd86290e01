"""Time that passes for another process and for nobody else, by libfaketime, and its freezing.

Source: https://github.com/wolfcw/libfaketime (Debian: libfaketime)
"""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from agent_process import AgentProcess, eventually, replace_file

_LIBRARY = "faketime/libfaketimeMT.so.1"
_PLACES = (*Path("/usr/lib").glob(f"*/{_LIBRARY}"), Path("/usr/lib") / _LIBRARY)


class ShiftedClock:
    """The clocks of whoever has ``environment``.

    ``moves_monotonic`` says whether the boot clock and the monotonic one go along with the wall
    clock, as they do where a process is stopped, or not, as where a machine is.
    """

    def __init__(self, directory: Path, *, moves_monotonic: bool) -> None:
        library = next((place for place in _PLACES if place.exists()), None)
        if library is None:
            pytest.skip("the clock of another process is shifted by libfaketime")
        self._file = directory / "clock"
        self._file.write_text("+0\n")
        self.ahead_s = 0.0
        self.environment = {
            "LD_PRELOAD": str(library),
            "FAKETIME_TIMESTAMP_FILE": str(self._file),
            "FAKETIME_NO_CACHE": "1",
            # Or it takes glibc for one that waits for a monotonic time by the wall clock: each wait
            # for the interpreter's lock would be over at once, and a busy machine start no agent.
            "FAKETIME_FORCE_MONOTONIC_FIX": "0",
            **({} if moves_monotonic else {"FAKETIME_DONT_FAKE_MONOTONIC": "1"}),
        }

    def advance(self, seconds: float) -> None:
        """So much time has passed; with fewer than no seconds, the clock was set back."""
        self.ahead_s += seconds
        replace_file(self._file, f"{self.ahead_s:+g}\n".encode())

    def pass_in_a_freeze(self, agent: AgentProcess, seconds: float) -> None:
        """Freezes ``agent``, lets the time pass, and thaws it."""
        agent.send(signal.SIGSTOP)
        stat = Path(f"/proc/{agent.process.pid}/stat")
        eventually(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "a freeze")
        self.advance(seconds)
        agent.send(signal.SIGCONT)
