"""The workflows: sessions of nox, pinned actions, no more rights than needed."""

from __future__ import annotations

import ast
import re
import shlex
from typing import Any

import pytest
import yaml

from deployments import ROOT, script

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
#: What makes nox runnable, and nothing of the project's own.
PREPARATIONS = (
    re.compile(r"[\w./-]*python3? -m venv \.venv && \.venv/bin/pip install --quiet nox"),
    re.compile(r"(sudo )?apt-get update && (sudo )?apt-get install --yes [\w -]+"),
    # It ends with the one command of the README, which is nox.
    re.compile(r"bash \.ci/run"),
)


def parsed(workflow: str) -> dict[str, Any]:
    document: dict[str, Any] = yaml.safe_load((ROOT / ".github/workflows" / workflow).read_text())
    return document


def sessions() -> set[str]:
    """The names of noxfile.py's sessions, as nox reads them."""
    names = set()
    for node in ast.parse((ROOT / "noxfile.py").read_text("utf-8")).body:
        if not isinstance(node, ast.FunctionDef):
            continue
        for decorator in node.decorator_list:
            if ast.unparse(decorator).startswith("nox.session"):
                keywords = decorator.keywords if isinstance(decorator, ast.Call) else []
                named = [ast.literal_eval(k.value) for k in keywords if k.arg == "name"]
                names.add(named[0] if named else node.name)
    return names


STEPS = [
    pytest.param(job, step, id=f"{workflow.stem}-{name}-{number}")
    for workflow in WORKFLOWS
    for name, job in parsed(workflow.name)["jobs"].items()
    for number, step in enumerate(job["steps"])
]


def called(job: dict[str, Any], step: dict[str, Any]) -> set[str]:
    """The sessions that a step runs; empty for a preparation."""
    command = step["run"]
    if any(preparation.fullmatch(command) for preparation in PREPARATIONS):
        return set()
    program, option, *names = shlex.split(command)
    assert (program, option) == (".venv/bin/nox", "-s"), command
    if names == ["$SESSION"]:
        assert step["env"]["SESSION"] == "${{ matrix.session }}"
        matrix = job["strategy"]["matrix"]
        return {*matrix["session"], *(more["session"] for more in matrix.get("include", ()))}
    return set(names)


@pytest.mark.parametrize(("job", "step"), STEPS)
def test_a_job_calls_sessions_that_exist_and_nothing_else(
    job: dict[str, Any], step: dict[str, Any]
) -> None:
    if "run" in step:
        assert called(job, step) <= sessions()
        # What GitHub puts in there is run by a shell, whatever it says.
        assert "${{" not in step["run"]


@pytest.mark.parametrize(("job", "step"), STEPS)
def test_a_checkout_leaves_no_credentials(job: dict[str, Any], step: dict[str, Any]) -> None:
    if step.get("uses", "").startswith("actions/checkout@"):
        assert step["with"]["persist-credentials"] is False


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda workflow: workflow.name)
def test_every_action_is_a_commit_that_says_which_version_it_is(workflow: Any) -> None:
    used = re.findall(r"uses: (.+)$", workflow.read_text("utf-8"), re.MULTILINE)
    assert used
    for action in used:
        assert re.fullmatch(r"[\w-]+/[\w-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+", action), action
    assert len({tuple(action.split("@")) for action in used}) == len(
        {action.partition("@")[0] for action in used}
    )


def test_a_job_of_a_release_may_do_what_it_is_for_and_no_more() -> None:
    workflow = parsed("release.yml")
    assert workflow["permissions"] == {}
    read = {"contents": "read"}
    attests = {"id-token": "write", "attestations": "write"}
    assert {name: job["permissions"] for name, job in workflow["jobs"].items()} == {
        "package": read,
        "executable": read,
        "attest": attests,
        "image": {**read, **attests, "packages": "write"},
        "pypi": {"id-token": "write"},
        "github": {"contents": "write"},
    }


def test_nothing_is_published_before_all_has_been_built_and_tested() -> None:
    jobs = parsed("release.yml")["jobs"]

    def before(name: str) -> set[str]:
        needs = jobs[name].get("needs", [])
        named = {needs} if isinstance(needs, str) else set(needs)
        return named.union(*(before(other) for other in named))

    for name in ("image", "pypi", "github"):
        assert {"package", "executable"} <= before(name)
    assert "pypi" in before("github")
    (build,) = (
        called(jobs["executable"], step)
        for step in jobs["executable"]["steps"]
        if "CLEF_BUILD_PYTHON" in step.get("env", {})
    )
    assert {"build", "smoke"} <= build


def test_a_release_is_made_on_both_machines_for_an_old_glibc() -> None:
    job = parsed("release.yml")["jobs"]["executable"]
    machines = {entry["machine"] for entry in job["strategy"]["matrix"]["include"]}
    assert machines == set(script("container/publish.py")._MACHINES)
    assert job["env"]["CLEF_MAX_GLIBC"] == "2.28"
