"""Signals to this process, for another program: held back, and told of one by one.

They are blocked and waited for, not handled: a handler is not told whether a terminal has sent
the signal, in which case the program, in the same foreground, has got it already.

Source: signal(7), sigwaitinfo(2), for "si_code"; termios(3) for ISIG
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Final

#: What is not held: the kernel's word that this process itself is at fault, what Python turns into
#: an exception, and what stops this process together with the program (Ctrl+Z).
_NOT_HELD: Final = frozenset(
    (
        *(signal.SIGKILL, signal.SIGSTOP, signal.SIGTSTP, signal.SIGTTIN, signal.SIGTTOU),
        *(signal.SIGSEGV, signal.SIGBUS, signal.SIGFPE, signal.SIGILL, signal.SIGABRT),
        *(signal.SIGTRAP, signal.SIGSYS, signal.SIGPIPE, signal.SIGXFSZ, signal.SIGXCPU),
    )
)
#: A terminal sends these to its whole foreground.
_OF_TERMINAL: Final = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH))


class HeldSignals:
    """Every signal that may be meant for another program, and SIGCHLD; held from now on.

    To be made before the first thread is: one that came from before would still be interrupted.
    """

    def __init__(self) -> None:
        # Where it is ignored, the system takes away children before anybody can ask how they ended.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        # What is ignored, as by nohup, is so on purpose, and the program will ignore it, too.
        self._held = {
            number
            for number in signal.valid_signals() - _NOT_HELD
            if signal.getsignal(number) is not signal.SIG_IGN
        }
        self._pass_on: Callable[[int, bool], None] = lambda *_: None
        self._mask = signal.pthread_sigmask(signal.SIG_BLOCK, self._held)
        for number in self._held:
            signal.signal(number, lambda number, _: self._pass_on(number, False))

    def tell(self, listener: Callable[[int, bool], None]) -> None:
        """Calls ``listener`` in this event loop with each signal that comes, and with whether the
        program has it already.
        """
        loop = asyncio.get_running_loop()

        def pass_on(number: int, is_known: bool) -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and this process will
                loop.call_soon_threadsafe(listener, number, is_known)

        def wait() -> None:
            while True:
                pass_on(*_next(self._held))

        self._pass_on = pass_on
        threading.Thread(target=wait, name="signals", daemon=True).start()

    @contextlib.contextmanager
    def let_go(self) -> Iterator[None]:
        """Within, a program that is started has blocked what was blocked before all this.

        A signal that comes meanwhile meets a handler; the program resets that to the default.
        """
        signal.pthread_sigmask(signal.SIG_SETMASK, self._mask)
        try:
            yield
        finally:
            signal.pthread_sigmask(signal.SIG_BLOCK, self._held)


def _next(held: Iterable[int]) -> tuple[int, bool]:
    if sys.platform == "linux":
        info = signal.sigwaitinfo(held)
        # Above 0 it is the kernel that sends, for a terminal; whoever calls kill(2) has 0 or less.
        return info.si_signo, info.si_code > 0 and info.si_signo in _OF_TERMINAL
    number = signal.sigwait(held)  # type: ignore[unreachable]  # it is Linux that is checked
    return number, number in _OF_TERMINAL and _is_in_foreground()


def _is_in_foreground() -> bool:
    """Whether a terminal sends its signals to this process's group."""
    try:
        terminal = os.open("/dev/tty", os.O_RDONLY | os.O_NOCTTY | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        return os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:
        return False
    finally:
        os.close(terminal)
