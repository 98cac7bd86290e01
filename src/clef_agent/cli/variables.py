"""Secrets as environment variables of another program: their names, and which are refused. Pure.

Whoever writes the store chooses the names. A variable that makes a program load or run something
would let them run code here, so it is refused unless the person who starts the program names it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from clef_agent.artifact.pack import Payload
from clef_agent.cli.failure import Failure, printable

#: Source: https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

#: What steers the loader, the C library, shells and interpreters, and what they start.
#: Source: ld.so(8), environ(7), bash(1), and the manuals of the languages
_STEERING_PREFIXES: Final = (
    "LD_",
    "DYLD_",
    "MALLOC_",
    "BASH_FUNC_",
    "PYTHON",
    "PERL5",
    "RUBY",
    "GIT_",
    "LUA_",
    "COR_",
    "CORECLR_",
    "DOTNET_",
    "npm_config_",
    "NPM_CONFIG_",
)
_STEERING: Final = frozenset(
    (
        "PATH",
        "IFS",
        "ENV",
        "HOME",
        "SHELL",
        "BASH_ENV",
        "BASHOPTS",
        "SHELLOPTS",
        "PS4",
        "PROMPT_COMMAND",
        "ZDOTDIR",
        "CDPATH",
        "GCONV_PATH",
        "GETCONF_DIR",
        "GLIBC_TUNABLES",
        "HOSTALIASES",
        "LOCPATH",
        "NLSPATH",
        "RES_OPTIONS",
        "RESOLV_HOST_CONF",
        "TZDIR",
        "TERMINFO",
        "TERMINFO_DIRS",
        "TERMCAP",
        "TMPDIR",
        "NODE_OPTIONS",
        "NODE_PATH",
        "NODE_REPL_EXTERNAL_MODULE",
        "JAVA_TOOL_OPTIONS",
        "JDK_JAVA_OPTIONS",
        "_JAVA_OPTIONS",
        "CLASSPATH",
        "JAVA_HOME",
        "MAVEN_OPTS",
        "GRADLE_OPTS",
        "PERLLIB",
        "PERL_MM_OPT",
        "GEM_HOME",
        "GEM_PATH",
        "BUNDLE_GEMFILE",
        "PHPRC",
        "PHP_INI_SCAN_DIR",
        "OPENSSL_CONF",
        "OPENSSL_MODULES",
        "OPENSSL_ENGINES",
        "SSH_ASKPASS",
        "SUDO_ASKPASS",
        "EDITOR",
        "VISUAL",
        "PAGER",
        "BROWSER",
        "LESSOPEN",
        "LESSCLOSE",
        "MANPAGER",
    )
)


@dataclass(frozen=True, slots=True)
class Naming:
    """How secrets are named, and which are taken.

    ``only`` are names as ``ns__KEY``, or bare keys of whichever namespace; () takes all.
    """

    only: tuple[str, ...] = ()
    prefix: str = ""
    strips_namespace: bool = False
    skips_invalid: bool = False


@dataclass(frozen=True, slots=True)
class Variables:
    """Values by the variable's name, and a sentence for each secret that was left out."""

    values: Mapping[str, str] = field(repr=False)
    skipped: tuple[str, ...] = ()


def variables_of(payload: Payload, naming: Naming) -> Variables:
    """The variables that ``payload`` becomes.

    Raises:
        Failure: two secrets would have one name, a name or a value cannot be a variable's, one
            would steer the program, or one of ``only`` is not there. No value is in its text.
    """
    found: dict[str, tuple[str, str]] = {}
    missing = set(naming.only)
    for full, flat, bare, value in _entries(payload):
        names = {full, flat, bare}
        missing -= names
        if naming.only and names.isdisjoint(naming.only):
            continue
        name = naming.prefix + (bare if naming.strips_namespace else flat)
        if name in found:
            raise Failure(
                f"{printable(found[name][0])} and {printable(full)} would both be the variable"
                f" {printable(name)}",
                "Name one of them with --only, or leave --strip-namespace out.",
            )
        found[name] = full, value
    if missing:
        raise Failure(
            f"there is no secret {printable(min(missing))}, which --only names",
            "`clef-agent keys` lists those that there are.",
        )
    values: dict[str, str] = {}
    skipped: list[str] = []
    for name, (full, value) in found.items():
        why_not = _why_not(name, value, is_named=bool(naming.only))
        if why_not is None:
            values[name] = value
        elif naming.skips_invalid:
            skipped.append(f"{printable(full)} is left out: {why_not}")
        else:
            raise Failure(
                f"{printable(full)} cannot be a variable: {why_not}",
                "--skip-invalid goes on without it; --only names those that are wanted.",
            )
    return Variables(values, tuple(skipped))


def _entries(payload: Payload) -> Iterator[tuple[str, str, str, str]]:
    """``ns/KEY``, ``ns__KEY``, ``KEY`` and the value of each; all ``KEY`` without a namespace."""
    for outer, inner in payload.items():
        if isinstance(inner, str):
            yield outer, outer, outer, inner
        else:
            for key, value in inner.items():
                yield f"{outer}/{key}", f"{outer}__{key}", key, value


def _why_not(name: str, value: str, *, is_named: bool) -> str | None:
    if _NAME.fullmatch(name) is None:
        return f"{printable(name)} is no name of one (letters, digits and _, no digit first)"
    if "\0" in value:
        return "its value has a NUL, which ends a variable"
    if not is_named and steers(name):
        return f"{name} would steer what is run; --only {name} lets it pass"
    return None


def steers(name: str) -> bool:
    """Whether a variable called ``name`` makes programs load or run something."""
    return name in _STEERING or name.startswith(_STEERING_PREFIXES)
