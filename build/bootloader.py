"""Installs PyInstaller with a bootloader of our own: patched, and with zlib inside.

The published bootloader links the system's libz.so.1, which distroless images do not have.
Source: https://pyinstaller.org/en/stable/bootloader-building.html
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path

#: For the environment of the pip that compiles it.
OPTIONS = {"PYI_STATIC_ZLIB": "1", "PYINSTALLER_COMPILE_BOOTLOADER": "1"}

_VERSION = "6.22.3"
_SHA256 = "05eb2f5615503e72939a7224d68b4aff572c6b0438ee4a17d0a4b481f399362d"

_HERE = Path(__file__).parent
_PATCH = _HERE / "bootloader.patch"
_WORK = _HERE.parent / ".cache" / "bootloader"


def install() -> None:
    """Builds and installs it in this interpreter's environment, unless it is there already."""
    compiler = os.environ.get("CC", "")
    recipe = hashlib.sha256(_SHA256.encode() + _PATCH.read_bytes() + compiler.encode()).hexdigest()
    stamp = Path(sys.prefix) / "clef-agent-bootloader"
    if stamp.exists() and stamp.read_text() == recipe and _is_installed():
        return
    source = patched_source()
    _pip(
        "install", "--force-reinstall", "--no-deps", str(source),
        environment=OPTIONS,
    )  # fmt: skip
    stamp.write_text(recipe)


def patched_source() -> Path:
    """Its sources, checked and patched, in a folder of the work files."""
    archive = _WORK / f"pyinstaller-{_VERSION}.tar.gz"
    if not archive.exists():
        _pip(
            "download", "--no-deps", "--no-binary=pyinstaller", f"--dest={_WORK}",
            f"pyinstaller=={_VERSION}",
        )  # fmt: skip
    if hashlib.sha256(archive.read_bytes()).hexdigest() != _SHA256:
        raise SystemExit(f"{archive} is not the file that was reviewed")
    folder = _WORK / f"pyinstaller-{_VERSION}"
    shutil.rmtree(folder, ignore_errors=True)
    with tarfile.open(archive) as packed:
        packed.extractall(_WORK, filter="data")
    with _PATCH.open("rb") as patch:
        subprocess.run(["patch", "--strip=1", "--quiet"], cwd=folder, stdin=patch, check=True)
    return folder


def _is_installed() -> bool:
    try:
        return importlib.metadata.version("pyinstaller") == _VERSION
    except importlib.metadata.PackageNotFoundError:
        return False


def _pip(*arguments: str, environment: Mapping[str, str] | None = None) -> None:
    subprocess.run(
        [sys.executable, "-m", "pip", "--quiet", *arguments],
        env={**os.environ, **(environment or {})},
        check=True,
    )


if __name__ == "__main__":
    install()
