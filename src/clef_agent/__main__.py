"""``python -m clef_agent``, and the entry of the executable.

Nothing heavy is imported here: a signal that comes while the rest is loading must find its
handler, as PID 1 too, where the kernel ignores signals that have none.
"""

from __future__ import annotations

import gc
import os
import signal
import sys

_STANDARD_ERROR = 2
_NAME_AND_VALUE = 2


def main() -> None:
    """Runs the agent, or the command that the arguments name; never returns."""
    _occupy_standard_streams()
    arguments = sys.argv[1:]
    is_agent = not arguments or (
        arguments[0] == "--extension-name" and len(arguments) == _NAME_AND_VALUE
    )
    if is_agent or arguments[0] == "dev":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif arguments[0] == "exec":
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
            if signal.getsignal(number) is not signal.SIG_IGN:  # the program is to ignore it, too
                signal.signal(number, _end_by)
    if getattr(sys, "frozen", False):
        # The one-file executable holds them back while it unpacks; see build/bootloader.patch.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT, signal.SIGHUP))
    is_probe = arguments in (["health"], ["ready"])
    if is_agent or is_probe:
        # The agent and its probes do without the command line's library: it costs a part of the
        # start. So does looking for garbage, of which imports make little; Agent.listen begins.
        gc.disable()
    if is_agent:
        from clef_agent.cli.run import leave, run_agent

        leave(run_agent(*arguments[1:]))
    if is_probe:
        from clef_agent.cli import probe

        sys.exit(probe.run(arguments[0]))
    from clef_agent.cli.app import app

    app()


def _occupy_standard_streams() -> None:
    """Opens /dev/null where a standard stream is closed: a socket would take its number, be
    written to as if it were the log, and end the process when it is closed.
    """
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        os.set_inheritable(descriptor, True)  # noqa: FBT003  # it takes no name
    os.close(descriptor)
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # so Python has it, when it finds the stream closed
            setattr(sys, name, open(os.devnull, "w"))  # noqa: PTH123, SIM115  # for good


def _leave(_: int, __: object) -> None:
    # Nothing is served yet, so there is nothing to drain.
    os._exit(0)


def _end_by(number: int, _: object) -> None:
    # No program runs yet, and none will: as a shell tells of one that a signal has ended.
    os._exit(128 + number)


if __name__ == "__main__":
    main()
