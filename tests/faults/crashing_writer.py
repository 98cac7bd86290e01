"""``python crashing_writer.py DIRECTORY OPERATION``: the copy on disk, written by who is killed.

For each call that the operation makes to anything written in C (all that asks the system for
something is among them) a child makes it up to that call, and kills itself there. One line of JSON
a child says what is found in its directory afterwards.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType

from clef_agent.artifact.model import RollbackMark
from clef_agent.cache.disk import DiskCache
from clef_agent.clock import Instant
from clef_agent.errors import DiskCopyUnusable

THEN, NOW = Instant(1_000.0, 10.0), Instant(1_030.0, 40.0)
MARKS = {"old": RollbackMark(1.0), "new": RollbackMark(2.0)}
BODIES = {"old": b'{"the":"old"}' * 1_000, "new": b'{"the":"new"}' * 2_000}
DIGESTS = {name: hashlib.sha256(body).hexdigest() for name, body in BODIES.items()}


def store(cache: DiskCache, name: str, at: Instant) -> None:
    cache.store(BODIES[name], DIGESTS[name], at, MARKS[name])


OPERATIONS: dict[str, Callable[[DiskCache], None]] = {
    "first": lambda cache: store(cache, "new", NOW),
    "replace": lambda cache: store(cache, "new", NOW),
    "confirm": lambda cache: cache.confirm(DIGESTS["old"], NOW, MARKS["old"]),
    "purge": lambda cache: cache.purge(MARKS["new"]),
}


def killed_at(step: int, operation: Callable[[], None]) -> bool:
    """Whether ``operation`` makes ``step`` calls, and was killed at that one."""
    child = os.fork()
    if child == 0:
        calls = 0

        def profile(_: FrameType, event: str, __: object) -> None:
            nonlocal calls
            calls += event == "c_call"
            if calls > step:
                os.kill(os.getpid(), signal.SIGKILL)

        sys.setprofile(profile)
        operation()
        sys.setprofile(None)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def found(cache: DiskCache) -> str:
    try:
        copy = cache.load(NOW)
    except DiskCopyUnusable as exc:
        return f"unusable: {exc}"
    if copy is None:
        return "none"
    return next((name for name, body in BODIES.items() if body == copy.data), "something else")


def main() -> None:
    directory, name = Path(sys.argv[1]), sys.argv[2]
    for step in count():
        place = directory / str(step)
        cache = DiskCache(str(place), key="k", boot_id="b")
        if name != "first":
            store(cache, "old", THEN)
        was_killed = killed_at(step, lambda cache=cache: OPERATIONS[name](cache))  # type: ignore[misc]  # a default's type
        line = {"step": step, "killed": was_killed, "found": found(cache)}
        mark = cache.load_mark()
        line["mark"] = None if mark is None else mark.packed_at
        store(cache, "new", NOW)
        line["after"] = found(cache)
        line["files"] = len([*place.iterdir()])
        shutil.rmtree(place)
        sys.stdout.write(json.dumps(line) + "\n")
        if not was_killed:
            return


if __name__ == "__main__":
    main()
