"""systemd as the supervisor: what it is told, in its own words.

Source: sd_notify(3), https://www.freedesktop.org/software/systemd/man/latest/sd_notify.html;
for the watchdog sd_watchdog_enabled(3)
"""

from __future__ import annotations

import asyncio
import enum
import re
import time
from collections.abc import Callable, Collection, MutableMapping
from typing import Final

from clef_agent.errors import ClefError
from clef_agent.lifecycle.notify_socket import NotifySocket, address_of
from clef_agent.lifecycle.supervisor import UNSUPERVISED, Supervisor
from clef_agent.log import LOGGER, one_line
from clef_agent.provider import Status

#: An attempt to load takes less than this, in seconds: a fetch and an unwrap of 15 s each at the
#: most, and what the disk may take.
_ATTEMPT_S: Final = 60.0
#: systemd reads messages of up to 4096 bytes; nobody reads a status as long as that.
_MAX_STATUS_BYTES: Final = 500
#: A watchdog shorter than this would be fed all the time, in seconds.
_SHORTEST_WATCHDOG_S: Final = 0.02


def supervisor_in(
    environ: MutableMapping[str, str], *, pids: Collection[int], monotonic_us: Callable[[], int]
) -> Supervisor:
    """Whoever ``environ`` says wants to hear of the process with one of ``pids``.

    Its variables leave ``environ``: no child is to speak in the agent's name. ``monotonic_us``
    tells the microseconds of CLOCK_MONOTONIC.
    """
    notify_socket = environ.pop("NOTIFY_SOCKET", "")
    watchdog_us = environ.pop("WATCHDOG_USEC", "")
    watchdog_pid = environ.pop("WATCHDOG_PID", "")
    if not notify_socket:
        return UNSUPERVISED
    address = address_of(notify_socket)
    if address is None:
        LOGGER.warning("NOTIFY_SOCKET is ignored: it names no Unix socket")
        return UNSUPERVISED
    is_for_us = not watchdog_pid or watchdog_pid in map(str, pids)
    watchdog_s = _seconds(watchdog_us) if is_for_us else None
    return Systemd(NotifySocket(address), watchdog_s=watchdog_s, monotonic_us=monotonic_us)


class _Phase(enum.Enum):
    STARTING = enum.auto()
    READY = enum.auto()
    RELOADING = enum.auto()
    STOPPING = enum.auto()


class Systemd:
    """Tells systemd, which shows the last status in ``systemctl status``.

    ``watchdog_s`` is how long it waits for a sign of life, in seconds, or None: it does not.
    """

    def __init__(
        self, manager: NotifySocket, *, watchdog_s: float | None, monotonic_us: Callable[[], int]
    ) -> None:
        self._manager = manager
        self._watchdog_s = watchdog_s
        self._monotonic_us = monotonic_us
        self._phase = _Phase.STARTING
        self._shown = ""

    def retrying(self, in_s: float) -> None:
        """See Supervisor. Keeps TimeoutStartSec from ending a start that still may succeed."""
        extended_us = round((in_s + _ATTEMPT_S) * 1e6)
        status = _status(f"the first load failed; trying again in {in_s:g} s")
        self._manager.mention(f"EXTEND_TIMEOUT_USEC={extended_us}\n{status}")

    def serving(self, status: Status) -> None:
        """See Supervisor."""
        shown = _status(_in_words(status))
        if self._phase in (_Phase.STARTING, _Phase.RELOADING):
            self._phase = _Phase.READY
            self._manager.tell(f"READY=1\n{shown}")
        elif self._phase is _Phase.READY and shown != self._shown:
            self._manager.mention(shown)
        self._shown = shown

    def reloading(self) -> None:
        """See Supervisor. The time is for Type=notify-reload: it tells this reload from another."""
        if self._phase in (_Phase.READY, _Phase.RELOADING):  # else READY=1 is yet to come, or past
            self._phase = _Phase.RELOADING
            status = _status("reading keys and token anew, and refreshing")
            self._manager.tell(f"RELOADING=1\nMONOTONIC_USEC={self._monotonic_us()}\n{status}")

    def stopping(self, because: ClefError | None = None) -> None:
        """See Supervisor. Nothing is said after it: since version 259 it cannot be taken back."""
        if self._phase is not _Phase.STOPPING:
            self._phase = _Phase.STOPPING
            why = "stopping" if because is None else f"the first load failed: {because}"
            self._manager.tell(f"STOPPING=1\n{_status(why)}")

    async def watch(self, is_healthy: Callable[[], bool]) -> None:
        """See Supervisor.

        A sign comes from the event loop, which gives none while it hangs; whether one came in time
        is for systemd to judge. A source that is away is no fault of this process, and no restart
        would mend it.
        """
        if self._watchdog_s is None:
            return
        has_warned = False
        while True:
            await asyncio.sleep(self._watchdog_s / 2)
            if is_healthy():
                self._manager.mention("WATCHDOG=1")
            elif not has_warned:
                has_warned = True
                LOGGER.error("a socket takes no connections any more: the watchdog is left to act")


def _seconds(watchdog_us: str) -> float | None:
    if not watchdog_us:
        return None
    if re.fullmatch(r"[0-9]{1,15}", watchdog_us) is None:
        LOGGER.warning("WATCHDOG_USEC is ignored: it is no number of microseconds")
        return None
    seconds = int(watchdog_us) / 1e6
    return max(seconds, _SHORTEST_WATCHDOG_S) if seconds else None


def _status(words: str) -> str:
    # On one line: a revision comes from the store, and must not add assignments of its own.
    return f"STATUS={one_line(words, _MAX_STATUS_BYTES)}"


def _in_words(status: Status) -> str:
    if status.why_not is None:
        words = f"serving revision {status.revision}"
    else:
        words = f"serving nothing ({status.why_not.reason})"
    if status.last_success_ms is None:
        return words
    # To the minute: a file source is looked at every second, and each message wakes systemd.
    last_success = time.gmtime(status.last_success_ms / 1000)
    return f"{words}, last refreshed {time.strftime('%Y-%m-%d %H:%M', last_success)} UTC"
