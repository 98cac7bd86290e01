"""The code that installs and deploys, typed into a shell as it stands there.

``clef-agent``, ``sh``, ``install``, ``sha256sum`` and ``openssl`` are the real ones. What is not on
every machine, or would change it, is a stand-in that refuses what the real program would refuse,
and writes down what it was asked: curl and gh (nothing is fetched from GitHub), docker, kubectl,
aws, sam, pipx, sudo, systemctl. What their tests show is that commands and files fit together.
"""

from __future__ import annotations

import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from agent_process import TOKEN, AgentProcess
from artifact_store import ArtifactStore, serving
from clef_agent import config
from clef_agent.config import S3SourceConfig
from clef_agent.regular_file import read_regular_file
from deployments import IMAGE, RELEASE, REPOSITORY, script
from documents import block, with_each
from extensions_api import Sandbox
from extensions_api import serving as serving_sandbox
from fakes import AGE_KEY, PAYLOAD, packed
from terminal import Call, Terminal, needs

EXECUTABLE = block("README.md", "The executable")
LAYER = "clef-agent-lambda-x64.zip"


def released(terminal: Terminal) -> None:
    """Lays out a release, whose executable is the agent of these tests."""
    layer = terminal.home / LAYER
    layer.write_bytes(b"PK\5\6" + bytes(18))
    script("publish.py").publish(terminal.programs / "clef-agent", [layer], terminal.release, "x64")


def in_a_clone(terminal: Terminal) -> None:
    """Puts release/ where it is in a clone, with what people put into it."""
    shutil.copytree(RELEASE, terminal.work / "release")
    function = terminal.work / "release" / "lambda" / "function"
    function.mkdir()
    (function / "app.py").write_text("")


def only(calls: list[Call], program: str) -> list[dict[str, Any]]:
    """What ``program`` understood, call by call."""
    return [call.facts for call in calls if call.program == program]


# --- installing -------------------------------------------------------------------------------


def test_the_executable_is_downloaded_proven_installed_and_runs(tmp_path: Path) -> None:
    needs("sha256sum", "install")
    terminal = Terminal(tmp_path, "curl", "gh", "sudo")
    released(terminal)
    (terminal.programs / "clef-agent").unlink()
    (terminal.root / "usr/local/bin").mkdir(parents=True)
    with terminal.stays_in(EXECUTABLE.text) as agent:
        agent.wait_for("Ctrl+C ends it")
    assert only(terminal.calls, "gh") == [{"subject": "clef-agent-linux-x64", "repo": REPOSITORY}]


def test_a_download_that_was_altered_ends_the_installation(tmp_path: Path) -> None:
    needs("sha256sum", "install")
    terminal = Terminal(tmp_path, "curl", "gh", "sudo")
    released(terminal)
    (terminal.release / "clef-agent-linux-x64").write_text("altered")
    with pytest.raises(AssertionError, match="FAILED"):
        terminal.types(EXECUTABLE.text)
    assert only(terminal.calls, "sudo") == []


def test_the_layer_is_published(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "curl", "gh", "aws")
    released(terminal)
    terminal.types(block("README.md", "The Lambda layer").text)
    (published,) = only(terminal.calls, "aws")
    assert published["request"]["LayerName"] == "clef-agent"
    assert published["request"]["Content"] == {"ZipFile": "<22 bytes>"}


def test_the_image_is_proven_and_run_without_rights(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "gh", "docker")
    terminal.types(block("README.md", "The image").text)
    (run,) = only(terminal.calls, "docker")
    assert (run["image"], run["read_only"], run["cap_drop"]) == (IMAGE, True, ["ALL"])


def test_from_pypi_with_extras_or_without_an_installation(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "pipx")
    with terminal.stays_in(block("README.md", "From PyPI").text) as agent:
        agent.wait_for("Ctrl+C ends it")
    assert only(terminal.calls, "pipx") == [{"extras": ["azure", "gcp"]}, {"app": "clef-agent"}]


# --- Docker -----------------------------------------------------------------------------------


def test_the_container_has_all_that_an_agent_needs(tmp_path: Path) -> None:
    env = {"CLEF_AGENT_AGE_KEY": AGE_KEY, "CLEF_AGENT_TOKEN": TOKEN}
    terminal = Terminal(tmp_path, "docker", env=env)
    with serving(ArtifactStore(packed())) as store:
        example = "https://artifacts.example.com/api.production.json"
        terminal.types(with_each(block("README.md", "Docker").text, {example: store.url}))
        (run,) = only(terminal.calls, "docker")
        assert (run["image"], run["network"]) == (IMAGE, "container:api")
        with AgentProcess(tmp_path, run["env"]) as agent:
            assert agent.wait_until_ready().secrets().json == PAYLOAD


# --- Kubernetes -------------------------------------------------------------------------------


def assert_deployed(terminal: Terminal) -> None:
    """Fails unless the secrets that were made are those that the Deployment mounts."""
    key, token, applied = only(terminal.calls, "kubectl")
    assert "AGE-SECRET-KEY-1" in key["data"]["age.key"]
    assert re.fullmatch(r"[0-9a-f]{64}\n", token["data"]["token"])
    (deployment,) = applied["applied"]
    pod = deployment["spec"]["template"]["spec"]
    volumes = {
        volume["name"]: volume["secret"]["secretName"]
        for volume in pod["volumes"]
        if "secret" in volume
    }
    assert set(volumes.values()) == {key["secret"], token["secret"]}
    # Each file that a variable names lies in a volume, under the name that its secret has.
    made = {key["secret"]: set(key["data"]), token["secret"]: set(token["data"])}
    (agent,) = pod["initContainers"]
    mounts = {mount["mountPath"]: mount["name"] for mount in agent["volumeMounts"]}
    files = [Path(each["value"]) for each in agent["env"] if each["name"].endswith("_FILE")]
    assert len(files) == 2
    assert all(file.name in made[volumes[mounts[str(file.parent)]]] for file in files)


def test_kubernetes_from_the_readme(tmp_path: Path) -> None:
    needs("openssl")
    terminal = Terminal(tmp_path, "kubectl")
    in_a_clone(terminal)
    terminal.types("clef-agent keygen --output age.key")  # as a minute before, on the page
    terminal.types(block("README.md", "Kubernetes").text)
    assert_deployed(terminal)


def test_kubernetes_from_its_own_page(tmp_path: Path) -> None:
    needs("openssl")
    terminal = Terminal(tmp_path, "kubectl")
    shutil.copy(RELEASE / "kubernetes" / "deployment.yaml", terminal.work)
    said = terminal.types(block("release/kubernetes/README.md", "Applying").text)
    assert re.search(r"\bage1[0-9a-z]+", said)
    assert not (terminal.work / "age.key").exists()
    assert_deployed(terminal)


# --- Amazon -----------------------------------------------------------------------------------


def assert_registered(terminal: Terminal) -> None:
    """Fails unless the token that was made is the one that the task reads."""
    secret, task = only(terminal.calls, "aws")
    assert secret["operation"] == "CreateSecret"
    assert re.fullmatch(r"[0-9a-f]{64}", secret["request"]["SecretString"])
    assert task["operation"] == "RegisterTaskDefinition"
    named = re.findall(r":secret:([\w/-]+)-\w{6}'", str(task["request"]))
    assert set(named) == {secret["request"]["Name"]}


def test_ecs_from_the_readme(tmp_path: Path) -> None:
    needs("openssl")
    terminal = Terminal(tmp_path, "aws")
    in_a_clone(terminal)
    terminal.types(block("README.md", "Amazon ECS").text)
    assert_registered(terminal)


def test_ecs_from_its_own_page(tmp_path: Path) -> None:
    needs("openssl")
    terminal = Terminal(tmp_path, "aws")
    shutil.copy(RELEASE / "ecs" / "task-definition.json", terminal.work)
    terminal.types(block("release/ecs/README.md", "clef-agent in Amazon ECS").text)
    assert_registered(terminal)


def test_lambda_from_the_readme(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "sam")
    in_a_clone(terminal)
    (terminal.work / LAYER).write_bytes(b"PK")
    terminal.types(block("README.md", "AWS Lambda").text)
    assert only(terminal.calls, "sam") == [{"local": [LAYER, "function/"]}]


def test_lambda_from_its_own_page(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "sam", "aws")
    in_a_clone(terminal)
    terminal.work = terminal.work / "release" / "lambda"
    (terminal.work / LAYER).write_bytes(b"PK")
    terminal.types(block("release/lambda/README.md", "clef-agent in AWS Lambda").text)
    terminal.types(block("release/lambda/README.md", "clef-agent in AWS Lambda", 1).text)
    layer, function = only(terminal.calls, "aws")
    assert layer["request"]["CompatibleArchitectures"] == ["x86_64"]
    assert function["operation"] == "UpdateFunctionConfiguration"
    assert function["request"]["Layers"] == ["LAYER-VERSION-ARN"]


def test_the_variables_of_a_function_are_a_configuration(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path, "aws")
    terminal.types(block("docs/lambda.md", "AWS Lambda", 1).text)
    (function,) = only(terminal.calls, "aws")
    configured = config.load(function["request"]["Environment"]["Variables"], read_regular_file)
    assert isinstance(configured.source, S3SourceConfig)
    assert configured.warnings == ()


def test_a_wrapper_in_a_layer_passes_on_its_own_name(tmp_path: Path) -> None:
    installed = "/opt/clef-agent/clef-agent"
    assert f"exec {installed}\n" in (RELEASE / "lambda" / "extension.sh").read_text()
    terminal = Terminal(tmp_path)
    examples = {installed: str(terminal.programs / "clef-agent")}
    wrapper = tmp_path / "my-secrets"
    wrapper.write_text(with_each(block("docs/lambda.md", "AWS Lambda").text, examples))
    wrapper.chmod(0o755)
    with (
        serving(ArtifactStore(packed())) as store,
        serving_sandbox(Sandbox("my-secrets")) as sandbox,
    ):
        env = {**sandbox.environment, "CLEF_AGENT_SOURCE": store.url, "CLEF_AGENT_AGE_KEY": AGE_KEY}
        with AgentProcess(tmp_path, env, program=str(wrapper)) as agent:
            sandbox.wait_until_idle()
            assert sandbox.refusals == []
            assert agent.secrets().json == PAYLOAD
            assert sandbox.shut_down(agent.process).code == 0


# --- systemd ----------------------------------------------------------------------------------
# What is on its own page runs in a machine of its own: test_systemd_unit.py.


def test_systemd_from_the_readme(tmp_path: Path) -> None:
    needs("install")
    terminal = Terminal(tmp_path, "sudo", "systemctl")
    in_a_clone(terminal)
    (terminal.root / "etc/systemd/system").mkdir(parents=True)
    terminal.types(block("README.md", "systemd").text)
    installed = terminal.root / "etc/systemd/system/clef-agent.service"
    assert installed.read_bytes() == (RELEASE / "systemd" / "clef-agent.service").read_bytes()
    asked = [facts["command"] for facts in only(terminal.calls, "systemctl")]
    assert asked == ["daemon-reload", "enable"]


def test_what_systemd_needs_is_downloaded_and_proven(tmp_path: Path) -> None:
    needs("sha256sum")
    terminal = Terminal(tmp_path, "curl", "gh")
    released(terminal)
    terminal.types(block("release/systemd/README.md", "Getting the executable").text)
    unit = RELEASE / "systemd" / "clef-agent.service"
    assert (terminal.work / "clef-agent.service").read_bytes() == unit.read_bytes()
    assert (terminal.work / "clef-agent").is_file()
    assert len(only(terminal.calls, "gh")) == 1
