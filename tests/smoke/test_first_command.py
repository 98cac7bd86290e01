"""The README's first command, in a copy of the repository: from nothing to a served sample."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from documents import ROOT, block
from terminal import Terminal

#: A package index is asked, and some thirty packages are unpacked.
PATIENCE_S = 600
#: What a clone does not have.
_MADE_HERE = shutil.ignore_patterns(
    ".git", ".venv", ".nox", ".cache", ".*_cache", "dist", "__pycache__", "*.egg-info"
)


def test_it_installs_and_serves(tmp_path: Path, is_one_file: bool) -> None:
    if not is_one_file:
        pytest.skip("once is enough: it has nothing to do with the executable")
    # pip's own settings, proxy and index, are those of this machine.
    terminal = Terminal(tmp_path / "terminal", env={**os.environ})
    terminal.work.rmdir()
    shutil.copytree(ROOT, terminal.work, ignore=_MADE_HERE)
    shown = block("README.md", "clef-agent")
    with terminal.stays_in(shown.text) as agent:
        agent.wait_for("Ctrl+C ends it", patience_s=PATIENCE_S)
        assert (terminal.work / ".venv/bin/clef-agent").exists()
        assert "app" in agent.request("/v1/secrets", token=terminal.token).json
