"""A service manager's end of the notify socket: a real one, without the manager."""

from __future__ import annotations

import contextlib
import select
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TypeAlias

from agent_process import PATIENCE_S

#: The assignments of one message.
Message: TypeAlias = "dict[str, str]"


class NotifyListener:
    """What came in by the socket ``address``, which is a path, or ``@`` and an abstract name."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.messages: list[Message] = []
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._socket.bind("\0" + address[1:] if address.startswith("@") else address)

    def read(self) -> list[Message]:
        """All messages until now, those of earlier calls included."""
        with contextlib.suppress(BlockingIOError):
            while True:
                text = self._socket.recv(4096).decode()
                self.messages.append(dict(line.split("=", 1) for line in text.splitlines()))
        return self.messages

    def of(self, name: str) -> list[Message]:
        """Those until now that assign ``name``."""
        return [message for message in self.read() if name in message]

    def hears(self, name: str, *, times: int = 1, within_s: float) -> bool:
        """Whether ``name`` is assigned ``times`` times before ``within_s`` seconds have passed."""
        deadline = time.monotonic() + within_s
        while len(self.of(name)) < times:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return False
            select.select([self._socket], [], [], left_s)
        return True

    def wait_for(self, name: str, *, times: int = 1) -> Message:
        """The message that assigns ``name`` for the ``times``-th time."""
        heard = self.hears(name, times=times, within_s=PATIENCE_S)
        assert heard, f"in vain: {name}, {times} times; there were {self.messages}"
        return self.of(name)[times - 1]

    def close(self) -> None:
        self._socket.close()


@contextlib.contextmanager
def listening(address: Path | str) -> Iterator[NotifyListener]:
    """A listener at ``address``, until the end of the block."""
    with contextlib.closing(NotifyListener(str(address))) as listener:
        yield listener
