"""Datagrams to a real socket, whose reader may be slow, or gone."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from clef_agent.lifecycle.notify_socket import NotifySocket, address_of
from notify_listener import NotifyListener, listening
from refresh_fakes import in_virtual_time


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[NotifyListener]:
    with listening(tmp_path / "notify") as listener:
        yield listener


def fill(manager: NotifyListener) -> int:
    """Sends mentions until the manager has no room; returns how many it took."""
    sender = NotifySocket(manager.address)
    taken = 0
    while sender._is_settled("FILL=1"):
        taken += 1
    return taken


def remove(address: str) -> None:
    Path(address).unlink()


def told(manager: NotifyListener) -> list[dict[str, str]]:
    return [message for message in manager.read() if "FILL" not in message]


def test_a_path_and_an_abstract_name_are_addresses() -> None:
    assert address_of("/run/systemd/notify") == "/run/systemd/notify"
    assert address_of("@a/name") == "\0a/name"


@pytest.mark.parametrize(
    "name", ["vsock:2:1234", "vsock-stream:2:1234", "run/notify", "", "@", "/", "/" + "x" * 107]
)
def test_what_names_no_unix_socket_is_no_address(name: str) -> None:
    assert address_of(name) is None


@in_virtual_time
async def test_what_is_told_and_mentioned_arrives_in_order(manager: NotifyListener) -> None:
    sender = NotifySocket(manager.address)
    sender.tell("READY=1")
    sender.mention("WATCHDOG=1")
    sender.tell("STOPPING=1")
    assert manager.read() == [{"READY": "1"}, {"WATCHDOG": "1"}, {"STOPPING": "1"}]


@in_virtual_time
async def test_an_abstract_socket_is_reached() -> None:
    with listening(f"@clef-agent-tests-{os.getpid()}") as manager:
        address = address_of(manager.address)
        assert address is not None
        NotifySocket(address).tell("READY=1")
        assert manager.read() == [{"READY": "1"}]


@in_virtual_time
async def test_a_change_of_state_is_sent_soon_after_there_is_room(manager: NotifyListener) -> None:
    assert fill(manager) > 0
    sender = NotifySocket(manager.address)
    sender.tell("READY=1")
    assert told(manager) == []  # and with this there is room
    await asyncio.sleep(0.1)
    assert told(manager) == [{"READY": "1"}]


@in_virtual_time
async def test_a_socket_that_nobody_reads_is_tried_ever_more_seldom(
    manager: NotifyListener,
) -> None:
    fill(manager)
    sender = NotifySocket(manager.address)
    sender.tell("READY=1")
    await asyncio.sleep(60)
    assert told(manager) == []
    await asyncio.sleep(0.5)
    assert told(manager) == []
    await asyncio.sleep(5)
    assert told(manager) == [{"READY": "1"}]


@in_virtual_time
async def test_a_mention_that_finds_no_room_is_not_made_up_for(manager: NotifyListener) -> None:
    fill(manager)
    sender = NotifySocket(manager.address)
    sender.mention("WATCHDOG=1")
    sender.tell("READY=1")
    assert told(manager) == []
    sender.mention("WATCHDOG=2")  # it would overtake
    await asyncio.sleep(0.1)
    assert told(manager) == [{"READY": "1"}]


@in_virtual_time
async def test_of_changes_that_find_no_room_the_last_two_are_kept(manager: NotifyListener) -> None:
    fill(manager)
    sender = NotifySocket(manager.address)
    for message in ("READY=1", "RELOADING=1", "RELOADING=2", "READY=2"):
        sender.tell(message)
    manager.read()
    await asyncio.sleep(0.1)
    assert told(manager) == [{"RELOADING": "2"}, {"READY": "2"}]


@in_virtual_time
async def test_a_socket_that_is_gone_is_warned_of_once(
    manager: NotifyListener, caplog: pytest.LogCaptureFixture
) -> None:
    sender = NotifySocket(manager.address)
    manager.close()
    sender.tell("READY=1")  # nobody listens
    remove(manager.address)
    sender.tell("STOPPING=1")  # nothing is there
    (warning,) = [line for line in caplog.records if line.levelno >= logging.WARNING]
    assert "Connection refused" in warning.getMessage()


@in_virtual_time
async def test_a_manager_that_bound_its_socket_anew_is_found_again(
    manager: NotifyListener,
) -> None:
    sender = NotifySocket(manager.address)
    sender.tell("READY=1")
    manager.close()
    remove(manager.address)
    with listening(manager.address) as successor:
        sender.tell("STOPPING=1")
        assert successor.read() == [{"STOPPING": "1"}]
