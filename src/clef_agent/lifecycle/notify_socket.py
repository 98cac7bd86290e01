"""Messages to a service manager, as datagrams to the socket that it named.

The other side may be slow, stuck or gone; the agent serves secrets meanwhile. Sending therefore
waits for nobody and raises nothing.

Source: sd_notify(3), https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html#Notes
"""

from __future__ import annotations

import asyncio
import errno
import os
import socket
from collections import deque
from typing import Final

from clef_agent.log import LOGGER

#: Of ``sun_path``, without the NUL that ends it. Source: unix(7)
_MAX_NAME_BYTES: Final = 107
#: The receiver's queue is full, or the system is short of something. Source: unix(7), send(2)
_FOR_NOW: Final = frozenset((errno.EAGAIN, errno.ENOBUFS, errno.ENOMEM, errno.EMFILE, errno.ENFILE))
#: Each further attempt comes after twice the time, in seconds: a socket that nobody reads must
#: not keep the process awake.
_FIRST_RETRY_S: Final = 0.05
_LAST_RETRY_S: Final = 5.0


def address_of(notify_socket: str) -> str | None:
    """The address for ``sendto`` that NOTIFY_SOCKET means, or None where that is no Unix socket.

    A name that begins with ``@`` lies in Linux's abstract namespace; ``vsock:`` speaks to the host
    of a virtual machine, which supervises no process in it.
    """
    if not 1 < len(os.fsencode(notify_socket)) <= _MAX_NAME_BYTES:
        return None
    if notify_socket.startswith("@"):
        return "\0" + notify_socket[1:]
    return notify_socket if notify_socket.startswith("/") else None


class NotifySocket:
    """The way to a service manager at ``address``.

    It is opened anew for each message, so there is nothing to close, and a manager that bound its
    socket again is found again.
    """

    def __init__(self, address: str) -> None:
        self._address = address
        # A change of state makes those before the last one old news.
        self._unsent: deque[str] = deque(maxlen=2)
        self._retry_s = _FIRST_RETRY_S
        self._retry: asyncio.TimerHandle | None = None
        self._has_warned = False

    def tell(self, message: str) -> None:
        """Sends a change of state: now, or as soon as there is room, and in order."""
        self._unsent.append(message)
        if self._retry is None:
            self._send_unsent()

    def mention(self, message: str) -> None:
        """Sends what will be said again anyhow: now, or never."""
        if not self._unsent:
            self._is_settled(message)

    def _send_unsent(self) -> None:
        self._retry = None
        while self._unsent:
            if not self._is_settled(self._unsent[0]):
                loop = asyncio.get_running_loop()
                self._retry = loop.call_later(self._retry_s, self._send_unsent)
                self._retry_s = min(self._retry_s * 2, _LAST_RETRY_S)
                return
            self._unsent.popleft()
        self._retry_s = _FIRST_RETRY_S

    def _is_settled(self, message: str) -> bool:
        """Whether nothing is left to do for ``message``: it was sent, or nobody listens."""
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
                sender.setblocking(False)  # noqa: FBT003  # socket's own signature
                sender.sendto(message.encode(), self._address)
        except OSError as exc:
            if exc.errno in _FOR_NOW:
                return False
            if not self._has_warned:
                self._has_warned = True
                why = exc.strerror or type(exc).__name__
                LOGGER.warning("the service manager cannot be told how the agent fares: %s", why)
        return True
