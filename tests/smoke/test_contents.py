"""What the executable is made of: how much, and for which machines."""

from __future__ import annotations

import gzip
import os
import platform
import re
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.gnuversions import GNUVerNeedSection

from command_line import clef_agent

MEGABYTE = 1_000_000
#: As pyelftools calls them.
NATIVE = {"x86_64": "x64", "aarch64": "AArch64"}


def size_of_zip(folder: Path, target: Path) -> int:
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as packed:
        for path in sorted(folder.rglob("*")):
            packed.write(path, path.relative_to(folder))
    return target.stat().st_size


def glibc_of(path: Path) -> tuple[int, ...]:
    """The newest glibc that ``path`` asks for; empty, where it asks for none."""
    with path.open("rb") as file:
        versions = [
            tuple(int(part) for part in number[1].split("."))
            for section in ELFFile(file).iter_sections()
            if isinstance(section, GNUVerNeedSection)
            for _, needed in section.iter_versions()
            for version in needed
            if (number := re.fullmatch(r"GLIBC_([0-9.]+)", version.name))
        ]
    return max(versions, default=())


def elf_files(folder: Path) -> Iterator[Path]:
    for path in sorted(folder.rglob("*")):
        if path.is_file() and path.read_bytes()[:4] == b"\x7fELF":
            yield path


def test_the_file_is_quick_to_download(executable: Path, is_one_file: bool) -> None:
    if not is_one_file:
        pytest.skip("this is the folder")
    data = executable.read_bytes()
    packed = len(gzip.compress(data, 9))
    print(f"{len(data):,} bytes, {packed:,} compressed")
    assert len(data) <= 45 * MEGABYTE
    assert packed <= 22 * MEGABYTE


def test_the_folder_fits_a_layer(executable: Path, is_one_file: bool, tmp_path: Path) -> None:
    if is_one_file:
        pytest.skip("this is the one file")
    packed = size_of_zip(executable.parent, tmp_path / "folder.zip")
    print(f"{packed:,} bytes, as a zip")
    assert packed <= 22 * MEGABYTE


def test_no_file_asks_for_a_newer_glibc_than_it_may(executable: Path, is_one_file: bool) -> None:
    if is_one_file:
        pytest.skip("the folder holds the same files, unpacked")
    floors = {path: glibc_of(path) for path in elf_files(executable.parent)}
    for path, floor in sorted(floors.items(), key=lambda item: item[1]):
        print(".".join(map(str, floor)) or "none", path.relative_to(executable.parent))
    if allowed := os.environ.get("CLEF_MAX_GLIBC"):
        assert max(floors.values()) <= tuple(int(part) for part in allowed.split("."))


@pytest.mark.parametrize("command", [(), ("dev",), ("exec",), ("pack",), ("health",)])
def test_its_help_is_whole(executable: Path, command: tuple[str, ...]) -> None:
    with executable.open("rb") as file:
        if ELFFile(file).get_machine_arch() != NATIVE.get(platform.machine()):
            pytest.skip("it is for another machine, and the test of its root runs it")
    done = clef_agent(*command, "--help")
    assert (done.returncode, done.stderr) == (0, b"")
    assert b"Usage: clef-agent" in done.stdout
