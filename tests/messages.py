"""The messages in the code, and those that docs/troubleshooting.md explains.

A message is a text of the code as a person sees it, but for what differs: that is ``...`` here and
on the page.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "troubleshooting.md"
ANYTHING = "..."


@dataclass(frozen=True)
class Entry:
    """One heading of the page, with the messages that it quotes."""

    section: str
    quotes: tuple[str, ...]
    text: str


def entries(page: str) -> list[Entry]:
    """The entries of ``page``, in its order."""
    found: list[Entry] = []
    for section in re.split(r"^## ", page, flags=re.MULTILINE)[1:]:
        title, _, rest = section.partition("\n")
        for entry in re.split(r"^### ", rest, flags=re.MULTILINE)[1:]:
            heading, _, text = entry.partition("\n")
            found.append(Entry(title, tuple(re.findall(r"`([^`]+)`", heading)), text.strip()))
    return found


def messages(package: Path) -> list[set[str]]:
    """For each module of ``package``, every text in it that is no docstring."""
    trees = {
        ".".join(path.relative_to(package.parent).with_suffix("").parts): ast.parse(
            path.read_text("utf-8")
        )
        for path in sorted(package.rglob("*.py"))
    }
    constants = {module: dict(_constants(tree)) for module, tree in trees.items()}
    return [
        set(_messages_in(tree, {**_imported(tree, constants), **constants[module]}))
        for module, tree in trees.items()
    ]


def messages_in(code: str) -> set[str]:
    """Every text in ``code`` that is no docstring."""
    tree = ast.parse(code)
    return set(_messages_in(tree, dict(_constants(tree))))


def _messages_in(tree: ast.Module, names: dict[str, str]) -> Iterator[str]:
    skipped = set(_docstrings(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            skipped |= {id(part) for part in node.values}
        # A method of config's, that makes a sentence of a variable and what is wrong with it.
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "_problem":
            variable, sentence = (_text(argument, names) for argument in node.args)
            if variable and sentence:
                yield _tidy(f"CLEF_AGENT_{variable} {sentence}")
        if id(node) not in skipped and isinstance(node, ast.JoinedStr | ast.Constant):
            text = _text(node, names)
            if text is not None:
                yield _tidy(text)


def _constants(tree: ast.Module) -> Iterator[tuple[str, str]]:
    for node in tree.body:
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        value = getattr(node, "value", None)
        if isinstance(value, ast.Constant) and isinstance(value.value, str):
            yield from ((name.id, value.value) for name in targets if isinstance(name, ast.Name))


def _imported(tree: ast.Module, constants: dict[str, dict[str, str]]) -> dict[str, str]:
    return {
        alias.asname or alias.name: constants[node.module][alias.name]
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module in constants
        for alias in node.names
        if alias.name in constants[node.module]
    }


def _docstrings(tree: ast.AST) -> Iterator[int]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
            first = node.body[0]
            if isinstance(first, ast.Expr):
                yield id(first.value)


def _text(node: ast.expr, names: dict[str, str]) -> str | None:
    """``node`` as a text: a name of the module's own is its value, anything else is ``...``."""
    match node:
        case ast.Constant(value=str(text)):
            return text
        case ast.Constant(value=bytes(data)):
            return data.decode("ascii", "replace")
        case ast.JoinedStr(values=parts):
            return "".join(_text(part, names) or "" for part in parts)
        case ast.FormattedValue(value=ast.Name(id=name)) if name in names:
            return names[name]
        case ast.FormattedValue() | ast.Name():
            return ANYTHING
    return None


def _tidy(text: str) -> str:
    """``text`` with one ``...`` for each place that differs, whichever way it is filled in."""
    return re.sub(r"\.{3,}", ANYTHING, re.sub(r"%(?:[sgdr]|\([^)]*\)s)", ANYTHING, text))


def is_said(quote: str, modules: list[set[str]]) -> bool:
    """Whether ``quote`` is made of whole words that one of ``modules`` says: each of its pieces
    between ``...``, for a module may put a sentence together.
    """
    pieces = [piece.strip(' :;,.()[]"') for piece in quote.split(ANYTHING)]
    patterns = [re.compile(rf"(?<!\w){re.escape(piece)}(?!\w)") for piece in pieces if piece]
    return bool(patterns) and any(
        all(any(pattern.search(message) for message in said) for pattern in patterns)
        for said in modules
    )


def pattern_of(quote: str) -> re.Pattern[str]:
    """What finds ``quote`` in a line that was really written."""
    return re.compile(".+".join(re.escape(part) for part in quote.split(ANYTHING)))
