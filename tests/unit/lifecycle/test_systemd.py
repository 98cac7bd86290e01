"""What systemd is told, by a real socket, in a time that jumps."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path

import pytest

from clef_agent.errors import CacheExpired, NotLoaded, SourceUnreachable
from clef_agent.lifecycle.notify_socket import NotifySocket
from clef_agent.lifecycle.supervisor import UNSUPERVISED, Supervisor
from clef_agent.lifecycle.systemd import Systemd, supervisor_in
from clef_agent.provider import Status
from fakes import NOW
from notify_listener import Message, NotifyListener, listening
from refresh_fakes import in_virtual_time

PID = 4711
STATUS = Status("cached", "r-1", round(NOW * 1000), None)
SERVING = "serving revision r-1, last refreshed 2027-01-15 08:00 UTC"


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifyListener]:
    with listening(tmp_path / "notify") as listener:
        yield listener


def systemd(manager: NotifyListener, *, watchdog_s: float | None = None) -> Systemd:
    socket = NotifySocket(manager.address)
    return Systemd(socket, watchdog_s=watchdog_s, monotonic_us=lambda: 123_456_789)


def ready(manager: NotifyListener) -> Systemd:
    """One that has told of the first secrets, which the manager has read."""
    supervisor = systemd(manager)
    supervisor.serving(STATUS)
    manager.read().clear()
    return supervisor


# --- states -----------------------------------------------------------------------------------


@in_virtual_time
async def test_the_first_secrets_make_it_ready(manager: NotifyListener) -> None:
    systemd(manager).serving(STATUS)
    assert manager.read() == [{"READY": "1", "STATUS": SERVING}]


@in_virtual_time
async def test_a_refresh_after_that_changes_the_status_only(manager: NotifyListener) -> None:
    supervisor = ready(manager)
    supervisor.serving(STATUS)
    assert manager.read() == []
    supervisor.serving(Status("cached", "r-2", round(NOW * 1000), None))
    assert manager.read() == [{"STATUS": SERVING.replace("r-1", "r-2")}]


@in_virtual_time
async def test_a_look_each_second_is_a_message_each_minute(manager: NotifyListener) -> None:
    supervisor = ready(manager)
    for second in range(3600):
        supervisor.serving(Status("cached", "r-1", round((NOW + second) * 1000), None))
        manager.read()
    assert len(manager.read()) == 59


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (Status("cached", None, None, NotLoaded), "serving nothing (not_loaded)"),
        (
            Status("cached", None, round(NOW * 1000), CacheExpired),
            "serving nothing (cache_expired), last refreshed 2027-01-15 08:00 UTC",
        ),
    ],
)
def test_the_status_says_why_nothing_is_served(
    manager: NotifyListener, status: Status, words: str
) -> None:
    ready(manager).serving(status)
    assert manager.read() == [{"STATUS": words}]


@in_virtual_time
async def test_a_reload_ends_when_the_refresh_does(manager: NotifyListener) -> None:
    supervisor = ready(manager)
    supervisor.reloading()
    (reloading,) = manager.read()
    assert reloading.pop("STATUS") == "reading keys and token anew, and refreshing"
    assert reloading == {"RELOADING": "1", "MONOTONIC_USEC": "123456789"}
    supervisor.serving(STATUS)
    assert manager.read()[1:] == [{"READY": "1", "STATUS": SERVING}]


@in_virtual_time
async def test_each_reload_is_told_of_and_the_last_refresh_ends_them(
    manager: NotifyListener,
) -> None:
    supervisor = ready(manager)
    for _ in range(3):
        supervisor.reloading()
    supervisor.serving(STATUS)
    supervisor.serving(STATUS)
    assert [*map(state, manager.read())] == ["RELOADING"] * 3 + ["READY"]


@in_virtual_time
async def test_before_it_is_ready_a_reload_is_part_of_the_start(manager: NotifyListener) -> None:
    supervisor = systemd(manager)
    supervisor.reloading()
    assert manager.read() == []
    supervisor.serving(STATUS)
    assert [*map(state, manager.read())] == ["READY"]


@in_virtual_time
async def test_after_the_stop_nothing_is_said(manager: NotifyListener) -> None:
    supervisor = ready(manager)
    supervisor.reloading()
    supervisor.stopping()
    supervisor.reloading()
    supervisor.serving(Status("cached", "r-2", None, None))
    supervisor.stopping()
    assert manager.read()[1:] == [{"STOPPING": "1", "STATUS": "stopping"}]


@in_virtual_time
async def test_a_start_in_vain_says_why(manager: NotifyListener) -> None:
    supervisor = systemd(manager)
    supervisor.retrying(2.0)
    supervisor.stopping(SourceUnreachable("no route to store.example"))
    status = "the first load failed; trying again in 2 s"
    assert manager.read() == [
        {"EXTEND_TIMEOUT_USEC": "62000000", "STATUS": status},
        {"STOPPING": "1", "STATUS": "the first load failed: no route to store.example"},
    ]


@pytest.mark.parametrize("revision", ["r\nSTOPPING=1", "r\x00\x1b[2J", "é\ud800\u2028", "r" * 5000])
def test_a_revision_cannot_add_assignments_of_its_own(
    manager: NotifyListener, revision: str
) -> None:
    ready(manager).serving(Status("cached", revision, None, None))
    (message,) = manager.read()
    assert message.keys() == {"STATUS"}
    assert message["STATUS"].isprintable()
    assert len(message["STATUS"]) < 600


def state(message: Message) -> str:
    return next(iter(message))


# --- the watchdog -----------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def watching(supervisor: Supervisor, healthy: list[bool]) -> AsyncIterator[None]:
    task = asyncio.create_task(supervisor.watch(lambda: healthy[-1]))
    try:
        yield
    finally:
        task.cancel()


@in_virtual_time
async def test_a_sign_of_life_comes_twice_within_the_watchdogs_time(
    manager: NotifyListener,
) -> None:
    async with watching(systemd(manager, watchdog_s=30), [True]):
        await asyncio.sleep(1)
        for minutes in range(1, 60):
            await asyncio.sleep(60)
            assert len(manager.of("WATCHDOG")) == 4 * minutes


@in_virtual_time
async def test_no_sign_of_life_comes_while_a_socket_is_dead(
    manager: NotifyListener, caplog: pytest.LogCaptureFixture
) -> None:
    healthy = [True]
    async with watching(systemd(manager, watchdog_s=30), healthy):
        await asyncio.sleep(16)
        healthy.append(False)
        await asyncio.sleep(600)
        assert len(manager.of("WATCHDOG")) == 1
        healthy.append(True)
        await asyncio.sleep(16)
        assert len(manager.of("WATCHDOG")) == 2
    (error,) = [line for line in caplog.records if line.levelno >= logging.ERROR]
    assert "no connections" in error.getMessage()


def test_no_sign_of_life_comes_while_the_loop_hangs(manager: NotifyListener) -> None:
    async def hang() -> None:
        async with watching(systemd(manager, watchdog_s=0.1), [True]):
            await asyncio.sleep(0.12)
            known = len(manager.of("WATCHDOG"))
            time.sleep(0.5)  # noqa: ASYNC251  # this is what a hung loop is
            assert len(manager.of("WATCHDOG")) == known > 0

    asyncio.run(hang())


@in_virtual_time
async def test_without_a_watchdog_no_sign_of_life_is_given(manager: NotifyListener) -> None:
    async with watching(systemd(manager), [True]):
        await asyncio.sleep(3600)
    assert manager.read() == []


# --- the environment --------------------------------------------------------------------------


def found_in(environ: Mapping[str, str]) -> Supervisor:
    return supervisor_in(dict(environ), pids=[PID], monotonic_us=lambda: 1)


def signs_in_a_second(manager: NotifyListener, variables: Mapping[str, str]) -> int:
    @in_virtual_time
    async def watch() -> None:
        environ = {"NOTIFY_SOCKET": manager.address, **variables}
        async with watching(found_in(environ), [True]):
            await asyncio.sleep(1.01)

    watch()
    return len(manager.of("WATCHDOG"))


def test_without_a_socket_nobody_is_told() -> None:
    assert found_in({}) is UNSUPERVISED
    assert found_in({"NOTIFY_SOCKET": "", "WATCHDOG_USEC": "1000000"}) is UNSUPERVISED


def test_an_unsupported_socket_is_warned_of_and_left_alone(
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert found_in({"NOTIFY_SOCKET": "vsock:2:9999"}) is UNSUPERVISED
    assert "NOTIFY_SOCKET is ignored" in caplog.text


def test_the_variables_leave_the_environment(manager: NotifyListener) -> None:
    environ = {"NOTIFY_SOCKET": manager.address, "WATCHDOG_USEC": "1", "WATCHDOG_PID": "1"}
    environ["PATH"] = "/bin"
    assert isinstance(supervisor_in(environ, pids=[PID], monotonic_us=lambda: 1), Systemd)
    assert environ == {"PATH": "/bin"}


@pytest.mark.parametrize("pid", [{}, {"WATCHDOG_PID": str(PID)}])
def test_the_watchdogs_time_is_in_microseconds(
    manager: NotifyListener, pid: dict[str, str]
) -> None:
    assert signs_in_a_second(manager, {"WATCHDOG_USEC": "500000", **pid}) == 4


def test_a_watchdog_of_another_process_is_left_alone(manager: NotifyListener) -> None:
    variables = {"WATCHDOG_USEC": "500000", "WATCHDOG_PID": str(PID + 1)}
    assert signs_in_a_second(manager, variables) == 0


@pytest.mark.parametrize("usec", ["soon", "-1", "1e6", "", "0", "9" * 5000, "\u0661"])
def test_a_watchdog_without_a_sound_time_is_none(manager: NotifyListener, usec: str) -> None:
    assert signs_in_a_second(manager, {"WATCHDOG_USEC": usec}) == 0


def test_a_watchdog_that_is_too_short_does_not_keep_the_process_busy(
    manager: NotifyListener,
) -> None:
    assert signs_in_a_second(manager, {"WATCHDOG_USEC": "1"}) <= 101
