"""The code in the documentation: each block, and who runs it.

A test claims a block by fetching it, with a call of :func:`block` whose arguments stand there
literally: ``block("README.md", "Docker")``. ``tests/unit/test_documents.py`` reads those calls, and
fails where a block has none, where it has two, and where a call fetches what is not there.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, NamedTuple

ROOT: Final = Path(__file__).parents[1]
#: What people read. The changelog has no code to run.
PAGES: Final = (
    "README.md",
    "SECURITY.md",
    ".github/CONTRIBUTING.md",
    "build/README.md",
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "docs").glob("*.md")),
    *sorted(str(path.relative_to(ROOT)) for path in (ROOT / "release").glob("*/README.md")),
)
_FENCE: Final = re.compile(r"^ {0,3}(`{3,}|~{3,})([\w+-]*)\s*$")
_HEADING: Final = re.compile(r"^#{1,6} (.+?)\s*$")
#: Markdown takes this for code, too, after an empty line; in a list or a footnote it is text.
_INDENTED: Final = re.compile(r"^(?: {4}|\t)\S")
_ITEM: Final = re.compile(r"^ {0,3}(?:[-*+]|\d+\.|\[\^\w+\]:) ")


class Place(NamedTuple):
    """A block's place: the page, the heading above, and how many of that heading are before it."""

    page: str
    heading: str
    number: int = 0


@dataclass(frozen=True)
class Block:
    """A block of code, at ``line`` of its page."""

    place: Place
    language: str
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.place.page}:{self.line} ({self.language}, {self.place.heading!r})"


class Unfinished(ValueError):
    """A page has a fence that nothing closes."""


def block(page: str, heading: str, number: int = 0) -> Block:
    """The block of ``page`` at that place. Whoever calls this says: I run it.

    Raises:
        LookupError: there is none.
    """
    place = Place(page, heading, number)
    for found in blocks_in(page, (ROOT / page).read_text("utf-8")):
        if found.place == place:
            return found
    raise LookupError(f"no block at {place}")


def every_block() -> list[Block]:
    """All blocks of all pages."""
    return [found for page in PAGES for found in blocks_in(page, (ROOT / page).read_text("utf-8"))]


def blocks_in(page: str, text: str) -> Iterator[Block]:
    """The blocks of ``text``, which is that of ``page``.

    Raises:
        Unfinished: a block has no end.
    """
    heading, counts = "", dict[str, int]()
    fence, language, start, lines = "", "", 0, list[str]()
    for at, line in enumerate(text.splitlines(), start=1):
        if fence:
            if line.strip() == fence:
                place = Place(page, heading, counts.get(heading, 0))
                counts[heading] = place.number + 1
                yield Block(place, language, start, "".join(f"{each}\n" for each in lines))
                fence = ""
            else:
                lines.append(line)
        elif found := _FENCE.match(line):
            fence, language, start, lines = found[1], found[2], at, []
        elif found := _HEADING.match(line):
            heading = found[1]
    if fence:
        raise Unfinished(f"{page}:{start}")


def indented_code(text: str) -> list[str]:
    """Lines that Markdown takes for code although no fence is around them."""
    found: list[str] = []
    fence, is_item, before = "", False, ""
    for line in text.splitlines():
        if fence:
            fence = "" if line.strip() == fence else fence
        elif fenced := _FENCE.match(line):
            fence = fenced[1]
        elif _ITEM.match(line):
            is_item = True
        elif line.strip() and not line.startswith(" "):
            is_item = False
        elif _INDENTED.match(line) and not is_item and not before.strip():
            found.append(line)
        before = line
    return found


# --- who runs them ----------------------------------------------------------------------------


@dataclass(frozen=True)
class Claim:
    """A call of :func:`block` in a file of tests. ``place`` is None where it is not literal."""

    file: str
    line: int
    place: Place | None

    def __str__(self) -> str:
        return f"{self.file}:{self.line}"


def every_claim() -> list[Claim]:
    """All calls in the tests, but for those of the tests of this module."""
    return [
        claim
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        if path != ROOT / "tests" / "unit" / "test_documents.py"
        for claim in claims_in(str(path.relative_to(ROOT)), path.read_text("utf-8"))
    ]


def claims_in(file: str, code: str) -> Iterator[Claim]:
    """The calls in ``code``, which is that of ``file``."""
    if "documents" not in code:
        return
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "block":
            yield Claim(file, node.lineno, _place(node))


def _place(call: ast.Call) -> Place | None:
    values = [
        argument.value if isinstance(argument, ast.Constant) else None for argument in call.args
    ]
    match values:
        case [str(page), str(heading)]:
            return Place(page, heading)
        case [str(page), str(heading), int(number)]:
            return Place(page, heading, number)
    return None


def with_each(text: str, replacements: dict[str, str]) -> str:
    """``text`` with what is only an example replaced by what is there in a test.

    Raises:
        LookupError: the text has no such example (any more).
    """
    for example, real in replacements.items():
        if example not in text:
            raise LookupError(f"{example!r} is not in the block")
        text = text.replace(example, real)
    return text
