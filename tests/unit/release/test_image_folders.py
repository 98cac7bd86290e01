"""From the layers to the image: the same files, which still can run, pushed for both machines."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from deployments import RELEASE, script


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    (folder / "lib").mkdir(parents=True)
    (folder / "clef-agent").write_bytes(b"\x7fELF")
    (folder / "clef-agent").chmod(0o755)
    (folder / "lib" / "base.zip").write_bytes(b"data")
    (folder / "lib" / "base.zip").chmod(0o644)
    return folder


def test_the_image_gets_the_folder_of_the_layer_modes_included(
    tmp_path: Path, folder: Path
) -> None:
    script("lambda/layer.py").pack(folder, tmp_path / "layer.zip")
    target = tmp_path / "dist" / "x64" / "folder"
    script("container/publish.py").unpack(tmp_path / "layer.zip", target)
    files = {path.relative_to(target): path for path in target.rglob("*") if path.is_file()}
    assert set(files) == {Path("clef-agent"), Path("lib/base.zip")}
    for name, path in files.items():
        assert path.read_bytes() == (folder / name).read_bytes()
        assert path.stat().st_mode == (folder / name).stat().st_mode


def test_the_dockerfile_takes_the_folders_from_there() -> None:
    dockerfile = (RELEASE / "container" / "Dockerfile").read_text("utf-8")
    for machine in script("container/publish.py")._MACHINES:
        assert f"COPY dist/{machine}/folder " in dockerfile


#: It writes down what it is told, and where to, and answers as buildx does.
DOCKER = """#!/bin/sh
echo "$*" >> calls
while [ $# -gt 1 ]; do
    [ "$1" = --metadata-file ] && echo '{"containerimage.digest": "sha256:ab"}' > "$2"
    shift
done
exit 0
"""


def test_one_image_is_pushed_for_both_machines_and_its_digest_is_told(
    tmp_path: Path, folder: Path
) -> None:
    released, programs = tmp_path / "dist" / "release", tmp_path / "bin"
    released.mkdir(parents=True)
    programs.mkdir()
    (programs / "docker").write_text(DOCKER)
    (programs / "docker").chmod(0o755)
    for machine in ("x64", "arm64"):
        script("lambda/layer.py").pack(folder, released / f"clef-agent-lambda-{machine}.zip")
    env = {
        "PATH": f"{programs}:{os.environ['PATH']}",
        "GITHUB_OUTPUT": str(tmp_path / "output"),
    }
    program = str(RELEASE / "container" / "publish.py")
    command = [sys.executable, program, "ghcr.io/someone/clef-agent", "1.2.0"]
    subprocess.run(command, cwd=tmp_path, env=env, check=True, timeout=60)
    create, build, remove = (tmp_path / "calls").read_text().splitlines()
    assert create.startswith("buildx create --name clef-agent ")
    for part in (
        "--platform linux/amd64,linux/arm64 --push",
        "--tag ghcr.io/someone/clef-agent:1.2.0 --tag ghcr.io/someone/clef-agent:latest",
        f"--file release/container/Dockerfile {tmp_path}",
    ):
        assert part in build
    assert remove == "buildx rm clef-agent"
    assert (tmp_path / "dist" / "arm64" / "folder" / "clef-agent").stat().st_mode & 0o100
    assert (tmp_path / "output").read_text() == "digest=sha256:ab\n"
