"""Lays out what a release carries: each file with its checksum, and what is in it.

The list of parts is CycloneDX, which cyclonedx-py writes; licences are those that the packages in
the executable brought along.
"""

from __future__ import annotations

import gzip
import hashlib
import importlib.metadata
import shutil
import sys
from pathlib import Path


def publish(executable: Path, others: list[Path], target: Path, machine: str) -> None:
    """Fills ``target`` with the executable, plain and packed, ``others``, and their checksums."""
    target.mkdir(parents=True, exist_ok=True)
    download = target / f"clef-agent-linux-{machine}"
    shutil.copyfile(executable, download)
    download.chmod(0o755)
    packed = download.with_name(f"{download.name}.gz")
    packed.write_bytes(gzip.compress(download.read_bytes(), 9, mtime=0))
    licences = target / f"clef-agent-licences-{machine}.txt"
    licences.write_text(_licences(), encoding="utf-8")
    files = [download, packed, licences]
    for other in others:
        files.append(target / other.name)
        if other != files[-1]:
            shutil.copyfile(other, files[-1])
    for file in files:
        digest = hashlib.sha256(file.read_bytes()).hexdigest()
        Path(f"{file}.sha256").write_text(f"{digest}  {file.name}\n", encoding="ascii")


def _licences() -> str:
    """The texts of all packages of this environment, each under its name and version."""
    sections = []
    for package in sorted(importlib.metadata.distributions(), key=lambda it: it.name.lower()):
        texts = [
            Path(str(file.locate())).read_text(encoding="utf-8", errors="replace")
            for file in package.files or ()
            if file.name.upper().startswith(("LICENSE", "LICENCE", "COPYING", "NOTICE"))
        ]
        named = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
        title = f"{package.name} {package.version}"
        sections.append("\n\n".join([f"{title}\n{'=' * len(title)}", *(texts or [named])]))
    return "\n\n\n".join(sections) + "\n"


if __name__ == "__main__":
    publish(
        Path(sys.argv[1]), [Path(name) for name in sys.argv[4:]], Path(sys.argv[2]), sys.argv[3]
    )
