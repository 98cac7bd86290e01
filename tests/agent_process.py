"""The agent as an operator has it: a process with a port, an environment, streams and signals."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from command_line import agent_command

#: How long a test waits for what should come at once: a busy machine takes its time.
PATIENCE_S = 30.0
TOKEN = "the-token-of-the-tests"
READY = "[clef-agent] Agent ready. Polling for updates."


@dataclass(frozen=True)
class Response:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


def free_port() -> int:
    """A port that nobody listened on a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def eventually(holds: Callable[[], object], what: str, *, patience_s: float = PATIENCE_S) -> None:
    """Returns when ``holds`` does; fails with ``what`` after ``patience_s`` seconds."""
    deadline = time.monotonic() + patience_s
    while not holds():
        assert time.monotonic() < deadline, f"in vain: {what}"
        time.sleep(0.01)


def wait_for_copy(cache: Path) -> None:
    """Returns when the agent's copy in the directory ``cache`` is whole: its record comes last."""
    eventually(lambda: [*cache.glob("*.record.json")], "the copy on disk")


def replace_file(path: Path, data: bytes) -> None:
    """Puts a new file with ``data`` in the place of ``path``, as a careful writer does."""
    passing = path.with_name(f".{path.name}.new")
    passing.write_bytes(data)
    passing.replace(path)


class AgentProcess:
    """``clef-agent``, killed with all its children at the end, whatever happens.

    ``home`` is a directory of the test's own; the file of a generated token lies in it. ``env`` is
    all that the agent gets beside PATH, a free port and ``TOKEN``; ``without`` takes some of it
    away. ``prefix`` stands before the command, ``interpreter`` before its ``-m``;
    ``program`` takes the command's place.
    """

    def __init__(
        self,
        home: Path,
        env: Mapping[str, str],
        *arguments: str,
        prefix: tuple[str, ...] = (),
        interpreter: tuple[str, ...] = (),
        without: tuple[str, ...] = (),
        program: str | None = None,
    ) -> None:
        self.port = _port(env)
        self.runtime_directory = home / f"run-{self.port}"
        self.runtime_directory.mkdir(mode=0o700, exist_ok=True)
        self.env = {
            "PATH": os.environ["PATH"],
            "RUNTIME_DIRECTORY": str(self.runtime_directory),
            "CLEF_AGENT_PORT": str(self.port),
            "CLEF_AGENT_TOKEN": TOKEN,
            **env,
        }
        if "CLEF_AGENT_TOKEN_FILE" in env:
            without = (*without, "CLEF_AGENT_TOKEN")
        for name in without:
            self.env.pop(name, None)
        started = [program] if program else agent_command(*interpreter)
        self.started = time.monotonic()
        self.process = subprocess.Popen(
            [*prefix, *started, *arguments],
            env=self.env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
            umask=0o022,
        )
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        self.out_lines: list[str] = []
        self.err_lines: list[str] = []
        self._readers = (
            _read(self.process.stdout, self.out_lines),
            _read(self.process.stderr, self.err_lines),
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        if exc is not None:
            exc.add_note(f"--- stdout\n{self.out}\n--- stderr\n{self.err}")

    # --- what it says ---------------------------------------------------------------------------

    @property
    def out(self) -> str:
        return "\n".join(self.out_lines)

    @property
    def err(self) -> str:
        return "\n".join(self.err_lines)

    @property
    def said(self) -> str:
        """Everything that it has written until now."""
        return f"{self.out}\n{self.err}"

    def wait_for(self, words: str, *, patience_s: float = PATIENCE_S) -> str:
        """The first line with ``words`` in it, on whichever stream."""
        found: list[str] = []

        def has_come() -> bool:
            lines = [*self.out_lines, *self.err_lines]
            found.extend(line for line in lines if words in line)
            return bool(found) or (self.process.poll() is not None and not self._is_read())

        eventually(has_come, f"a line with {words!r}", patience_s=patience_s)
        assert found or any(words in line for line in (*self.out_lines, *self.err_lines)), (
            f"it ended with {self.process.returncode}, without a line with {words!r}"
        )
        return next(line for line in (*self.out_lines, *self.err_lines) if words in line)

    def wait_until_ready(self, *, patience_s: float = PATIENCE_S) -> Self:
        self.wait_for("Agent ready.", patience_s=patience_s)
        return self

    def _is_read(self) -> bool:
        return any(reader.is_alive() for reader in self._readers)

    # --- how it ends ----------------------------------------------------------------------------

    def send(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def exit_code(self, *, patience_s: float = PATIENCE_S) -> int:
        """Its exit code, after all that it wrote has been read."""
        try:
            code = self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"it still runs after {patience_s:g} s") from None
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return code

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Asks it to leave; returns its exit code."""
        self.send(number)
        return self.exit_code()

    # --- what it answers ------------------------------------------------------------------------

    def request(
        self,
        path: str,
        *,
        method: str = "GET",
        token: str | None = TOKEN,
        headers: Mapping[str, str] | None = None,
        timeout_s: float = PATIENCE_S,
    ) -> Response:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=timeout_s)
        with contextlib.closing(connection):
            bearer = {} if token is None else {"Authorization": f"Bearer {token}"}
            connection.request(method, path, headers={**bearer, **(headers or {})})
            response = connection.getresponse()
            return Response(response.status, dict(response.getheaders()), response.read())

    def secrets(self) -> Response:
        return self.request("/v1/secrets")

    def refresh(self) -> Response:
        """The answer to ``POST /v1/refresh``, asked again for as long as it comes too soon."""
        answers: list[Response] = []

        def is_answered() -> bool:
            answers.append(self.request("/v1/refresh", method="POST"))
            return answers[-1].status != 429

        eventually(is_answered, "a refresh that does not come too soon")
        return answers[-1]


@contextlib.contextmanager
def running(home: Path, env: Mapping[str, str], *arguments: str) -> Iterator[AgentProcess]:
    """An agent that is ready."""
    with AgentProcess(home, env, *arguments) as agent:
        yield agent.wait_until_ready()


def _port(env: Mapping[str, str]) -> int:
    """The port that ``env`` asks for, or else a free one."""
    return int(env.get("CLEF_AGENT_PORT") or free_port())


def _read(stream: IO[bytes], lines: list[str]) -> threading.Thread:
    def read() -> None:
        with stream:
            # Each line is appended as it comes: a generator has no length to wait for.
            lines.extend(line.decode().rstrip("\n") for line in stream)

    thread = threading.Thread(target=read, daemon=True)
    thread.start()
    return thread
