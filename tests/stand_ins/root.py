"""``sudo`` without root's rights, on files below a folder of the test's own; and ``systemctl``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from stand_ins import Asked, Refused, command, options

#: What belongs to root. A path within a longer text is one, too: `sh -c '... > /etc/...'`.
_ROOTS: Final = re.compile(r"(?<![\w./])/(?=(?:etc|usr/local|opt)/)")


def sudo(arguments: list[str]) -> Asked:
    """Runs the rest, with each path of root's moved below the folder that STAND_INS_ROOT names."""
    if not arguments or arguments[0].startswith("-"):
        raise Refused("it takes a command, and no option")
    root = os.environ["STAND_INS_ROOT"]
    return Asked(then=[_ROOTS.sub(f"{root}/", text) for text in arguments])


def systemctl(arguments: list[str]) -> Asked:
    """``daemon-reload``, and ``enable`` of a unit that is where systemd looks for it."""
    parser = options("systemctl")
    commands = parser.add_subparsers(dest="command", required=True)
    command(commands, "daemon-reload")
    enable = command(commands, "enable")
    enable.add_argument("--now", action="store_true")
    enable.add_argument("unit")
    given = parser.parse_args(arguments)
    if given.command == "enable":
        path = Path(os.environ["STAND_INS_ROOT"], "etc/systemd/system", f"{given.unit}.service")
        if not path.is_file():
            raise Refused(f"Unit {given.unit}.service does not exist")
    return Asked(vars(given))
