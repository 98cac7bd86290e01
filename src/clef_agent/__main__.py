"""``python -m clef_agent``, and the entry of the executable.

Nothing heavy is imported here: a signal that comes while the rest is loading must find its
handler, as PID 1 too, where the kernel ignores signals that have none.
"""

from __future__ import annotations

import os
import signal
import sys


def main() -> None:
    """Runs the agent, or the command that the arguments name; never returns."""
    arguments = sys.argv[1:]
    if not arguments or arguments[0] == "dev":
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _leave)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    if not arguments:
        # The agent itself does without the command line's library: it costs a part of the start.
        from clef_agent.cli.run import leave, run_agent

        leave(run_agent())
    from clef_agent.cli.app import app

    app()


def _leave(_: int, __: object) -> None:
    # Nothing is served yet, so there is nothing to drain.
    os._exit(0)


if __name__ == "__main__":
    main()
