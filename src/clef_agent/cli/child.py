"""The program that ``exec`` runs: what it inherits, and how signals and its end pass through."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Final, NoReturn

from clef_agent.cli.failure import Failure
from clef_agent.hardening import SECRET_VARIABLES

#: What shells answer with for a command that is not there, or cannot be run.
#: Source: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_08_02
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
_SIGNAL_BASE: Final = 128

#: A program that was asked to end gets so long, in seconds.
PATIENCE_S: Final = 10.0

_FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGWINCH,
    signal.SIGCONT,
)
#: A terminal sends these to its whole foreground, the program included.
_OF_TERMINAL: Final = frozenset((signal.SIGINT, signal.SIGQUIT, signal.SIGWINCH))


class CommandUnusable(Failure):
    """The command cannot be run; ``exit_code`` is what a shell would answer with."""

    def __init__(self, command: str, exc: OSError) -> None:
        is_missing = exc.errno == errno.ENOENT
        self.exit_code = _NOT_FOUND if is_missing else _NOT_EXECUTABLE
        super().__init__(
            f"{command} cannot be run: {exc.strerror or type(exc).__name__}",
            "Check its name, PATH, and that it may be executed.",
        )


def environment_for(values: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` as the program gets it, with ``values`` in it and nothing of the agent's own.

    A frozen executable's loader path is put back to what it was: with it, another program would
    load the libraries that are packed in here.
    Source: https://pyinstaller.org/en/stable/runtime-information.html#ld-library-path-libpath-considerations
    """
    env = {
        name: value
        for name, value in environ.items()
        if name not in SECRET_VARIABLES and not name.startswith(("_PYI_", "_MEIPASS"))
    }
    if getattr(sys, "frozen", False):
        original = env.pop("LD_LIBRARY_PATH_ORIG", None)
        env.pop("LD_LIBRARY_PATH", None)
        if original is not None:
            env["LD_LIBRARY_PATH"] = original
    return {**env, **values}


def become(command: Sequence[str], env: Mapping[str, str]) -> NoReturn:
    """Replaces this process by ``command``: nothing stands between it and its parent.

    Raises:
        CommandUnusable: it cannot be run.
    """
    # Python ignores these from its start on; a program expects to be ended by them.
    for number in (signal.SIGPIPE, signal.SIGXFSZ):
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), dict(env))  # noqa: S606  # no shell is the point
    except OSError as exc:
        raise CommandUnusable(command[0], exc) from None


class Child:
    """One program at a time, which can be replaced by itself started anew; within an event loop.

    Signals to this process go on to it, except where a terminal has sent them to both. As process
    1, this one also buries the orphans that the system hands it.
    """

    def __init__(self, command: Sequence[str]) -> None:
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None
        loop = asyncio.get_running_loop()
        #: The exit code of the program that runs now; of the last one, once nothing follows it.
        self._ended: asyncio.Future[int] = loop.create_future()
        self._final: asyncio.Future[int] = loop.create_future()
        self._is_replaced = False
        self._stop_signal: int | None = None

    def watch_signals(self) -> None:
        """Takes over the signals of this process."""
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGCHLD, self._bury)
        for number in _FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:  # nohup's wish is the program's too
                loop.add_signal_handler(number, self._forward, number)

    @property
    def is_stopping(self) -> bool:
        """Whether somebody has asked for the end: then nothing is started any more."""
        return self._stop_signal is not None

    @property
    def stop_code(self) -> int:
        """The exit code of a process that such a wish has ended before the program began."""
        return _SIGNAL_BASE + (self._stop_signal or 0)

    def start(self, env: Mapping[str, str]) -> None:
        """Starts the program.

        Raises:
            CommandUnusable: it cannot be run.
        """
        self._ended = asyncio.get_running_loop().create_future()
        try:
            self._process = subprocess.Popen(self._command, env=dict(env))  # noqa: S603  # no shell
        except OSError as exc:
            raise CommandUnusable(self._command[0], exc) from None

    def send(self, number: int) -> None:
        """Sends it a signal."""
        if self._process is not None and not self._ended.done():
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._process.pid, number)

    async def replace(self, env: Mapping[str, str]) -> None:
        """Ends the program, politely and after ``PATIENCE_S`` by force, and starts it with ``env``.

        Not after it has ended by itself, nor after somebody has asked for the end.
        """
        if self._ended.done():
            return
        self._is_replaced = True
        self.send(signal.SIGTERM)
        await asyncio.wait((self._ended,), timeout=PATIENCE_S)
        self.send(signal.SIGKILL)
        code = await self._ended
        self._is_replaced = False
        if self.is_stopping:
            self._final.set_result(code)
            return
        try:
            self.start(env)
        except CommandUnusable as exc:
            self._final.set_exception(exc)

    async def final_code(self) -> int:
        """The exit code when nothing follows, as a shell has it: 128 and the number of a signal.

        Raises:
            CommandUnusable: it could not be started anew.
        """
        return await self._final

    def _forward(self, number: signal.Signals) -> None:
        if number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
            self._stop_signal = number
        if not (number in _OF_TERMINAL and _is_in_foreground()):
            self.send(number)

    def _bury(self) -> None:
        """Takes the exit status of every child that has ended, our own and those left to us."""
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if self._process is not None and pid == self._process.pid:
                self._note_end(os.waitstatus_to_exitcode(status))

    def _note_end(self, code: int) -> None:
        assert self._process is not None
        self._process.returncode = code  # or else subprocess would wait for it
        shown = code if code >= 0 else _SIGNAL_BASE - code
        self._ended.set_result(shown)
        if not self._is_replaced:
            self._final.set_result(shown)


def _is_in_foreground() -> bool:
    """Whether a terminal sends its signals to this process's group."""
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (OSError, ValueError):
        return False
