"""Programs that are not on every machine, as far as the documentation uses them.

A stand-in takes the options that the real program's command has and refuses any other with 2, looks
at the files that it is told of, and writes down what it was asked, for a test to judge. It reaches
no network. ``python -m stand_ins NAME ARGUMENTS`` is one; ``terminal.Terminal`` puts them on PATH.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias


class Refused(Exception):
    """What the real program would complain of."""


@dataclass(frozen=True)
class Asked:
    """What a program understood: ``facts`` are for tests, ``then`` is what it runs next, if any."""

    facts: dict[str, Any] = field(default_factory=dict)
    then: list[str] = field(default_factory=list)


Program: TypeAlias = Callable[[list[str]], Asked]


def options(name: str) -> argparse.ArgumentParser:
    """A parser that guesses at nothing: an option is known by its whole name, or not at all."""
    return argparse.ArgumentParser(name, allow_abbrev=False)


def command(
    commands: argparse._SubParsersAction[argparse.ArgumentParser], name: str
) -> argparse.ArgumentParser:
    """A command of a program, as strict as :func:`options`."""
    return commands.add_parser(name, allow_abbrev=False)
