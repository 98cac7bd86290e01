"""The calls of the Extensions API, against one that refuses what the real one refuses."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from clef_agent.errors import ExtensionsApiFailed, RegistrationRefused
from clef_agent.lifecycle.extensions_api import (
    ExtensionsApi,
    Invoke,
    Shutdown,
    Unknown,
    parse_event,
)
from extensions_api import Sandbox, serving


@pytest.fixture
def sandbox() -> Iterator[Sandbox]:
    with serving(Sandbox()) as sandbox:
        yield sandbox


@pytest.fixture
def api(sandbox: Sandbox) -> ExtensionsApi:
    return ExtensionsApi(sandbox.authority, sandbox.file)


def test_registration_names_the_file_and_asks_for_both_events(
    sandbox: Sandbox, api: ExtensionsApi
) -> None:
    assert api.register() == {"INVOKE", "SHUTDOWN"}
    assert api.is_registered
    (asked,) = sandbox.asked
    assert asked.headers["lambda-extension-name"] == sandbox.file


def test_registration_does_without_invocations_only_where_they_are_refused(
    api: ExtensionsApi, sandbox: Sandbox
) -> None:
    with serving(Sandbox(is_managed=True)) as managed:
        assert ExtensionsApi(managed.authority, managed.file).register() == {"SHUTDOWN"}
    api.register()
    with pytest.raises(RegistrationRefused, match=r"Extension\.InvalidExtensionState"):
        ExtensionsApi(sandbox.authority, sandbox.file).register()
    assert len(sandbox.asked) == 2


def test_another_name_than_the_file_s_is_refused(sandbox: Sandbox) -> None:
    api = ExtensionsApi(sandbox.authority, "another")
    with pytest.raises(RegistrationRefused, match=r"Extension\.InvalidEventType"):
        api.register()
    assert not api.is_registered


def test_events_come_as_what_they_are(sandbox: Sandbox, api: ExtensionsApi) -> None:
    api.register()
    with ThreadPoolExecutor() as pool:
        event = pool.submit(api.next_event)
        sandbox.begin_invocation(lasts_s=60)
        invoke = event.result(20)
    assert isinstance(invoke, Invoke)
    assert invoke.deadline_ms == pytest.approx((time.time() + 60) * 1000, abs=30_000)


def test_next_event_waits_longer_than_any_timeout_of_the_process(
    sandbox: Sandbox, api: ExtensionsApi
) -> None:
    api.register()
    socket.setdefaulttimeout(0.05)  # of the standard library, for whoever sets none of their own
    try:
        with ThreadPoolExecutor() as pool:
            event = pool.submit(api.next_event)
            sandbox.wait_until_idle()
            with pytest.raises(TimeoutError):
                event.result(0.3)
            sandbox.begin_invocation()
            assert isinstance(event.result(20), Invoke)
    finally:
        socket.setdefaulttimeout(None)


def test_a_failed_start_is_reported_between_registration_and_first_event(
    sandbox: Sandbox, api: ExtensionsApi
) -> None:
    api.register()
    api.init_error("Extension.LoadFailed", "no route")
    (report,) = sandbox.of("POST /init/error")
    assert report.json == {
        "errorMessage": "no route",
        "errorType": "Extension.LoadFailed",
        "stackTrace": [],
    }
    assert report.headers["lambda-extension-function-error-type"] == "Extension.LoadFailed"
    with pytest.raises(ExtensionsApiFailed, match=r"Extension\.InvalidExtensionState"):
        api.next_event()
    with pytest.raises(ExtensionsApiFailed):
        api.exit_error("Extension.LoadFailed", "no route")


def test_an_api_that_does_not_answer_is_given_up() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        authority = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(ExtensionsApiFailed, match="no answer"):
            ExtensionsApi(authority, "clef-agent", timeout_s=0.1).register()


@pytest.mark.parametrize("authority", ["127.0.0.1:1", "127.0.0.1:port", "", "bad host:80", "[::1"])
def test_an_address_where_nobody_is_ends_in_an_error_with_a_name(authority: str) -> None:
    with pytest.raises(ExtensionsApiFailed):
        ExtensionsApi(authority, "clef-agent").register()


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}",  # no identifier
        b"HTTP/1.1 403 Forbidden\r\nContent-Length: 6\r\n\r\n<html>",
        b"HTTP/1.1 500 No\r\nContent-Length: 4\r\n\r\nnull",
        b"what?\r\n\r\n",
        b"",
    ],
)
def test_an_answer_that_is_none_ends_in_an_error_with_a_name(answer: bytes) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()

        def reply() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)
                connection.shutdown(socket.SHUT_WR)
                while connection.recv(65_536):
                    pass

        replying = threading.Thread(target=reply)
        replying.start()
        api = ExtensionsApi(f"127.0.0.1:{server.getsockname()[1]}", "clef-agent")
        with pytest.raises(ExtensionsApiFailed):
            api.register()
        replying.join()
    assert not api.is_registered


@pytest.mark.parametrize("reason", ["SPINDOWN", "spindown", "Spindown"])
def test_reasons_of_a_shutdown_differ_in_case_only(reason: str) -> None:
    document = {"eventType": "SHUTDOWN", "shutdownReason": reason, "deadlineMs": 5}
    assert parse_event(document) == Shutdown("spindown", 5)


def test_what_an_event_lacks_is_not_known_and_no_error() -> None:
    assert parse_event({"eventType": "INVOKE"}) == Invoke(None)
    assert parse_event({"eventType": "INVOKE", "deadlineMs": "soon"}) == Invoke(None)
    assert parse_event({"eventType": "SHUTDOWN"}) == Shutdown("unknown", None)
    assert parse_event({"eventType": "RESTORE"}) == Unknown("RESTORE")
    assert parse_event({}) == Unknown("None")
