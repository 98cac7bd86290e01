"""The bearer token: where the agent takes it from, where it leaves it, where clients find it.

A token that nobody configured is generated and left in a file. Some of the places for that file
lie in directories that every user of the machine can write to, so writer and reader hold to one
rule: the directory and the file belong to the user of this process, nobody else has any right to
them, and neither is a symbolic link. All is checked on open descriptors, never on names, because
a name can be exchanged between the check and the use.

Source: openat(2) for O_NOFOLLOW and O_EXCL, https://man7.org/linux/man-pages/man2/openat.2.html
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, TypeAlias

from clef_agent.errors import TokenUnusable
from clef_agent.regular_file import read_regular_file

Origin: TypeAlias = Literal["variable", "file", "generated"]

#: Where a system service without a runtime directory of its own may put the file.
SYSTEM_PLACE = "/run/clef-agent"

_TOKEN_BYTES = 32
#: A token travels in a request head of at most 32 KiB, with other lines beside it.
_MAX_FILE_BYTES = 16 * 1024
_GROUP_AND_OTHERS = 0o077


@dataclass(frozen=True, slots=True)
class ServedToken:
    """The token that the agent asks of its clients.

    ``path`` is the file that holds it; None where it came from a variable, and where a generated
    one could be left nowhere, which the caller warns of.
    """

    value: str = field(repr=False)
    path: str | None
    origin: Origin
    #: Whether the file was made for this run, in a place that nobody configured.
    is_passing: bool = False


def served_token(
    *,
    value: str | None,
    token_file: str | None,
    port: int,
    env: Mapping[str, str],
    system_place: str = SYSTEM_PLACE,
) -> ServedToken:
    """The configured token (``value``, else the content of ``token_file``), else a new one.

    A new token is left in ``token_file``, or else in the first of :func:`token_paths` that can be
    had, readable by this user only.

    Raises:
        TokenUnusable: ``token_file`` exists, and holds no token or cannot be read.
    """
    if value is not None:
        return ServedToken(value, None, "variable")
    if token_file is not None:
        configured = _configured(token_file)
        if configured is not None:
            return ServedToken(configured, token_file, "file")
    token = os.urandom(_TOKEN_BYTES).hex()
    configured_path = [] if token_file is None else [token_file]
    for path in (*configured_path, *token_paths(env, port, system_place)):
        with suppress(OSError, _NotOurs):
            if path == token_file:
                _leave_in_configured(path, token)
                return ServedToken(token, path, "generated")
            _leave(path, token)
            return ServedToken(token, path, "generated", is_passing=True)
    return ServedToken(token, None, "generated")


def discard(token: ServedToken) -> None:
    """Removes a file that was made for this run: the next one will have another token, perhaps
    in another place, and a stale file would be found first.
    """
    if not token.is_passing or token.path is None:
        return
    with suppress(OSError, _NotOurs, TokenUnusable):
        if _find(token.path) == token.value:
            Path(token.path).unlink()


def find_token(
    *, env: Mapping[str, str], port: int, system_place: str = SYSTEM_PLACE
) -> str | None:
    """The token for the agent on ``port``, as a client beside it finds it; None if nowhere.

    Raises:
        TokenUnusable: ``CLEF_AGENT_TOKEN`` is no token, or the file that
            ``CLEF_AGENT_TOKEN_FILE`` names exists and holds none.
    """
    configured = configured_token(env)
    if configured is not None:
        return configured
    for path in token_paths(env, port, system_place):
        with suppress(OSError, _NotOurs, TokenUnusable):
            return _find(path)
    return None


def configured_token(env: Mapping[str, str]) -> str | None:
    """The token that a client was given: ``CLEF_AGENT_TOKEN``, or what its file holds.

    Raises:
        TokenUnusable: as :func:`find_token` says.
    """
    value = env.get("CLEF_AGENT_TOKEN")
    if value is not None:
        return _sound(value, "CLEF_AGENT_TOKEN")
    token_file = env.get("CLEF_AGENT_TOKEN_FILE")
    return None if token_file is None else _configured(token_file)


def token_paths(
    env: Mapping[str, str], port: int, system_place: str = SYSTEM_PLACE
) -> tuple[str, ...]:
    """The files that may hold a generated token, in the order in which they are tried.

    Source: systemd.exec(5) for RUNTIME_DIRECTORY, which may hold several, joined by colons;
    https://specifications.freedesktop.org/basedir-spec/latest/ for XDG_RUNTIME_DIR
    """
    runtime_directory = env.get("RUNTIME_DIRECTORY", "").split(":")[0]
    xdg_runtime_dir = env.get("XDG_RUNTIME_DIR", "")
    tmp_dir = env.get("TMPDIR") or "/tmp"  # noqa: S108 - the ownership rule above is for it
    directories = (
        runtime_directory,
        xdg_runtime_dir and f"{xdg_runtime_dir}/clef-agent",
        system_place,
        f"{tmp_dir}/clef-agent-{os.geteuid()}",
    )
    # What is relative would be another place for each working directory.
    return tuple(str(Path(d, f"token-{port}")) for d in directories if d.startswith("/"))


class _NotOurs(Exception):
    """A directory or a file that somebody else could have made, or could read."""


# --- the file that CLEF_AGENT_TOKEN_FILE names ------------------------------------------------


def _configured(path: str) -> str | None:
    """The token in ``path``, which may be a link: Kubernetes mounts secrets so. None: no file."""
    try:
        data = read_regular_file(path, _MAX_FILE_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as exc:
        why = (isinstance(exc, OSError) and exc.strerror) or "that is no path"
        raise TokenUnusable(f"the token file {path} cannot be read: {why}") from exc
    return _token_in(data, f"the token file {path}")


def _leave_in_configured(path: str, token: str) -> None:
    """Writes ``token`` to ``path``, whose directory is as the operator made it."""
    target = Path(path)
    directory = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        _replace(directory, target.name, token)
    finally:
        os.close(directory)


# --- the places that are searched -------------------------------------------------------------


def _leave(path: str, token: str) -> None:
    target = Path(path)
    with suppress(FileExistsError):
        target.parent.mkdir(mode=0o700)
    with _our_directory(target.parent) as directory:
        _replace(directory, target.name, token)


def _find(path: str) -> str:
    target = Path(path)
    with _our_directory(target.parent) as directory:
        # Without O_NONBLOCK a FIFO would hold the open until somebody writes.
        flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.open(target.name, flags, dir_fd=directory), "rb") as file:  # noqa: PTH123 - a descriptor
            _demand_ours(os.fstat(file.fileno()), stat.S_ISREG)
            return _token_in(file.read(_MAX_FILE_BYTES + 1), path)


@contextmanager
def _our_directory(path: Path) -> Iterator[int]:
    """A descriptor of ``path``: from here on nobody can put another directory in its place."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(path, flags)
    try:
        _demand_ours(os.fstat(descriptor), stat.S_ISDIR)
        yield descriptor
    finally:
        os.close(descriptor)


def _demand_ours(status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    if (
        not is_kind(status.st_mode)
        or status.st_uid != os.geteuid()
        or status.st_mode & _GROUP_AND_OTHERS
    ):
        raise _NotOurs


def _replace(directory: int, name: str, token: str) -> None:
    """Makes ``name`` in the open ``directory`` a file 0600 with ``token``, or leaves all as is."""
    passing = f".{name}.{os.urandom(8).hex()}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(passing, flags, 0o600, dir_fd=directory)
    try:
        with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
            file.write(token.encode("ascii") + b"\n")
            file.flush()
            # An empty file after a crash would be an error at the next start.
            os.fsync(descriptor)
        os.rename(passing, name, src_dir_fd=directory, dst_dir_fd=directory)
    except BaseException:
        with suppress(OSError):
            os.unlink(passing, dir_fd=directory)
        raise


# --- what is a token --------------------------------------------------------------------------


def _token_in(data: bytes, where: str) -> str:
    if len(data) > _MAX_FILE_BYTES:
        raise TokenUnusable(f"{where} is longer than a token can be")
    try:
        text = data.decode("utf-8")
    except UnicodeDecodeError:
        raise TokenUnusable(f"{where} is not text") from None
    line = text[:-2] if text.endswith("\r\n") else text.removesuffix("\n")
    return _sound(line, where)


def _sound(token: str, where: str) -> str:
    """``token``, if it survives the way through an HTTP header unchanged."""
    if not token:
        raise TokenUnusable(f"{where} is empty")
    if not token.isprintable() or token != token.strip():
        raise TokenUnusable(
            f"{where} has characters that no header may have, or spaces at an end of the token"
        )
    return token
