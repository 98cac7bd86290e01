"""The README cannot drift: its tables are held against the code."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import cast

import pytest
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
from clef_agent.telemetry import events
from clef_agent.telemetry.metrics import Gauges, Metrics
from clef_agent.telemetry.records import Origin, record_of
from server_fakes import every_route

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")
TELEMETRY = (ROOT / "docs" / "telemetry.md").read_text("utf-8")
IN_LAMBDA = (ROOT / "docs" / "lambda.md").read_text("utf-8")


def test_the_variable_table_has_every_variable_in_order() -> None:
    rows = re.findall(r"^\| `(CLEF_AGENT_\w+)` \|", README, re.MULTILINE)
    assert tuple(rows) == VARIABLES


def test_the_default_port_is_the_one_that_is_served() -> None:
    assert f"| `CLEF_AGENT_PORT` | {DEFAULT_PORT} |" in README


def test_the_api_table_has_every_route_and_no_other() -> None:
    rows = set(re.findall(r"^\| `(GET|POST) (/v1/[^`]+)` \|", README, re.MULTILINE))
    served = {(route.method, route.path) for route in every_route()}
    assert rows == served


EVENTS: tuple[events.Event, ...] = (
    events.AgentStarted("1.2.3"),
    events.AgentStopped("signal", 1.0),
    events.ArtifactRefreshed(
        identity="api",
        environment="production",
        revision="r1",
        key_count=1,
        kms_envelope=False,
        from_disk=False,
        fetch_s=0.1,
        decrypt_s=0.1,
        expires_at=1.0,
    ),
    events.ArtifactRevoked("2027-01-15"),
    events.ArtifactExpired("2027-01-15"),
    events.FetchFailed("no route", "Check it.", disk_copy_available=False),
    events.CacheExpired(300, disk_copy_purged=False),
    events.ArtifactInvalid("decrypt", "no key opens it", "Check the key.", "ab"),
)


def test_the_event_table_is_what_is_sent() -> None:
    rows = re.findall(r"^\| `clef\.([a-z.]+)` \| ([A-Z]+) \| (.+) \|$", TELEMETRY, re.MULTILINE)
    documented = [(name, severity, re.findall(r"`(\w+)`", cells)) for name, severity, cells in rows]
    records = [record for event in EVENTS if (record := record_of(event)) is not None]
    assert documented == [
        (record.name, record.severity, list(record.attributes)) for record in records
    ]


def test_the_resource_is_named() -> None:
    for name in Origin("agent-7", "file").attributes():
        assert f"`{name}`" in TELEMETRY


def test_the_metrics_table_has_every_metric_in_order_and_every_label() -> None:
    metrics = Metrics()
    metrics.requests["/v1/keys", 200] += 1
    metrics(EVENTS[2])
    text = metrics.render(Gauges(mode="cached", ready=True, last_success_age_s=1.0)).decode()
    served = re.findall(r"^# TYPE (clef_agent_\w+) \w+$", text, re.MULTILINE)
    rows = re.findall(r"^\| `(clef_agent_\w+)` \| (.+) \|$", TELEMETRY, re.MULTILINE)
    assert [name for name, _ in rows] == served
    for name, words in rows:
        labelled = re.findall(rf'^{name}{{(\w+)="(\w+)"', text, re.MULTILINE)
        if name in ("clef_agent_refreshes_total", "clef_agent_telemetry_dropped_total"):
            assert labelled
            assert all(f"`{word}`" in words for pair in labelled for word in pair)


def test_every_readiness_reason_is_named() -> None:
    for why_not in (NotLoaded, CacheExpired, ArtifactExpired, ArtifactRevoked):
        assert f"`{why_not.reason}`" in README


def test_the_bounds_in_lambda_are_those_that_are_kept() -> None:
    section = IN_LAMBDA
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


def test_every_test_that_the_threat_model_names_exists() -> None:
    text = (ROOT / "SECURITY.md").read_text()
    named = set(re.findall(r"`((?:unit|integration|smoke)/[\w/]+\.py)`", text))
    assert len(named) > 10
    assert [name for name in named if not (ROOT / "tests" / name).is_file()] == []


PAGES = [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "release").rglob("*.md"),
         ROOT / "build" / "README.md", ROOT / ".github" / "CONTRIBUTING.md"]  # fmt: skip


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_to_a_file_leads_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [target for target in targets if not (page.parent / target).exists()] == []
