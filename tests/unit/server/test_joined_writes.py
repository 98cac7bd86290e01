from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from clef_agent.decrypt.secrets import Plaintext
from clef_agent.server.joined_writes import JoinedWrites


class FakeTransport:
    """A transport that remembers each call as the system would see it."""

    def __init__(self) -> None:
        self.calls: list[Any] = []
        self.closing = False
        self.refuses = False
        self.buffered = 0

    def write(self, data: bytes) -> None:
        if self.refuses:
            raise RuntimeError("the handler is closed")
        self.calls.append(data)

    def writelines(self, data: tuple[bytes, ...]) -> None:
        if self.refuses:
            raise RuntimeError("the handler is closed")
        self.calls.append(data)

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.calls.append("close")
        self.closing = True

    def abort(self) -> None:
        self.calls.append("abort")
        self.closing = True

    def pause_reading(self) -> None:
        self.calls.append("pause_reading")

    def resume_reading(self) -> None:
        self.calls.append("resume_reading")

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default if name == "other" else name


class Joined:
    def __init__(self) -> None:
        self.transport = FakeTransport()
        self.closed = 0
        self.writes = JoinedWrites(
            cast("asyncio.Transport", self.transport),
            on_close=self._note,
        )

    def _note(self) -> None:
        self.closed += 1


@pytest.mark.parametrize(("total", "kind"), [(1024, Plaintext), (1025, bytes)])
def test_a_copy_too_small_for_free_to_overwrite_is_a_buffer_that_is_zeroed(
    total: int, kind: type[object]
) -> None:
    joined = Joined()
    joined.writes.write(b"head")
    joined.writes.write(b"b" * (total - 4))
    (written,) = joined.transport.calls
    assert type(written) is kind
    assert written == b"head" + b"b" * (total - 4)


def test_head_and_body_are_one_call_in_order() -> None:
    async def test() -> None:
        joined = Joined()
        joined.writes.write(b"head")
        assert joined.transport.calls == []
        joined.writes.write(b"body")
        joined.writes.write(b"second head")
        joined.writes.write(b"second body")
        await asyncio.sleep(0)
        assert joined.transport.calls == [b"headbody", b"second headsecond body"]

    asyncio.run(test())


def test_a_large_body_is_not_copied() -> None:
    async def test() -> None:
        joined = Joined()
        body = bytes(17 * 1024)
        joined.writes.write(b"head")
        joined.writes.write(body)
        ((head, written),) = joined.transport.calls
        assert head == b"head"
        assert written is body

    asyncio.run(test())


def test_a_head_alone_waits_for_whoever_knows_that_no_body_comes() -> None:
    async def test() -> None:
        joined = Joined()
        joined.transport.buffered = 3
        joined.writes.write(b"head")
        assert joined.writes.get_write_buffer_size() == 3 + len(b"head")
        await asyncio.sleep(0)
        assert joined.transport.calls == []
        joined.writes.flush()
        assert joined.transport.calls == [b"head"]
        assert joined.writes.get_write_buffer_size() == 3
        joined.writes.flush()
        assert joined.transport.calls == [b"head"]

    asyncio.run(test())


def test_a_client_that_asks_whether_to_go_on_is_answered_at_once() -> None:
    async def test() -> None:
        joined = Joined()
        joined.writes.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        assert joined.transport.calls == [b"HTTP/1.1 100 Continue\r\n\r\n"]

    asyncio.run(test())


def test_closing_writes_what_was_kept_and_says_so() -> None:
    async def test() -> None:
        joined = Joined()
        joined.writes.write(b"head")
        joined.writes.close()
        await asyncio.sleep(0)
        assert joined.transport.calls == [b"head", "close"]
        assert joined.closed == 1

    asyncio.run(test())


def test_aborting_drops_what_was_kept() -> None:
    async def test() -> None:
        joined = Joined()
        joined.writes.write(b"head")
        joined.writes.abort()
        assert joined.writes.get_write_buffer_size() == 0
        await asyncio.sleep(0)
        assert joined.transport.calls == ["abort"]

    asyncio.run(test())


def test_nothing_is_written_to_a_transport_that_closed_meanwhile() -> None:
    async def test() -> None:
        joined = Joined()
        joined.writes.write(b"head")
        joined.transport.closing = True
        await asyncio.sleep(0)
        assert joined.transport.calls == []
        joined.transport.refuses = True
        joined.writes.write(b"head")
        joined.writes.write(b"body")
        assert joined.transport.calls == []

    asyncio.run(test())


def test_a_refusal_of_an_open_transport_is_a_fault() -> None:
    async def test() -> None:
        joined = Joined()
        joined.transport.refuses = True
        joined.writes.write(b"head")
        with pytest.raises(RuntimeError):
            joined.writes.write(b"body")

    asyncio.run(test())


def test_everything_else_is_the_transports_own() -> None:
    async def test() -> None:
        joined = Joined()
        joined.writes.pause_reading()
        joined.writes.resume_reading()
        assert joined.transport.calls == ["pause_reading", "resume_reading"]
        assert not joined.writes.is_closing()
        assert joined.writes.get_extra_info("peername") == "peername"
        assert joined.writes.get_extra_info("other", 5) == 5

    asyncio.run(test())
