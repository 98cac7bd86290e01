"""The README cannot drift: its tables are held against the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import TYPE_CHECKING, cast

import pytest
from starlette.routing import Route
from typer.main import get_command

from clef_agent import __version__
from clef_agent.cli.app import app as command_line
from clef_agent.config import DEFAULT_PORT, VARIABLES
from clef_agent.errors import (
    ArtifactExpired,
    ArtifactRevoked,
    CacheExpired,
    ConfigInvalid,
    NotLoaded,
    PortInUse,
)
from clef_agent.lifecycle import lambda_extension
from clef_agent.server.app import create_routes
from clef_agent.server.secrets_endpoint import SecretsEndpoint
from server_fakes import FakeProvider

if TYPE_CHECKING:
    from starlette.applications import Starlette

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def test_the_variable_table_has_every_variable_in_order() -> None:
    rows = re.findall(r"^\| `(CLEF_AGENT_\w+)` \|", README, re.MULTILINE)
    assert tuple(rows) == VARIABLES


def test_the_default_port_is_the_one_that_is_served() -> None:
    assert f"| `CLEF_AGENT_PORT` | {DEFAULT_PORT} |" in README


def test_the_api_table_has_every_route_and_no_other() -> None:
    rows = set(re.findall(r"^\| `(GET|POST) (/v1/[^`]+)` \|", README, re.MULTILINE))
    provider = FakeProvider()
    app = create_routes(provider, SecretsEndpoint(provider), lambda: b"")
    routes = [route for route in cast("Starlette", app).routes if isinstance(route, Route)]
    served = {
        (method, route.path)
        for route in routes
        for method in route.methods or ()
        if method != "HEAD"
    }
    assert rows == served


def test_every_readiness_reason_is_named() -> None:
    for why_not in (NotLoaded, CacheExpired, ArtifactExpired, ArtifactRevoked):
        assert f"`{why_not.reason}`" in README


def test_the_bounds_in_lambda_are_those_that_are_kept() -> None:
    section = README[README.index("## AWS Lambda") : README.index("## Telemetry")]
    assert f"loads within {lambda_extension.LOAD_S:g} s" in section
    assert f"for {lambda_extension.REFRESH_S:g} s at most" in section
    assert f"for {lambda_extension.FLUSH_S:g} s to send telemetry" in section
    assert f"until {lambda_extension.REQUEST_S:g} s after it began" in section
    assert lambda_extension.LEAVE_S < 2
    for error in (ConfigInvalid, PortInUse):
        assert f"`Extension.{error.__name__}`" in section


def commands() -> list[str]:
    group = get_command(command_line)
    return sorted(cast("dict[str, object]", getattr(group, "commands", {})))


@pytest.mark.parametrize("name", commands())
def test_every_command_is_shown(name: str) -> None:
    assert re.search(rf"clef-agent {name}\b", README), name


def test_every_command_in_the_readme_exists() -> None:
    shown = set(re.findall(r"\bclef-agent ([a-z]+)\b(?! at| is)", README))
    assert shown <= set(commands()) | {"dev"}


def test_every_option_in_the_readme_exists() -> None:
    group = get_command(command_line)
    known = {
        option
        for command in getattr(group, "commands", {}).values()
        for parameter in command.params
        for option in parameter.opts
    }
    blocks = "\n".join(
        re.findall(r"(?:^ *|`)clef-agent [a-z]+ [^`\n]*(?:\\\n[^\n]*)*", README, re.MULTILINE)
    )
    assert set(re.findall(r"(?<=\s)--[a-z-]+", blocks)) <= known


def test_the_version_stands_in_one_place() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    assert "version" not in project
    assert "version" in project["dynamic"]
    assert re.fullmatch(r"\d+\.\d+\.\d+", __version__)
