"""``clef-agent`` without a command: the agent itself."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
import time
from collections.abc import Callable, Coroutine, Mapping, MutableMapping
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

from clef_agent import config as configuration
from clef_agent.config import Config
from clef_agent.errors import ClefError, ConfigInvalid, ExtensionsApiFailed
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
_PROGRAM: Final = "clef-agent"
_FAILED: Final = 1

T = TypeVar("T")


def run_agent(extension_name: str | None = None) -> int:
    """Runs until a signal, or until serving is pointless; returns the exit code.

    In Lambda, ``extension_name`` is that of the file in /opt/extensions by which Lambda knows the
    process; without it, the process goes by the file that was started.
    """
    harden_process()
    env = dict(os.environ)
    forget_secret_variables(os.environ)
    # The configuration may turn out to be wrong; whoever reads JSON wants to read that, too.
    configure_log("json" if env.get("CLEF_AGENT_LOG_FORMAT", "").lower() == "json" else "text")
    if authority := env.get(_LAMBDA):
        return _run_in_lambda(authority, extension_name or _file_name(sys.argv[0]), env)
    supervisor = _supervisor_in(os.environ)
    try:
        config = _configure(env)
        return run_daemon(lambda: assemble(config, env), supervisor=supervisor)
    except ClefError as exc:
        return _cannot_start(exc)


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

    async def run() -> ClefError | None:
        agent = assemble()
        daemon = Daemon(agent, on_ready=lambda: on_ready(agent), supervisor=supervisor)
        return await daemon.run()

    failure = _on_loop(run)
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


def _run_in_lambda(authority: str, name: str, env: Mapping[str, str]) -> int:
    """Runs as the extension ``name`` of the Lambda at ``authority``; returns the exit code."""
    from clef_agent.lifecycle.extensions_api import ExtensionsApi
    from clef_agent.lifecycle.lambda_extension import LambdaExtension, report_failed_start

    api = ExtensionsApi(authority, name)

    async def run() -> ClefError | None:
        return await LambdaExtension(assemble(config, env), api).run()

    try:
        config = _configure(env)
        failure = _on_loop(run)
    except ClefError as exc:
        code = _cannot_start(exc)
        report_failed_start(api, exc)
        return code
    match failure:
        case None:
            return 0
        case ExtensionsApiFailed():
            return _failed(failure, str(failure))
    return _failed(failure, f"the first load failed: {failure}")


def _file_name(started: str) -> str:
    """The name of the file that was ``started``; with ``python -m``, which names a module, ours."""
    name = Path(started).name
    return _PROGRAM if name == "__main__.py" else name


def _configure(env: Mapping[str, str]) -> Config:
    config = configuration.load(env, read_regular_file)
    configure_log(config.log_format, config.log_level)
    for warning in config.warnings:
        LOGGER.warning("%s", warning)
    return config


def _on_loop(run: Callable[[], Coroutine[Any, Any, T]]) -> T:
    import uvloop

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def _cannot_start(error: ClefError) -> int:
    return _failed(error, *(error.problems if isinstance(error, ConfigInvalid) else (str(error),)))


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
