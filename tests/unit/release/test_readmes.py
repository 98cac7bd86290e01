"""What the READMEs say of a release, beside what a release is."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from clef_agent.config import VARIABLES
from deployments import IMAGE, RELEASE, REPOSITORY, ROOT, commands, script

MACHINES = ("x64", "arm64")
README = (ROOT / "README.md").read_text("utf-8")
EXECUTABLE = (ROOT / "docs" / "executable.md").read_text("utf-8")
READMES = [ROOT / "README.md", *sorted(RELEASE.glob("*/README.md"))]


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> set[str]:
    """The names of a release's files, as they are written."""
    made = tmp_path_factory.mktemp("made")
    target = made / "release"
    target.mkdir()
    (made / "clef-agent").write_bytes(b"\x7fELF")
    for machine in MACHINES:
        parts = target / f"clef-agent-linux-{machine}.cdx.json"
        layer = made / f"clef-agent-lambda-{machine}.zip"
        for file in (parts, layer):
            file.write_bytes(b"")
        script("publish.py").publish(made / "clef-agent", [parts, layer], target, machine)
    return {file.name for file in target.iterdir()}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_the_files_that_are_named_are_those_of_a_release(readme: Path, published: set[str]) -> None:
    text = readme.read_text("utf-8")
    if readme == ROOT / "README.md":
        text += EXECUTABLE
    named = set(re.findall(r"\bclef-agent-(?:linux|lambda|licences)[\w.-]*\w", text))
    assert named <= published
    if readme == ROOT / "README.md":
        # One of each kind is told of, but for checksums, which all have.
        kinds = {name for name in published if "-x64" in name and not name.endswith(".sha256")}
        assert kinds <= named


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_one_repository_is_named_and_one_image(readme: Path) -> None:
    text = readme.read_text("utf-8")
    own = re.findall(
        r"(?:github(?:usercontent)?\.com/|--repo |ghcr\.io/)([\w-]+/clef-agent)\b", text
    )
    assert set(own) <= {REPOSITORY}
    assert set(re.findall(r"ghcr\.io/[\w/-]+:[\w.]+", text)) <= {IMAGE}


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_what_is_to_be_typed_is_shell(readme: Path) -> None:
    for block in re.findall(
        r"^```sh\n(.*?)^```$", readme.read_text("utf-8"), re.MULTILINE | re.DOTALL
    ):
        subprocess.run(["sh", "-n"], input=block.encode(), check=True, timeout=10)


@pytest.mark.parametrize("readme", READMES[1:], ids=lambda path: path.parent.name)
def test_every_command_in_a_readme_exists(readme: Path) -> None:
    shown = re.findall(r"[`/ ]clef-agent ([a-z]+)\b", "\n".join(typed(readme)))
    assert set(shown) <= commands()


def typed(readme: Path) -> list[str]:
    """The code in ``readme``: its blocks of shell, and what stands between backticks."""
    text = readme.read_text("utf-8")
    blocks = re.findall(r"^```sh\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    # Not the file that is called clef-agent, which other programs get as an argument.
    lines = [line for block in blocks for line in block.splitlines() if "install -" not in line]
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    return [*lines, *re.findall(r"`[^`\n]+`", prose)]


@pytest.mark.parametrize("readme", READMES, ids=lambda path: path.parent.name)
def test_every_variable_in_a_readme_exists(readme: Path) -> None:
    text = readme.read_text("utf-8")
    named = set(re.findall(r"CLEF_AGENT_[A-Z_]*[A-Z]\b(?!_|\*)", text))
    assert named <= set(VARIABLES)


def test_every_dependency_is_a_part_that_is_named() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["gcp"], *extras["azure"]]
    for requirement in wanted:
        name = re.split(r"[^\w-]", requirement)[0]
        assert f"`{name}`" in EXECUTABLE, name


def test_the_sizes_are_those_that_are_held() -> None:
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "tests/smoke").glob("*.py"))
    for size in re.findall(r"(\d+) MB(?! to spare|, and)", EXECUTABLE.split("| Form |")[1]):
        assert re.search(rf"\b{size}\b", sources), size
