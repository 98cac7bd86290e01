"""What the tests of a built executable share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def executable() -> Path:
    name = os.environ.get("CLEF_AGENT_EXECUTABLE")
    if name is None:
        pytest.skip("CLEF_AGENT_EXECUTABLE names no executable: `nox -s build smoke`")
    return Path(name)


@pytest.fixture(scope="session")
def is_one_file(executable: Path) -> bool:
    return not (executable.parent / "lib").is_dir()
