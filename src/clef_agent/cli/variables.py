"""Secrets as environment variables of another program: their names, and which are refused. Pure.

Whoever writes the store chooses the names. A variable that makes a program load or run something
would let them run code here, so it is refused unless the person who starts the program names it.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final

from clef_agent.artifact.pack import Payload
from clef_agent.cli.failure import Failure, printable

#: Source: https://pubs.opengroup.org/onlinepubs/9799919799/basedefs/V1_chap08.html
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*", re.ASCII)

#: A name and its value, with the sign between them and the NUL behind them, hold no more bytes.
#: Source: execve(2), MAX_ARG_STRLEN
_MAX_BYTES: Final = 32 * os.sysconf("SC_PAGE_SIZE")

#: What makes a program load, run or believe something. Proxies pass: such a URL often holds a
#: password, and runs nothing.
#: Source: ld.so(8), environ(7), bash(1), the manuals of the languages, and
#: https://sourceware.org/git/?p=glibc.git;a=blob;f=sysdeps/generic/unsecvars.h
_STEERING_PREFIXES: Final = (
    *("LD_", "DYLD_", "_RLD", "MALLOC_", "XDG_", "CLEF_AGENT_"),
    *("BASH_FUNC_", "PYTHON", "PERL5", "PERL_", "RUBY", "LUA_"),
    *(
        "COR_",
        "CORECLR_",
        "DOTNET_ROOT",
        "NPM_CONFIG_",
        "npm_config_",
        "GIT_CONFIG",
        "R_PROFILE",
        "R_ENVIRON",
    ),
)
_STEERING: Final = frozenset(
    (
        # the loader and the C library
        *("LIBPATH", "SHLIB_PATH", "GCONV_PATH", "GETCONF_DIR", "GLIBC_TUNABLES", "HOSTALIASES"),
        *("LOCALDOMAIN", "LOCPATH", "MUSL_LOCPATH", "NIS_PATH", "NLSPATH", "RES_OPTIONS"),
        *("RESOLV_HOST_CONF", "TMPDIR", "TZDIR", "TERMCAP", "TERMINFO", "TERMINFO_DIRS"),
        # shells, and where they and others look for what they read and run
        *("PATH", "IFS", "ENV", "HOME", "SHELL", "BASH_ENV", "BASHOPTS", "SHELLOPTS", "CDPATH"),
        *("FPATH", "INPUTRC", "PS0", "PS1", "PS2", "PS4", "PROMPT_COMMAND", "ZDOTDIR"),
        # interpreters
        *("NODE_OPTIONS", "NODE_PATH", "NODE_REPL_EXTERNAL_MODULE", "BUN_OPTIONS"),
        *("PERLLIB", "PERLIO_DEBUG", "GEM_HOME", "GEM_PATH", "BUNDLE_GEMFILE", "BUNDLE_APP_CONFIG"),
        *("JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "JAVA_OPTS", "JAVA_HOME"),
        *("CLASSPATH", "CATALINA_OPTS", "MAVEN_OPTS", "GRADLE_OPTS", "SBT_OPTS"),
        *("DOTNET_STARTUP_HOOKS", "DOTNET_ADDITIONAL_DEPS", "DOTNET_SHARED_STORE"),
        *("PHPRC", "PHP_INI_SCAN_DIR", "LUA_INIT", "R_LIBS", "GUILE_LOAD_PATH", "JULIA_LOAD_PATH"),
        *("ERL_FLAGS", "ERL_AFLAGS", "ERL_ZFLAGS", "ERL_LIBS", "ELIXIR_ERL_OPTIONS"),
        # libraries that load others, and what they trust
        *("OPENSSL_CONF", "OPENSSL_ENGINES", "OPENSSL_MODULES", "SSLKEYLOGFILE"),
        *("SSL_CERT_FILE", "SSL_CERT_DIR", "CURL_CA_BUNDLE", "REQUESTS_CA_BUNDLE"),
        *("NODE_EXTRA_CA_CERTS", "NODE_TLS_REJECT_UNAUTHORIZED", "GTK_MODULES", "QT_PLUGIN_PATH"),
        *("ODBCSYSINI", "ODBCINI", "KRB5_CONFIG"),
        # programs that are run for others, and files that name such programs
        *("EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER", "LESSOPEN", "LESSCLOSE"),
        *("SSH_ASKPASS", "SUDO_ASKPASS", "GIT_ASKPASS", "GIT_SSH", "GIT_SSH_COMMAND"),
        *("GIT_EDITOR", "GIT_SEQUENCE_EDITOR", "GIT_PAGER", "GIT_EXTERNAL_DIFF", "GIT_EXEC_PATH"),
        *("GIT_PROXY_COMMAND", "GIT_TEMPLATE_DIR", "GIT_DIR", "GIT_SSL_NO_VERIFY", "KUBECONFIG"),
        *("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE", "DOCKER_CONFIG", "CURL_HOME", "WGETRC"),
        # whom the program takes for the agent
        "CLEF_ENDPOINT",
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


@dataclass(frozen=True, slots=True)
class _Secret:
    namespace: str | None
    key: str
    value: str = field(repr=False)

    @property
    def name(self) -> str:
        """``ns__KEY``, or ``KEY`` in a flat payload."""
        return self.key if self.namespace is None else f"{self.namespace}__{self.key}"

    def __str__(self) -> str:
        """``ns/KEY``, which no other secret is called."""
        return printable(self.key if self.namespace is None else f"{self.namespace}/{self.key}")


def variables_of(payload: Payload, naming: Naming) -> Variables:
    """The variables that ``payload`` becomes.

    Raises:
        Failure: two secrets would have one name, a name or a value cannot be a variable's, one
            would steer the program, or one of ``only`` is not there. No value is in its text.
    """
    values: dict[str, str] = {}
    skipped: list[str] = []
    for name, secret in _named(payload, naming).items():
        why_not = _why_not(name, secret.value, is_wanted=bool(naming.only))
        if why_not is None:
            values[name] = secret.value
        elif naming.skips_invalid:
            skipped.append(f"{secret} is left out: {why_not}")
        else:
            raise Failure(
                f"{secret} cannot be a variable: {why_not}",
                "--skip-invalid goes on without it; --only names those that are wanted.",
            )
    return Variables(values, tuple(skipped))


def steers(name: str) -> bool:
    """Whether a variable called ``name`` makes programs load, run or believe something."""
    return name in _STEERING or name.startswith(_STEERING_PREFIXES)


def _named(payload: Payload, naming: Naming) -> dict[str, _Secret]:
    """The secrets that are taken, by the names that their variables would have."""
    named: dict[str, _Secret] = {}
    missing = set(naming.only)
    for secret in _secrets(payload):
        base = secret.key if naming.strips_namespace else secret.name
        words = {secret.key, secret.name, str(secret)}
        if naming.only and words.isdisjoint(naming.only):
            continue
        missing -= words
        other = named.setdefault(name := naming.prefix + base, secret)
        if other is not secret:
            raise Failure(
                f"{other} and {secret} would both be the variable {printable(name)}",
                "Name one of them with --only, or leave --strip-namespace out.",
            )
    if missing:
        raise Failure(
            f"there is no secret {printable(min(missing))}, which --only names",
            "`clef-agent keys` lists those that there are.",
        )
    return named


def _secrets(payload: Payload) -> Iterator[_Secret]:
    for outer, inner in payload.items():
        if isinstance(inner, str):
            yield _Secret(None, outer, inner)
        else:
            for key, value in inner.items():
                yield _Secret(outer, key, value)


def _why_not(name: str, value: str, *, is_wanted: bool) -> str | None:
    if _NAME.fullmatch(name) is None:
        return f"{printable(name)} is no name of one (letters, digits and _, no digit first)"
    if "\0" in value:
        return "its value has a NUL, which ends a variable"
    if len(name) + len(value.encode("utf-8", "surrogatepass")) + len("=\0") > _MAX_BYTES:
        return f"name and value are longer than the {_MAX_BYTES:,} bytes that the system takes"
    if not is_wanted and steers(name):
        return f"{name} would steer what is run; --only {name} lets it pass"
    return None
