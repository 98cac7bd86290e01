"""The unit: what systemd thinks of it, and a service that runs by it, in all of its sandbox."""

from __future__ import annotations

import json
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import clef_agent
from agent_process import eventually
from clef_agent.clock import boot_id
from clef_agent.config import VARIABLES
from documents import Block, block
from fakes import packed
from machine import Machine, NoMachine, booted
from refresh_fakes import revoked

RELEASE = Path(__file__).parents[2] / "release" / "systemd"
UNIT = RELEASE / "clef-agent.service"
README = (RELEASE / "README.md").read_text("utf-8")
INSTALL = block("release/systemd/README.md", "Installing")
ENABLE = block("release/systemd/README.md", "Installing", 1)
READ = block("release/systemd/README.md", "Reading secrets")
#: What the README proposes to add to a unit.
CHANGES = (
    block("release/systemd/README.md", "Reading secrets", 1),
    block("release/systemd/README.md", "Other credentials"),
    block("release/systemd/README.md", "Other credentials", 1),
    block("release/systemd/README.md", "Closer still"),
)

ARTIFACTS = "/srv"
STORE_URL = "http://127.0.0.1:8080/artifact.json"
#: Port 8080 of 127.0.0.1, as /proc writes it.
_STORE_LISTENS = "0100007F:1F90"


# --- what systemd-analyze says ----------------------------------------------------------------


def systemd_analyze(*arguments: str) -> str:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("systemd-analyze (systemd) is not installed")
    done = subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False, timeout=60
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    return said


def test_the_unit_is_exposed_to_at_most_2_of_10() -> None:
    said = systemd_analyze("security", "--no-pager", "--offline=true", "--threshold=20", str(UNIT))
    exposure = re.search(r"exposure level for clef-agent.service: ([0-9.]+)", said)
    assert exposure is not None, said
    assert float(exposure[1]) <= 2.0


@pytest.mark.parametrize("change", ["", *(change.text for change in CHANGES)])
def test_systemd_finds_nothing_to_complain_of(tmp_path: Path, change: str) -> None:
    executable = tmp_path / "clef-agent"
    executable.write_text("#!/bin/sh\n")
    executable.chmod(0o755)
    # It looks for the program that the unit names, which only an installation has.
    text = UNIT.read_text().replace("/usr/local/bin/clef-agent", str(executable))
    unit = tmp_path / UNIT.name
    unit.write_text(f"{text}\n{change}")
    said = systemd_analyze("verify", "--recursive-errors=no", str(unit))
    assert [line for line in said.splitlines() if "clef-agent" in line] == []


@pytest.mark.parametrize("text", [UNIT.read_text("utf-8"), README], ids=["unit", "readme"])
def test_every_variable_that_is_named_exists(text: str) -> None:
    named = set(re.findall(r"CLEF_AGENT_[A-Z_]+", text))
    assert named
    assert named <= set(VARIABLES)


# --- what it does -----------------------------------------------------------------------------

#: Tests may run with an interpreter below /root or /home, which stay empty but for that.
_TO_RUN_HERE = f"""
[Unit]
DefaultDependencies=no
[Service]
ProtectHome=tmpfs
BindReadOnlyPaths={sys.prefix} {sys.base_prefix} {Path(clef_agent.__file__).parents[1]}
StandardOutput=append:/run/clef-agent.log
StandardError=append:/run/clef-agent.log
RestartSec=100ms
WatchdogSec=1s
"""
_STORE = f"""
[Unit]
DefaultDependencies=no
[Service]
ExecStart={sys.executable} -m http.server 8080 --bind 127.0.0.1 --directory {ARTIFACTS}
"""


def as_root(commands: Block) -> str:
    """The README's ``commands``, for somebody who is root already."""
    return re.sub(r"\bsudo ", "", commands.text).replace(
        "https://artifacts.example.com/api.production.json", STORE_URL
    )


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Machine]:
    """A machine on which the agent was installed as the README says, and runs."""
    try:
        with booted(tmp_path_factory.mktemp("machine")) as machine:
            install(machine)
            yield machine
    except NoMachine as exc:
        pytest.skip(str(exc))


def install(machine: Machine) -> None:
    download = machine.path("/run/download")
    download.mkdir()
    shutil.copy(UNIT, download)
    (download / "clef-agent").write_text(f'#!/bin/sh\nexec {sys.executable} -m clef_agent "$@"\n')
    write(machine, "/etc/systemd/system/clef-agent.service.d/here.conf", _TO_RUN_HERE)
    write(machine, "/etc/systemd/system/store.service", _STORE)
    said = machine.run("sh", "-ec", f"cd /run/download\n{as_root(INSTALL)}")
    recipient = re.search(r"\bage1[0-9a-z]+", said)
    assert recipient is not None, said
    machine.run("mount", "-t", "tmpfs", "tmpfs", "/srv")
    machine.path("/run/recipient").write_text(recipient[0])
    upload(machine, "first")
    machine.run("systemctl", "start", "store")
    eventually(lambda: _STORE_LISTENS in machine.path("/proc/1/net/tcp").read_text(), "the store")
    try:
        machine.run("sh", "-ec", as_root(ENABLE))
    except AssertionError as exc:
        exc.add_note(machine.path("/run/clef-agent.log").read_text())
        raise


def write(machine: Machine, path: str, text: str) -> None:
    target = machine.path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)


def upload(machine: Machine, value: str, *, is_revoked: bool = False) -> None:
    """Puts an artifact with ``value`` into the store, in the place of the one before."""
    recipient = machine.path("/run/recipient").read_text()
    target = machine.path(f"{ARTIFACTS}/artifact.json")
    passing = target.with_suffix(".new")
    artifact = packed({"app": {"DATABASE_URL": value}}, recipient=recipient)
    passing.write_bytes(revoked(artifact) if is_revoked else artifact)
    passing.chmod(0o644)
    # The store tells versions apart by their times, in whole seconds.
    time_s = target.stat().st_mtime + 2 if target.exists() else 1_800_000_000
    os.utime(passing, (time_s, time_s))
    passing.replace(target)


@pytest.fixture
def service(machine: Machine) -> Machine:
    """The machine, with the service up."""
    machine.run("systemctl", "start", "clef-agent")
    return machine


def main_process(machine: Machine) -> int:
    """The service's process, by its number in the machine."""
    return int(machine.shows("clef-agent", "MainPID"))


def of_process(machine: Machine, name: str) -> str:
    return machine.path(f"/proc/{main_process(machine)}/{name}").read_text()


def secret(machine: Machine) -> str:
    """The secret, as the README says that a person reads it."""
    return machine.run("sh", "-ec", as_root(READ)).strip()


def test_whoever_may_read_the_token_reads_secrets(service: Machine) -> None:
    assert secret(service) == "first"
    assert service.shows("clef-agent", "StatusText").startswith("serving revision 18000")


def test_it_runs_without_rights_and_without_secrets_in_its_environment(service: Machine) -> None:
    status = dict(re.findall(r"^(\w+):\s+(.*)$", of_process(service, "status"), re.MULTILINE))
    assert "0" not in status["Uid"].split()
    assert (int(status["CapEff"], 16), int(status["CapBnd"], 16)) == (0, 0)
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    environment = of_process(service, "environ")
    assert "CLEF_AGENT_AGE_KEY_FILE=" in environment
    assert service.path("/etc/clef-agent/token").read_text() not in environment
    assert "AGE-SECRET-KEY" not in environment


def test_the_copy_on_disk_knows_the_boot_that_it_was_made_in(service: Machine) -> None:
    (record,) = service.path("/var/cache/private/clef-agent").glob("*.record.json")
    assert stat.S_IMODE(record.stat().st_mode) == 0o600
    assert json.loads(record.read_text())["lastSuccess"]["bootId"] == boot_id() != ""


def test_a_reload_returns_when_the_new_secrets_are_served(service: Machine) -> None:
    before = main_process(service)
    upload(service, "second")
    service.run("systemctl", "reload", "clef-agent")
    assert secret(service) == "second"
    assert main_process(service) == before


def test_a_process_that_hangs_is_replaced(service: Machine) -> None:
    before = main_process(service)
    service.run("kill", "-STOP", str(before))
    eventually(
        lambda: (
            service.shows("clef-agent", "ActiveState") == "active"
            and main_process(service) not in (before, 0)
        ),
        "a process in the place of the one that hung",
    )
    assert secret(service)


def test_a_start_in_vain_says_why_and_is_tried_again_until_it_succeeds(service: Machine) -> None:
    service.run("systemctl", "stop", "clef-agent")
    upload(service, "third", is_revoked=True)
    service.run("systemctl", "start", "--no-block", "clef-agent")
    eventually(lambda: int(service.shows("clef-agent", "NRestarts")) >= 2, "two more attempts")
    eventually(lambda: "was revoked" in service.shows("clef-agent", "StatusText"), "the reason")
    upload(service, "third")
    eventually(lambda: service.shows("clef-agent", "ActiveState") == "active", "a start")
    assert secret(service) == "third"


def last_sign_us(machine: Machine) -> int:
    return int(machine.shows("clef-agent", "WatchdogTimestampMonotonic"))


def test_one_that_is_well_is_left_alone(service: Machine) -> None:
    before = main_process(service)
    first_us = last_sign_us(service)
    eventually(lambda: last_sign_us(service) > first_us + 2.5e6, "signs of life for 2.5 s")
    assert main_process(service) == before


def test_a_stop_is_a_clean_end(service: Machine) -> None:
    service.run("systemctl", "stop", "clef-agent")
    assert service.shows("clef-agent", "Result") == "success"
    assert service.shows("clef-agent", "ExecMainStatus") == "0"
    assert service.path("/run/clef-agent.log").read_text().endswith("[clef-agent] stopping\n")
