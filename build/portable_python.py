"""Builds a Python whose executables run with glibc 2.31: for trying here what releases promise.

It is compiled in a root of Debian bullseye, of sources of later releases, and brings the libraries
that it links. The ``cc`` beside it compiles there, too: the bootloader needs that.
Source: https://docs.python.org/3/using/configure.html
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from debian_root import PROJECT, bootstrap, mirror, need, run_in

#: The release of Debian that each source is of; bullseye's own OpenSSL is maintained no more.
_PYTHON, _OPENSSL = "python3.13", "openssl"
_SUITES = {_PYTHON: "trixie", _OPENSSL: "bookworm"}
_WORK = PROJECT / ".cache" / "portable-python"
_ROOT, _SOURCES, _PREFIX, _CC = _WORK / "root", _WORK / "sources", _WORK / "python", _WORK / "cc"
_PACKAGES = (
    "gcc", "libc6-dev", "libffi-dev", "make", "patchelf", "perl", "pkg-config", "zlib1g-dev",
)  # fmt: skip
#: The machine that the executable is built on has newer ones, which ask for its own glibc.
_LIBRARIES = ("libffi.so.7", "libgcc_s.so.1", "libstdc++.so.6", "libz.so.1")
#: Each directory's files find the libraries from where they are.
_SEARCHED = {"bin": "$ORIGIN/../lib", "lib": "$ORIGIN", "lib-dynload": "$ORIGIN/../.."}


def build() -> Path:
    """The interpreter, which is made unless it is there already."""
    need(debootstrap="debootstrap", unshare="util-linux")
    interpreter = _PREFIX / "bin" / _PYTHON
    done = _WORK / "done"
    if done.exists():
        return interpreter
    machine = subprocess.check_output(["dpkg", "--print-architecture"], text=True).strip()
    bootstrap(_ROOT, "bullseye", machine, *_PACKAGES)
    shutil.rmtree(_PREFIX, ignore_errors=True)
    _fetch()
    _compile(
        _unpacked(_OPENSSL),
        f"./Configure --prefix={_PREFIX} --libdir=lib --openssldir=/etc/ssl no-legacy no-tests",
        "build_sw",
        "install_sw",
    )
    _compile(
        _unpacked(_PYTHON),
        f"./configure --prefix={_PREFIX} --enable-shared --disable-test-modules"
        f" --with-openssl={_PREFIX} --without-ensurepip --with-wheel-pkg-dir={_PREFIX}/wheels",
        "all",
        "install",
    )
    _bring_libraries()
    _CC.write_text(
        f'#!/bin/sh\nexec sh {PROJECT}/build/enter.sh {_ROOT} {PROJECT} /tmp -- gcc "$@"\n'
    )
    _CC.chmod(0o755)
    done.touch()
    return interpreter


def _fetch() -> None:
    """Gets the sources, which apt checks, and the pip that new environments are given."""
    shutil.rmtree(_SOURCES, ignore_errors=True)
    for name in ("lists/partial", "cache/archives/partial"):
        (_SOURCES / name).mkdir(parents=True)
    listed = _SOURCES / "sources.list"
    archive = mirror()
    listed.write_text("".join(f"deb-src {archive} {suite} main\n" for suite in _SUITES.values()))
    apt = ("apt-get", "--quiet", "--quiet", f"--option=Dir::Etc::SourceList={listed}",
           "--option=Dir::Etc::SourceParts=/dev/null",
           f"--option=Dir::State::Lists={_SOURCES / 'lists'}",
           f"--option=Dir::Cache={_SOURCES / 'cache'}",
           "--option=APT::Sandbox::User=root")  # fmt: skip
    names = [f"{name}/{suite}" for name, suite in _SUITES.items()]
    for command in (("update",), ("source", "--download-only", "--tar-only", *names)):
        subprocess.run([*apt, *command], cwd=_SOURCES, check=True)
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", "download", "--no-deps",
         f"--dest={_PREFIX / 'wheels'}", "pip"],
        check=True,
    )  # fmt: skip


def _unpacked(name: str) -> Path:
    (archive,) = _SOURCES.glob(f"{name}_*.orig.tar.*z")
    folder = _SOURCES / name
    folder.mkdir()
    subprocess.run(
        ["tar", "--extract", f"--file={archive}", f"--directory={folder}", "--strip-components=1"],
        check=True,
    )
    return folder


def _compile(source: Path, configure: str, *goals: str) -> None:
    jobs = os.cpu_count() or 1
    made = " && ".join(f"make -s -j{jobs} {goal}" for goal in goals)
    run_in(
        _ROOT,
        *("sh", "-c", f"cd {source} && {configure} >configure.log && {made}"),
        environment={"CFLAGS": "-O2 -g0", "LD_LIBRARY_PATH": f"{_PREFIX}/lib"},
    )


def _bring_libraries() -> None:
    for name in _LIBRARIES:
        (found,) = (_ROOT / "usr/lib").glob(f"*-linux-gnu/{name}")
        shutil.copyfile(found, _PREFIX / "lib" / name)
    files = [
        path
        for path in [*_PREFIX.rglob("*.so*"), _PREFIX / "bin" / _PYTHON]
        if not path.is_symlink() and path.parent.name in _SEARCHED
    ]
    for path in files:
        # By the kind that libraries hand on to what they load.
        search = ("--force-rpath", "--set-rpath", _SEARCHED[path.parent.name])
        run_in(_ROOT, "patchelf", *search, str(path))


if __name__ == "__main__":
    sys.stdout.write(f"CLEF_BUILD_PYTHON={build()} CC={_CC}\n")
