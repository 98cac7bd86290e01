"""What installs: ``pip``, ``pipx``, ``apt-get``; and ``nox``, which builds."""

from __future__ import annotations

import argparse
import ast
import re
import tomllib
from typing import Final

from packaging.requirements import InvalidRequirement, Requirement

from deployments import ROOT
from stand_ins import Asked, Refused, command, options

_PROJECT: Final = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
#: Source: https://www.debian.org/doc/debian-policy/ch-controlfields.html#s-f-source
_DEBIAN: Final = re.compile(r"[a-z0-9][a-z0-9+.-]+")


def pip(arguments: list[str]) -> Asked:
    """``pip install REQUIREMENT``: one of this project's, with extras that it has."""
    parser = options("pip")
    install = command(parser.add_subparsers(dest="command", required=True), "install")
    install.add_argument("--quiet", "-q", action="store_true")
    install.add_argument("--upgrade", "-U", action="store_true")
    install.add_argument("requirements", nargs="+")
    given = parser.parse_args(arguments)
    return Asked({"extras": [_extras(text) for text in given.requirements]})


def pipx(arguments: list[str]) -> Asked:
    """``pipx install REQUIREMENT``, and ``pipx run COMMAND``, which runs it.

    Source: https://pipx.pypa.io/stable/docs/
    """
    parser = options("pipx")
    commands = parser.add_subparsers(dest="command", required=True)
    install = command(commands, "install")
    install.add_argument("--python")
    install.add_argument("--force", action="store_true")
    install.add_argument("requirement")
    run = command(commands, "run")
    run.add_argument("--python")
    run.add_argument("--spec")
    run.add_argument("app")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    if given.command == "install":
        return Asked({"extras": _extras(given.requirement)})
    if given.app != _PROJECT["name"] or given.app not in _PROJECT["scripts"]:
        raise Refused(f"no package {given.app}, or none with a command of that name")
    return Asked({"app": given.app}, then=[given.app, *given.arguments])


def _extras(text: str) -> list[str]:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as exc:
        raise Refused(str(exc)) from None
    if requirement.name != _PROJECT["name"]:
        raise Refused(f"{requirement.name} is not the name on PyPI")
    unknown = requirement.extras - set(_PROJECT["optional-dependencies"])
    if unknown:
        raise Refused(f"no extras {sorted(unknown)}")
    return sorted(requirement.extras)


def apt_get(arguments: list[str]) -> Asked:
    """``apt-get install PACKAGE...``."""
    parser = options("apt-get")
    install = command(parser.add_subparsers(dest="command", required=True), "install")
    install.add_argument("--yes", "-y", action="store_true")
    install.add_argument("--no-install-recommends", action="store_true")
    install.add_argument("packages", nargs="+")
    given = parser.parse_args(arguments)
    wrong = [name for name in given.packages if not _DEBIAN.fullmatch(name)]
    if wrong:
        raise Refused(f"no packages: {wrong}")
    return Asked({"packages": given.packages})


def nox(arguments: list[str]) -> Asked:
    """``nox -s SESSION... [-- ARGUMENT...]``, for the sessions of the noxfile."""
    own, dashes, others = [*arguments, "--"].index("--"), "--" in arguments, list[str]()
    parser = options("nox")
    parser.add_argument("--session", "-s", nargs="+", default=[])
    given = parser.parse_args(arguments[:own])
    sessions = _sessions()
    unknown = [name for name in given.session if name not in sessions]
    if unknown:
        raise Refused(f"no sessions: {unknown}")
    if dashes:
        others = arguments[own + 1 :]
        after = options("nox --")
        after.add_argument("--target", choices=["x64", "arm64"])
        after.parse_args(others)
        deaf = [name for name in given.session if "target_of" not in sessions[name]]
        if deaf:
            raise Refused(f"{deaf} take no --target")
    return Asked({"sessions": given.session, "others": others})


def _sessions() -> dict[str, str]:
    """The code of each session, by its name."""
    code = (ROOT / "noxfile.py").read_text("utf-8")
    found: dict[str, str] = {}
    for node in ast.parse(code).body:
        if isinstance(node, ast.FunctionDef):
            text = ast.get_source_segment(code, node) or ""
            for decorator in map(ast.unparse, node.decorator_list):
                if decorator.startswith("nox.session"):
                    named = re.search(r"name='([\w-]+)'", decorator)
                    found[named[1] if named else node.name] = text
    return found
