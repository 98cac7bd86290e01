"""What the process takes from itself at start, so that its memory stays its own."""

from __future__ import annotations

import ctypes
import os
import resource
import sys
from collections.abc import MutableMapping

#: Variables that hold a secret, or may (a URL's userinfo, a signed query); they leave the
#: environment once they have been read.
SECRET_VARIABLES = (
    "CLEF_AGENT_AGE_KEY",
    "CLEF_AGENT_TOKEN",
    "CLEF_AGENT_SOURCE",
    "CLEF_AGENT_SOURCE_TOKEN",
    "CLEF_AGENT_VCS_TOKEN",
    "CLEF_AGENT_TELEMETRY_URL",
)

#: prctl(2), https://man7.org/linux/man-pages/man2/PR_SET_DUMPABLE.2const.html
_PR_SET_DUMPABLE = 4

#: mallopt(3), https://man7.org/linux/man-pages/man3/mallopt.3.html
_M_PERTURB, _M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -6, -1, -3
#: What freed memory is filled with; any byte but zero, which would mean: with nothing.
_FREED = 0x55
#: What is larger has pages of its own, which go back to the kernel with it.
_OWN_PAGES_BYTES = 64 * 1024


def harden_process() -> None:
    """No core dumps, no reading of our memory by the same user, no files that others can read."""
    os.umask(0o077)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    forbid_dumps()
    overwrite_freed_memory()


def overwrite_freed_memory() -> None:
    """From now on ``free`` overwrites what it takes back, secrets included.

    Where the C library cannot (musl, macOS), nothing happens. It does not see what Python's own
    allocator takes back (up to 512 bytes), and glibc leaves out what a thread's cache keeps (up to
    1032 bytes): secrets of that size must lie in buffers that are zeroed.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_PERTURB, _FREED)
        # A megabyte less is held in the end; both, or glibc moves them by itself.
        mallopt(_M_TRIM_THRESHOLD, _OWN_PAGES_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _OWN_PAGES_BYTES)


def forbid_dumps() -> None:
    """No core dumps, no reading of our memory by the same user; a program that takes this
    process's place, or is started by it, does not inherit that.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def raise_descriptor_limit() -> int:
    """Raises the soft limit of descriptors to the hard one; returns what is in force.

    Source: getrlimit(2), RLIMIT_NOFILE
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
            soft = hard
        except (OSError, ValueError):
            pass  # macOS refuses "unlimited"; the soft limit stays
    return soft if soft != resource.RLIM_INFINITY else sys.maxsize


def forget_secret_variables(environ: MutableMapping[str, str]) -> None:
    """Takes the agent's own secrets out of ``environ``, so that no child inherits them.

    The kernel's copy of the initial environment stays readable in /proc/PID/environ; the
    ``_FILE`` variables avoid that, and PR_SET_DUMPABLE closes it to other processes of the user.
    """
    for name in SECRET_VARIABLES:
        environ.pop(name, None)
