"""Runs one stand-in, and adds what it was asked to the file that STAND_INS_CALLS names."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

from stand_ins import Program, Refused


def _of_amazon() -> dict[str, Program]:
    from stand_ins import amazon

    return {"aws": amazon.aws, "sam": amazon.sam}


def _of_containers() -> dict[str, Program]:
    from stand_ins import containers

    return {"docker": containers.docker, "kubectl": containers.kubectl}


def _of_github() -> dict[str, Program]:
    from stand_ins import github

    return {"curl": github.curl, "gh": github.gh}


def _of_packages() -> dict[str, Program]:
    from stand_ins import packages

    return {
        "apt-get": packages.apt_get,
        "nox": packages.nox,
        "pip": packages.pip,
        "pipx": packages.pipx,
    }


def _of_root() -> dict[str, Program]:
    from stand_ins import root

    return {"sudo": root.sudo, "systemctl": root.systemctl}


#: What each needs is imported for it alone: botocore takes a while.
PROGRAMS: Final[dict[str, Callable[[], dict[str, Program]]]] = {
    **dict.fromkeys(("aws", "sam"), _of_amazon),
    **dict.fromkeys(("docker", "kubectl"), _of_containers),
    **dict.fromkeys(("curl", "gh"), _of_github),
    **dict.fromkeys(("apt-get", "nox", "pip", "pipx"), _of_packages),
    **dict.fromkeys(("sudo", "systemctl"), _of_root),
}


def main(name: str, arguments: list[str]) -> int:
    try:
        asked = PROGRAMS[name]()[name](arguments)
    except (Refused, OSError, ValueError) as exc:
        print(f"{name}: {exc}", file=sys.stderr)  # noqa: T201  # as the program would
        return 2
    call = {"program": name, "arguments": arguments, "facts": asked.facts}
    with Path(os.environ["STAND_INS_CALLS"]).open("a", encoding="utf-8") as calls:
        calls.write(f"{json.dumps(call)}\n")
    if asked.then:
        os.environ.pop("PYTHONPATH", None)  # the way to these modules, and nobody else's
        os.execvp(asked.then[0], asked.then)
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1], sys.argv[2:]))
