"""The files that deploy the agent, and what they may name: commands, variables, one image."""

from __future__ import annotations

import importlib.util
import tomllib
from pathlib import Path
from types import ModuleType
from typing import cast

from typer.main import get_command

from clef_agent import __version__
from clef_agent.cli.app import app
from clef_agent.config import VARIABLES

ROOT = Path(__file__).parents[1]
RELEASE = ROOT / "release"
PROGRAM = "/opt/clef-agent/clef-agent"
_PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: The repository on GitHub, OWNER/NAME.
REPOSITORY: str = _PROJECT["urls"]["Source"].removeprefix("https://github.com/")
IMAGE = f"ghcr.io/{REPOSITORY}:{__version__}"


def commands() -> set[str]:
    """The names of the agent's commands."""
    return set(cast("dict[str, object]", getattr(get_command(app), "commands", {})))


def assert_runs(arguments: list[str]) -> None:
    """Fails if the command line would not take ``arguments``, a command and its options."""
    group = get_command(app)
    command = cast("dict[str, object]", getattr(group, "commands", {}))[arguments[0]]
    command.make_context(arguments[0], list(arguments[1:]))  # type: ignore[attr-defined]  # Typer's commands are click's


def assert_are_variables(names: list[str]) -> None:
    """Fails if one of ``names`` is set in vain: no variable of the agent, its client, or AWS."""
    assert names
    assert set(names) <= {*VARIABLES, "CLEF_ENDPOINT", "AWS_REGION"}


def script(path: str) -> ModuleType:
    """The script at ``path`` in release/, as a module."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, RELEASE / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
