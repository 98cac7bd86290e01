"""Makes pip take wheels that run with the glibc of releases, whatever glibc this machine has.

pip would take the newest that run here: cryptography's for 2.34, say.
Source: https://peps.python.org/pep-0600/#package-installers
"""

from __future__ import annotations

_NEWEST = (2, 28)


def manylinux_compatible(major: int, minor: int, _machine: str) -> bool:
    """Whether a wheel for glibc ``major.minor`` may be taken."""
    return (major, minor) <= _NEWEST
