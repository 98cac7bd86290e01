"""What holds for every test."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from fakes import packed

# Time says nothing here: machines of continuous integration stall, and the first example of a
# fresh checkout pays for building Unicode tables.
settings.register_profile("house", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("house")

# A shell starts what it puts in the background with these ignored, and processes pass that on.
for _number, _handler in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGQUIT, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _handler)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """A file that an agent can take for its source, with the key and the payload of ``fakes``."""
    path = tmp_path / "artifact.json"
    path.write_bytes(packed())
    return path
