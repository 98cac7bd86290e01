"""Builds the image by the Dockerfile for both machines, and pushes it under one name.

The folders come out of the layers, which keep the modes of files on the way from job to job, and
are what was tested. Nothing runs while the image is built, so neither machine is emulated.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

_MACHINES = ("x64", "arm64")
_PLATFORMS = "linux/amd64,linux/arm64"
_FOLDER = "clef-agent/"
_BUILDER = "clef-agent"


def unpack(layer: Path, target: Path) -> None:
    """Puts the folder build out of ``layer`` into the directory ``target``, modes included."""
    with zipfile.ZipFile(layer) as packed:
        for entry in packed.infolist():
            if not entry.filename.startswith(_FOLDER) or entry.is_dir():
                continue
            path = target / entry.filename.removeprefix(_FOLDER)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(packed.read(entry))
            path.chmod(entry.external_attr >> 16 & 0o777)


def publish(image: str, version: str, dist: Path) -> str:
    """Pushes ``image`` as ``version`` and as latest; returns the digest of its index.

    ``dist`` holds release/, with the layers; the context of the build is its parent.
    """
    for machine in _MACHINES:
        unpack(dist / "release" / f"clef-agent-lambda-{machine}.zip", dist / machine / "folder")
    told = dist / "image.json"
    # The builder that a runner brings makes images for its own kind of machine only.
    _docker("buildx", "create", "--name", _BUILDER, "--driver", "docker-container")
    try:
        _docker(
            *("buildx", "build", "--builder", _BUILDER, "--platform", _PLATFORMS, "--push"),
            *("--tag", f"{image}:{version}", "--tag", f"{image}:latest"),
            # Who built it is attested for the index as a whole, by the job that calls this.
            *("--provenance", "false", "--metadata-file", str(told)),
            *("--label", f"org.opencontainers.image.version={version}"),
            *("--file", "release/container/Dockerfile", str(dist.parent)),
        )
    finally:
        _docker("buildx", "rm", _BUILDER)
    return str(json.loads(told.read_text(encoding="utf-8"))["containerimage.digest"])


def _docker(*arguments: str) -> None:
    subprocess.run(("docker", *arguments), check=True)


if __name__ == "__main__":
    digest = publish(sys.argv[1], sys.argv[2], Path("dist").absolute())
    print(digest)  # noqa: T201  # for people
    if output := os.environ.get("GITHUB_OUTPUT"):
        with Path(output).open("a", encoding="utf-8") as outputs:
            outputs.write(f"digest={digest}\n")
