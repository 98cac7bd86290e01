"""The program that ``exec`` runs: what it inherits, and how signals and its end pass through."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Final, NoReturn, TypeAlias

from clef_agent.cli.failure import Failure
from clef_agent.cli.signals import HeldSignals
from clef_agent.hardening import SECRET_VARIABLES
from clef_agent.log import LOGGER

Environment: TypeAlias = dict[bytes, bytes]

#: What shells answer with for a command that is not there, or cannot be run.
#: Source: https://pubs.opengroup.org/onlinepubs/9799919799/utilities/V3_chap02.html#tag_19_08_02
_NOT_FOUND: Final = 127
_NOT_EXECUTABLE: Final = 126
SIGNAL_BASE: Final = 128

#: A program that was asked to end gets so long, in seconds.
PATIENCE_S: Final = 10.0

#: What ends a process by default, and is sent by whoever wants it to end.
_ENDING: Final = frozenset((signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP))
#: What Python ignores from its start on; a program expects to be ended by them.
_IGNORED_BY_PYTHON: Final = (signal.SIGPIPE, signal.SIGXFSZ)

#: prctl(2), https://man7.org/linux/man-pages/man2/PR_SET_CHILD_SUBREAPER.2const.html
_PR_SET_CHILD_SUBREAPER: Final = 36


class CommandUnusable(Failure):
    """The command cannot be run; ``exit_code`` is what a shell would answer with."""

    def __init__(self, command: str, exc: OSError) -> None:
        is_missing = exc.errno == errno.ENOENT
        self.exit_code = _NOT_FOUND if is_missing else _NOT_EXECUTABLE
        super().__init__(
            f"{command} cannot be run: {exc.strerror or type(exc).__name__}",
            "Check its name, PATH, and that it may be executed.",
        )


def environment_for(values: Mapping[str, str], environ: Mapping[bytes, bytes]) -> Environment:
    """``environ`` as the program gets it, with ``values`` in it and nothing of the agent's own.

    As bytes: the locale must not decide what a program reads, nor be a reason for not starting it.
    """
    env = {
        name: value
        for name, value in environ.items()
        if name.decode("ascii", "replace") not in SECRET_VARIABLES
    }
    _undo_freezing(env)
    return {**env, **{name.encode(): value.encode() for name, value in values.items()}}


def _undo_freezing(env: dict[bytes, bytes]) -> None:
    """Takes back what a frozen executable's loader has set.

    With its library path, another program would load what is packed in here; with the rest,
    another frozen program would take itself for a part of this one.
    Source: https://pyinstaller.org/en/stable/runtime-information.html#ld-library-path-libpath-considerations
    """
    for name in list(env):
        if name.startswith((b"_PYI_", b"_MEIPASS")):
            del env[name]
    if getattr(sys, "frozen", False):
        original = env.pop(b"LD_LIBRARY_PATH_ORIG", None)
        env.pop(b"LD_LIBRARY_PATH", None)
        if original is not None:
            env[b"LD_LIBRARY_PATH"] = original


def undo_locale_coercion() -> None:
    """Takes the locale back that Python has set for itself and its children where there was none.

    To be called before :func:`forbid_dumps`, which takes the kernel's copy of the environment away.

    Source: https://peps.python.org/pep-0538/
    """
    try:
        given = Path("/proc/self/environ").read_bytes().split(b"\0")
    except OSError:  # no Linux: nobody can tell any more
        return
    if not any(entry.startswith(b"LC_CTYPE=") for entry in given):
        os.environ.pop("LC_CTYPE", None)


def is_first_process() -> bool:
    """Whether orphans come to this process: as process 1, or as the child of the one-file
    executable's loader which is that, and buries nobody but us.
    """
    is_one_file = Path(getattr(sys, "_MEIPASS", "")).name.startswith("_MEI")
    return os.getpid() == 1 or (is_one_file and os.getppid() == 1)


def become(command: Sequence[str], env: Environment) -> NoReturn:
    """Replaces this process by ``command``: nothing stands between it and its parent.

    Raises:
        CommandUnusable: it cannot be run.
    """
    for number in _IGNORED_BY_PYTHON:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execvpe(command[0], list(command), env)  # noqa: S606  # no shell is the point
    except OSError as exc:
        raise CommandUnusable(command[0], exc) from None


class Child:
    """One program at a time, which can be replaced by itself started anew; within an event loop.

    Signals to this process go on to it, except where a terminal has sent them to both. Where
    ``buries_orphans``, this process also waits for those that the system hands it.
    """

    def __init__(self, command: Sequence[str], held: HeldSignals, *, buries_orphans: bool) -> None:
        self._command = command
        self._held = held
        self._buries_orphans = buries_orphans
        if buries_orphans and sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        loop = asyncio.get_running_loop()
        self._process: subprocess.Popen[bytes] | None = None
        self._env: Environment = {}
        #: The exit code of the program that runs now; of the last one, once nothing follows it.
        self._ended: asyncio.Future[int] = loop.create_future()
        self._final: asyncio.Future[int] = loop.create_future()
        self._is_replaced = False
        #: The signal by which somebody has asked for the end: nothing is started after that.
        self.asked_to_end: asyncio.Future[int] = loop.create_future()
        held.tell(self._take)

    def start(self, env: Environment) -> None:
        """Starts the program.

        Raises:
            CommandUnusable: it cannot be run.
        """
        try:
            with self._held.let_go():
                # What this process has inherited beside the standard streams is the program's, too.
                self._process = subprocess.Popen(self._command, env=env, close_fds=False)  # noqa: S603
        except OSError as exc:
            raise CommandUnusable(self._command[0], exc) from None
        self._env = env
        self._ended = asyncio.get_running_loop().create_future()

    def send(self, number: int) -> None:
        """Sends it a signal."""
        if self._process is not None and not self._ended.done():
            os.kill(self._process.pid, number)  # until it has been buried, its number is its own

    async def replace(self, env: Environment) -> None:
        """Ends the program, politely and after ``PATIENCE_S`` by force, and starts it with ``env``.

        Not where it has that already, has ended by itself, or somebody has asked for the end.
        """
        if env == self._env or self._ended.done() or self.asked_to_end.done():
            return
        self._is_replaced = True
        self.send(signal.SIGTERM)
        await asyncio.wait((self._ended,), timeout=PATIENCE_S)
        self.send(signal.SIGKILL)
        code = await self._ended
        self._is_replaced = False
        if self.asked_to_end.done():
            self._final.set_result(code)
        else:
            self._start_anew(env)

    async def final_code(self) -> int:
        """The exit code when nothing follows, as a shell has it: 128 and the number of a signal.

        Raises:
            CommandUnusable: it could not be started anew.
        """
        return await self._final

    def _start_anew(self, env: Environment) -> None:
        try:
            try:
                self.start(env)
            except CommandUnusable as exc:
                # Too much for the system to take, perhaps; what it took before, it takes again.
                LOGGER.error("the program goes on with the secrets that it had: %s", exc)
                self.start(self._env)
        except CommandUnusable as exc:
            self._final.set_exception(exc)

    def _take(self, number: int, is_known: bool) -> None:
        """Passes on a signal, or understands it where there is nobody to pass it on to."""
        if number == signal.SIGCHLD:
            self._bury()
            return
        # A program may live on after any other, and mean to: Java prints its threads at SIGQUIT.
        is_for_us = self._process is None or self._is_replaced
        is_the_end = number == signal.SIGTERM or (is_for_us and number in _ENDING)
        if is_the_end and not self.asked_to_end.done():
            self.asked_to_end.set_result(number)
        if not is_known:
            self.send(number)

    def _bury(self) -> None:
        """Takes the exit status of the program, and of the orphans left to us, if it has ended."""
        if self._process is None:
            return
        while True:
            try:
                whose = -1 if self._buries_orphans else self._process.pid
                pid, status = os.waitpid(whose, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid == self._process.pid:
                self._process.returncode = os.waitstatus_to_exitcode(status)  # or it would wait
                self._note_end(self._process.returncode)

    def _note_end(self, code: int) -> None:
        shown = code if code >= 0 else SIGNAL_BASE - code
        self._ended.set_result(shown)
        if not self._is_replaced:
            self._final.set_result(shown)
