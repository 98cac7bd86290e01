"""A process and those that it has started, as others on the machine see them."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Final

#: What a process has in its memory, its environment and its open files.
_PRIVATE: Final = ("environ", "mem", "maps", "auxv", "stack", "fd/0")


def tree_of(pid: int) -> list[int]:
    """``pid`` and all that it has started, directly and indirectly."""
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(one for child in children for one in tree_of(int(child)))]


def is_ours(pid: int) -> bool:
    """Whether the process is clef-agent, and not the program that ``exec`` runs."""
    return b"clef" in Path(f"/proc/{pid}/cmdline").read_bytes()


def runs(program: str, pid: int) -> bool:
    """Whether ``program`` is one of the processes of the tree of ``pid`` by now."""
    begin = program.encode() + b"\0"
    return any(Path(f"/proc/{one}/cmdline").read_bytes().startswith(begin) for one in tree_of(pid))


def descriptors(pid: int) -> dict[int, str]:
    """What each open descriptor of a process is."""
    return {int(link.name): target(link) for link in Path(f"/proc/{pid}/fd").iterdir()}


def target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def open_to(user: tuple[str, ...], pid: int) -> list[str]:
    """What of a process can be read by the commands that ``user`` stands before; [] if nothing."""
    found = []
    for name in _PRIVATE:
        path = f"/proc/{pid}/{name}"
        done = subprocess.run(
            [*user, "head", "-c1", path], capture_output=True, check=False, timeout=30
        )
        if done.returncode == 0 or done.stdout or b"ermi" not in done.stderr:
            found.append(f"{path}: {done.stdout!r} {done.stderr!r}")
    return found
