"""Debian roots to build in, of another machine or another time; needs root, debootstrap and apt.

Their packages are unpacked and not configured: so nothing runs while a root is made, and one for
another machine takes no longer.
Source: https://manpages.debian.org/bookworm/debootstrap/debootstrap.8.en.html
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

PROJECT = Path(__file__).resolve().parent.parent
#: Links that the configuration of packages would make.
_LINKS = {"bin/sh": "dash", "usr/bin/awk": "mawk", "usr/bin/cc": "gcc"}


def need(**packages: str) -> None:
    """Ends the program if one of the programs named is missing, or the user is not root.

    Args:
        packages: the Debian package of each program, whose name has ``_`` for ``-``.
    """
    for name, package in packages.items():
        if shutil.which(program := name.replace("_", "-")) is None:
            raise SystemExit(f"{program} is needed: install Debian's {package}")
    if os.geteuid() != 0:
        raise SystemExit("a Debian root is made by root: run this as root")


def mirror() -> str:
    """The archive of Debian that apt is set up for."""
    found = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)",
         "Created-By: Packages", "Origin: Debian", "Label: Debian"],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout.split()  # fmt: skip
    if not found:
        raise SystemExit("apt knows no archive of Debian: run `apt-get update`")
    return found[0]


def bootstrap(root: Path, suite: str, machine: str, *packages: str) -> None:
    """Makes ``root`` of ``packages`` and what they need, unless it is there already.

    Args:
        root: a directory, which is replaced if it was made otherwise.
        suite: Debian's name of the release, such as ``bookworm``.
        machine: Debian's name of the architecture, such as ``arm64``.
        packages: beside those without which nothing runs.
    """
    recipe = " ".join((suite, machine, *packages))
    stamp = root / "clef-agent-root"
    if stamp.exists() and stamp.read_text() == recipe:
        return
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir(parents=True)
    subprocess.run(
        ["debootstrap", "--foreign", f"--arch={machine}", "--variant=minbase",
         f"--include={','.join(packages)}", suite, str(root), mirror()],
        check=True, stdout=subprocess.DEVNULL,
    )  # fmt: skip
    archives = root / "var/cache/apt/archives"
    for package in sorted(archives.glob("*.deb")):
        _unpack(package, root)
    shutil.rmtree(archives)
    for name, program in _LINKS.items():
        if not (link := root / name).is_symlink():
            link.symlink_to(program)
    run_in(root, "/sbin/ldconfig")
    stamp.write_text(recipe)


def run_in(root: Path, *command: str, environment: Mapping[str, str] | None = None) -> None:
    """Runs ``command`` in ``root``, where the project has the path that it has outside."""
    subprocess.run(
        ["sh", str(PROJECT / "build" / "enter.sh"), str(root), str(PROJECT), "--", *command],
        cwd=PROJECT,
        env={
            "HOME": "/tmp",  # noqa: S108 - the root's
            "LC_ALL": "C.UTF-8",
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            **(environment or {}),
        },
        stdout=sys.stderr,
        check=True,
    )


def _unpack(package: Path, root: Path) -> None:
    """Onto a root whose /lib and /bin are links, which dpkg-deb alone would replace."""
    with subprocess.Popen(
        ["dpkg-deb", "--fsys-tarfile", str(package)], stdout=subprocess.PIPE
    ) as archive:
        command = ["tar", "--extract", "--keep-directory-symlink", f"--directory={root}"]
        subprocess.run(command, stdin=archive.stdout, check=True)
    if archive.returncode != 0:
        raise SystemExit(f"{package.name} cannot be read")
