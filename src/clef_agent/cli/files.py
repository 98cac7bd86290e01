"""Files by the names that a person gave: read, or written whole and never over a secret key."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from pathlib import Path

from clef_agent.cli.failure import Failure

#: An artifact is ciphertext: whoever deploys it may read it.
_PUBLIC_MODE = 0o644
_SECRET_MODE = 0o600


def read_file(path: Path) -> bytes:
    """What ``path`` holds.

    Raises:
        Failure: it cannot be read.
    """
    try:
        return path.read_bytes()
    except OSError as exc:
        raise Failure(
            f"{path} cannot be read: {exc.strerror or exc}",
            "Check the path, and the right to read there.",
        ) from exc


def replace_file(path: Path, data: bytes) -> None:
    """Makes ``path`` hold ``data`` in one step, so that no reader ever sees a part of it.

    A file that is there keeps its mode, a symbolic link keeps pointing where it did, and what is
    no file, like a pipe or /dev/null, is written to and never replaced.

    Raises:
        Failure: it cannot be written.
    """
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(data)
        else:
            _replace(path.resolve(), data)
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def create_secret_file(path: Path, data: bytes) -> None:
    """Makes the new file ``path``, which only its owner can read, hold ``data``.

    Raises:
        Failure: it exists already, or cannot be written.
    """
    try:
        _write_new(path, data, _SECRET_MODE)
    except FileExistsError:
        raise Failure(
            f"{path} exists already, and a key is never overwritten",
            "Choose another file, or move the old one away: what it opens needs it.",
        ) from None
    except OSError as exc:
        raise _unwritable(path, exc) from exc


def _replace(target: Path, data: bytes) -> None:
    mode = stat.S_IMODE(target.stat().st_mode) if target.exists() else _PUBLIC_MODE
    passing = target.with_name(f".{target.name}.{os.urandom(8).hex()}")
    try:
        _write_new(passing, data, mode)
        passing.replace(target)
    except BaseException:
        with suppress(OSError):
            passing.unlink()
        raise


def _write_new(path: Path, data: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, mode)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor has no path
        os.fchmod(descriptor, mode)
        file.write(data)
        file.flush()
        os.fsync(descriptor)


def _unwritable(path: Path, exc: OSError) -> Failure:
    return Failure(
        f"{path} cannot be written: {exc.strerror or exc}",
        "Check that its directory exists, and the right to write there.",
    )
