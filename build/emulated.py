"""Builds the executable for arm64 on another machine: in a Debian root, under qemu.

What can be done outside is done outside: packages are fetched here, and installed there.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
from pathlib import Path

import bootloader
from debian_root import PROJECT, bootstrap, need, run_in

#: bookworm's Python is 3.11, and what it brings asks for glibc 2.36.
_SUITE, _PYTHON = "bookworm", "3.11"
_PACKAGES = (
    "binutils", "gcc", "libc6-dev", "libpython3.11", "python3", "python3-distutils",
    "python3-venv",
)  # fmt: skip
_WORK = PROJECT / ".cache" / "arm64"
_ROOT, _WHEELS, _VENV = _WORK / "root", _WORK / "wheels", _WORK / "venv"


def build(target: Path, epoch: str, requirements: list[str]) -> None:
    """Writes both forms to ``target``.

    Args:
        target: a directory in the project's.
        epoch: SOURCE_DATE_EPOCH, in seconds.
        requirements: what the build needs beside the agent and PyInstaller.
    """
    need(debootstrap="debootstrap", qemu_aarch64_static="qemu-user-static", unshare="util-linux")
    bootstrap(_ROOT, _SUITE, "arm64", *_PACKAGES)
    _install(_fetched([*requirements, "wheel"]), [*requirements, "wheel"])
    target.mkdir(parents=True, exist_ok=True)
    run_in(
        _ROOT,
        *(str(_VENV / "bin" / "python"), "-m", "PyInstaller", "--noconfirm", "--clean"),
        *("--log-level=WARN", f"--workpath={_WORK / 'pyinstaller'}", f"--distpath={target}"),
        "build/clef-agent.spec",
        environment={
            "PYINSTALLER_CONFIG_DIR": str(_WORK / "configuration"),
            "PYTHONDONTWRITEBYTECODE": "1",
            "PYTHONHASHSEED": "0",
            "SOURCE_DATE_EPOCH": epoch,
        },
    )


def _fetched(requirements: list[str]) -> str:
    """Fills ``_WHEELS``; gives the requirement that is the agent."""
    shutil.rmtree(_WHEELS, ignore_errors=True)
    _pip("wheel", "--no-deps", f"--wheel-dir={_WHEELS}", str(PROJECT))
    (wheel,) = _WHEELS.glob("clef_agent-*.whl")
    agent = f"{wheel}[gcp,azure]"
    _pip(
        *("download", f"--dest={_WHEELS}", "--only-binary=:all:", "--implementation=cp"),
        *(f"--python-version={_PYTHON}", "--platform=manylinux2014_aarch64"),
        *(f"--platform=manylinux_2_{minor}_aarch64" for minor in range(28, 16, -1)),
        *(agent, *requirements),
    )
    return agent


def _install(agent: str, requirements: list[str]) -> None:
    """Makes ``_VENV`` anew, by the root's Python."""
    source = bootloader.patched_source()
    pip = (str(_VENV / "bin" / "python"), "-m", "pip", "--quiet", "install", "--no-compile",
           "--no-index", f"--find-links={_WHEELS}")  # fmt: skip
    run_in(_ROOT, "python3", "-m", "venv", "--clear", str(_VENV))
    run_in(_ROOT, *pip, agent, *requirements)
    run_in(
        _ROOT,
        *(*pip, "--no-deps", "--no-build-isolation", str(source)),
        environment=bootloader.OPTIONS,
    )


def _pip(*arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "pip", "--quiet", *arguments], check=True)


if __name__ == "__main__":
    options = argparse.ArgumentParser()
    options.add_argument("target", type=Path)
    options.add_argument("epoch")
    options.add_argument("requirements", nargs="*")
    build(**vars(options.parse_args()))
