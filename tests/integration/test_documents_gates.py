"""The code for whoever works on clef-agent.

``nox`` and ``apt-get`` are stand-ins, which look for sessions in the noxfile and install nothing:
what the sessions do is what CI does, and these tests are a part of it.
"""

from __future__ import annotations

import ast
from pathlib import Path

from deployments import ROOT
from documents import Block, block
from terminal import Call, Terminal


def typed(home: Path, shown: Block, **env: str) -> list[Call]:
    terminal = Terminal(home, "nox", "apt-get", env=env)
    terminal.types(shown.text)
    return terminal.calls


def sessions(calls: list[Call]) -> list[list[str]]:
    return [call.facts["sessions"] for call in calls if call.program == "nox"]


def test_after_a_clone_people_type_what_ci_runs() -> None:
    ci = (ROOT / ".ci" / "run").read_text("utf-8").splitlines()
    assert block("README.md", "More").text.splitlines() == ci[-1:]
    assert block(".github/CONTRIBUTING.md", "Working on clef-agent").text.splitlines() == ci[-1:]


def test_the_way_of_the_data_is_made_of_types_that_exist() -> None:
    way = block(".github/CONTRIBUTING.md", "How the code is laid out").text.strip().split(" -> ")
    first, *types, last = way
    package = ROOT / "src" / "clef_agent"
    classes = {
        node.name
        for path in package.rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.ClassDef)
    }
    assert set(types) <= classes
    assert (first, (package / last).is_dir()) == ("env", True)
    assert "`" + " -> ".join(way) + "`" in (ROOT / "docs" / "architecture.md").read_text("utf-8")


def test_what_builds_is_there(tmp_path: Path) -> None:
    assert sessions(typed(tmp_path, block("build/README.md", "build"))) == [
        ["build", "smoke", "layer"]
    ]


def test_another_machine_can_be_built_for(tmp_path: Path) -> None:
    calls = typed(tmp_path, block("build/README.md", "arm64 on another machine"))
    assert sessions(calls) == [["build"], ["smoke"], ["layer", "image", "release"]]
    assert all(call.facts["others"] == ["--target", "arm64"] for call in calls[1:])
    assert_needed(calls)


def test_an_interpreter_can_be_made_and_used(tmp_path: Path) -> None:
    calls = typed(tmp_path / "made", block("build/README.md", "An interpreter for an old glibc"))
    assert sessions(calls) == [["portable-python"]]
    assert_needed(calls)
    used = block("build/README.md", "An interpreter for an old glibc", 1)
    assert sessions(typed(tmp_path / "used", used)) == [["build"], ["smoke"]]
    code = "".join(path.read_text("utf-8") for path in (ROOT / "tests/smoke").glob("*.py"))
    code += (ROOT / "noxfile.py").read_text("utf-8")
    for name in ("CLEF_BUILD_PYTHON", "CLEF_MAX_GLIBC", "CLEF_AGENT_ROOT"):
        assert f"{name}=" in used.text
        assert f'"{name}"' in code


def assert_needed(calls: list[Call]) -> None:
    """Fails if a package is to be installed that nothing in build/ asks for."""
    code = "".join(path.read_text("utf-8") for path in (ROOT / "build").glob("*.py"))
    for name in (name for call in calls for name in call.facts.get("packages", ())):
        assert name.partition("-user-")[0] in code
