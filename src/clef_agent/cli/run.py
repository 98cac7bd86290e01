"""``clef-agent`` without a command: the agent itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, MutableMapping
from typing import Final, NoReturn

from clef_agent import config as configuration
from clef_agent.errors import ClefError, ConfigInvalid, LambdaUnsupported
from clef_agent.hardening import forget_secret_variables, harden_process
from clef_agent.lifecycle.agent import Agent
from clef_agent.lifecycle.daemon import Daemon
from clef_agent.lifecycle.supervisor import UNSUPERVISED, Supervisor
from clef_agent.lifecycle.systemd import supervisor_in
from clef_agent.log import LOGGER
from clef_agent.log import configure as configure_log
from clef_agent.regular_file import read_regular_file
from clef_agent.wiring import assemble

_LAMBDA: Final = "AWS_LAMBDA_RUNTIME_API"
_FAILED: Final = 1


def run_agent() -> int:
    """Runs until a signal, or until serving is pointless; returns the exit code."""
    harden_process()
    env = dict(os.environ)
    forget_secret_variables(os.environ)
    # The configuration may turn out to be wrong; whoever reads JSON wants to read that, too.
    configure_log("json" if env.get("CLEF_AGENT_LOG_FORMAT", "").lower() == "json" else "text")
    supervisor = _supervisor_in(os.environ)
    try:
        if _LAMBDA in env:
            raise LambdaUnsupported("this version does not run as a Lambda extension yet")
        config = configuration.load(env, read_regular_file)
        configure_log(config.log_format, config.log_level)
        for warning in config.warnings:
            LOGGER.warning("%s", warning)
        return run_daemon(lambda: assemble(config, env), supervisor=supervisor)
    except ClefError as exc:
        problems = exc.problems if isinstance(exc, ConfigInvalid) else (str(exc),)
        return _failed(exc, *problems)


def run_daemon(
    assemble: Callable[[], Agent],
    *,
    on_ready: Callable[[Agent], None] = lambda _: None,
    supervisor: Supervisor = UNSUPERVISED,
) -> int:
    """Runs what ``assemble`` makes as a daemon; calls ``on_ready`` once it can serve.

    Returns the exit code. A further signal ends the process at once from then on, as it does
    while the daemon leaves.

    Raises:
        ClefError: from ``assemble``.
    """
    import uvloop

    async def run() -> ClefError | None:
        agent = assemble()
        daemon = Daemon(agent, on_ready=lambda: on_ready(agent), supervisor=supervisor)
        return await daemon.run()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        failure = runner.run(run())
    return 0 if failure is None else _failed(failure, f"the first load failed: {failure}")


def leave(code: int) -> NoReturn:
    """Ends the process with ``code``, and waits for no thread.

    A name lookup that hangs, or a file system, holds a thread that the interpreter or libuv would
    wait for at exit.
    """
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):  # its reader has gone, or it was closed
            stream.flush()
    os._exit(code)


def _supervisor_in(environ: MutableMapping[str, str]) -> Supervisor:
    pids = [os.getpid()]
    if getattr(sys, "frozen", False):
        # The one-file executable is two processes; the manager started, and watches, the outer one.
        pids.append(os.getppid())
    return supervisor_in(environ, pids=pids, monotonic_us=lambda: time.monotonic_ns() // 1000)


def _failed(error: ClefError, *problems: str) -> int:
    """Says what ended the agent, and what to do about it; returns the exit code."""
    for problem in problems:
        LOGGER.error("cannot start: %s", problem)
    if error.hint:
        LOGGER.error("hint: %s", error.hint)
    return _FAILED
