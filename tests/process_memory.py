"""What another process has in its memory, for whoever may look: root, or CAP_SYS_PTRACE."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_WINDOW_BYTES: Final = 4 * 1024 * 1024
_TAG_CHARS: Final = 10
_COUNTER_CHARS: Final = 6
_PIECE_CHARS: Final = _TAG_CHARS + _COUNTER_CHARS
#: CPython keeps a string with one, two or four bytes a character, by its widest one.
_FORMS: Final = ("latin-1", "utf-16-le", "utf-32-le")
#: Mappings that hold no memory of the process: the kernel's own pages, and devices.
_NOT_MEMORY: Final = ("[vvar", "[vsyscall", "[vdso", "/dev/")


class Marked:
    """Values that can be found again, in whole and in pieces.

    Each 16 characters of a value begin with the same random ``tag``; so what is left of one that
    is partly overwritten counts, too, and no other value in the memory counts.
    """

    def __init__(self) -> None:
        self.tag = os.urandom(_TAG_CHARS // 2).hex()
        self._count = 0

    def value(self, pieces: int) -> str:
        """A value of so many times 16 characters, no two pieces alike."""
        begin, self._count = self._count, self._count + pieces
        return "".join(
            f"{self.tag}{number:0{_COUNTER_CHARS}d}" for number in range(begin, self._count)
        )


def copies_of(marked: Marked, pid: int) -> Counter[str]:
    """How many runs of pieces of ``marked``'s values the process ``pid`` holds, by where they lie
    and how long they are ("[heap] 48"): pieces of 16 characters that follow one another are one.

    Raises:
        PermissionError: this process may not look.
    """
    found: Counter[str] = Counter()
    for form in _FORMS:
        tag = re.escape(marked.tag.encode(form))
        counter = rf"(?:[0-9]{chr(0) * (len('0'.encode(form)) - 1)}){{{_COUNTER_CHARS}}}".encode()
        run = re.compile(b"(?:" + tag + b"(?:" + counter + b")?" + b")+")
        for name, chunk in _chunks(pid):
            if marked.tag.encode(form) not in chunk:
                continue
            for match in run.finditer(chunk):
                found[f"{name} {len(match[0])} {form}"] += 1
    return found


def _chunks(pid: int) -> Iterator[tuple[str, bytes]]:
    """The readable memory of ``pid``, with the name of its mapping."""
    memory = os.open(f"/proc/{pid}/mem", os.O_RDONLY)
    try:
        for line in Path(f"/proc/{pid}/maps").read_text().splitlines():
            span, rights, _, _, _, *name = line.split(maxsplit=5)
            where = name[0] if name else "anonymous"
            if "r" not in rights or where.startswith(_NOT_MEMORY):
                continue
            begin, end = (int(number, 16) for number in span.split("-"))
            for at in range(begin, end, _WINDOW_BYTES):
                try:
                    yield where, os.pread(memory, min(_WINDOW_BYTES, end - at), at)
                except OSError:  # unmapped meanwhile, or a file that has become shorter
                    break
    finally:
        os.close(memory)
