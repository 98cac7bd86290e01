"""The watchdog of systemd, which knows the process that it started, and that one only."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent_process import AgentProcess
from fakes import AGE_KEY, packed
from notify_listener import listening

pytestmark = pytest.mark.usefixtures("executable")

#: The shell becomes the executable, and its number stays: that is the one systemd would know.
AS_SYSTEMD = ("sh", "-c", 'export WATCHDOG_PID=$$; exec "$@"', "sh")


def test_the_process_that_was_started_is_the_one_that_is_watched(tmp_path: Path) -> None:
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    with listening(tmp_path / "notify") as manager:
        env = {
            "NOTIFY_SOCKET": manager.address,
            "WATCHDOG_USEC": "1000000",
            "CLEF_AGENT_SOURCE": str(artifact),
            "CLEF_AGENT_AGE_KEY": AGE_KEY,
        }
        with AgentProcess(tmp_path, env, prefix=AS_SYSTEMD) as agent:
            manager.wait_for("READY")
            manager.wait_for("WATCHDOG", times=2)
            assert agent.stop() == 0
            manager.wait_for("STOPPING")
