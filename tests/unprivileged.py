"""Tests that only mean something to a user without root's rights, also when run as root."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

_NOBODY = 65534


@contextlib.contextmanager
def without_rights() -> Iterator[None]:
    """Within, this process has no more rights than any user; its files stay root's."""
    if os.geteuid() != 0:
        yield
        return
    os.seteuid(_NOBODY)
    try:
        yield
    finally:
        os.seteuid(0)


def first_free_port() -> int:
    """The lowest port that a user without rights may bind."""
    try:
        return int(Path("/proc/sys/net/ipv4/ip_unprivileged_port_start").read_text("ascii"))
    except OSError:
        return 1024
