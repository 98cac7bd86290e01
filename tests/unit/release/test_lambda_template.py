"""The template for SAM, by CloudFormation's own rules, and true to the agent."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import yaml

from deployments import RELEASE, assert_are_variables, script

TEMPLATE = RELEASE / "lambda" / "template.yaml"
README = (RELEASE / "lambda" / "README.md").read_text("utf-8")


class Loader(yaml.SafeLoader):
    """YAML with CloudFormation's short functions, whose arguments stand for their values."""


def _argument(loader: Loader, tag: str, node: yaml.ScalarNode) -> object:
    return loader.construct_scalar(node)


Loader.add_multi_constructor("!", _argument)
RESOURCES = yaml.load(TEMPLATE.read_text("utf-8"), Loader)["Resources"]
LAYER, FUNCTION = RESOURCES["ClefAgent"]["Properties"], RESOURCES["Function"]["Properties"]


def test_cloudformation_finds_nothing_to_complain_of() -> None:
    lint = Path(sys.executable).with_name("cfn-lint")
    command = [str(lint), "--regions", "eu-west-1", "--", str(TEMPLATE)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_every_variable_exists() -> None:
    assert_are_variables(list(FUNCTION["Environment"]["Variables"]))


def test_what_is_written_goes_where_lambda_lets_it() -> None:
    variables = FUNCTION["Environment"]["Variables"]
    for name in ("CLEF_AGENT_TOKEN_FILE", "CLEF_AGENT_CACHE_PATH"):
        assert variables[name].startswith("/tmp/")


def test_the_function_has_the_layer_in_its_own_architecture() -> None:
    assert FUNCTION["Layers"] == ["ClefAgent"]
    assert FUNCTION["Architectures"] == LAYER["CompatibleArchitectures"] == ["x86_64"]
    assert LAYER["ContentUri"] == "clef-agent-lambda-x64.zip"


def test_the_example_of_the_readme_is_python() -> None:
    (example,) = re.findall(r"^```python\n(.*?)^```$", README, re.MULTILINE | re.DOTALL)
    compile(example, "app.py", "exec")


def test_the_layer_is_called_as_a_release_calls_it() -> None:
    names = script("container/publish.py")._MACHINES
    assert set(re.findall(r"clef-agent-lambda-(\w+)\.zip", README)) <= set(names)
