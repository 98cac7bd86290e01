"""From the layer to the image: the same files, which still can run."""

from __future__ import annotations

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
