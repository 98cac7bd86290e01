"""The task definition: what ECS would take, safe, and true to the agent."""

from __future__ import annotations

import copy
import json
from typing import Any

import botocore.session
from botocore.validate import ParamValidator

from clef_agent.config import VARIABLES
from clef_agent.hardening import SECRET_VARIABLES
from deployments import IMAGE, PROGRAM, RELEASE, assert_are_variables, assert_runs

TASK: dict[str, Any] = json.loads((RELEASE / "ecs" / "task-definition.json").read_bytes())
AGENT, WAITS, APPLICATION = TASK["containerDefinitions"]


def report(task: dict[str, Any]) -> str:
    """What is wrong with ``task`` for RegisterTaskDefinition, by the service's own model."""
    service = botocore.session.get_session().get_service_model("ecs")
    shape = service.operation_model("RegisterTaskDefinition").input_shape
    assert shape is not None
    return str(ParamValidator().validate(task, shape).generate_report())


def test_ecs_takes_it() -> None:
    assert report(TASK) == ""


def test_the_model_would_find_a_slip() -> None:
    wrong = copy.deepcopy(TASK)
    wrong["containerDefinitions"][0]["readOnlyRootFilesystem"] = True
    assert "readOnlyRootFilesystem" in report(wrong)


def test_the_agent_is_essential_and_what_waits_for_it_is_not() -> None:
    assert (AGENT["essential"], WAITS["essential"], APPLICATION["essential"]) == (True, False, True)
    assert AGENT["image"] == WAITS["image"] == IMAGE


def test_the_application_starts_when_secrets_can_be_served() -> None:
    conditions = {
        dependency["containerName"]: dependency["condition"]
        for dependency in APPLICATION["dependsOn"]
    }
    assert conditions == {AGENT["name"]: "HEALTHY", WAITS["name"]: "SUCCESS"}
    assert WAITS["command"][0] == "ready"
    assert_runs(WAITS["command"])
    assert float(WAITS["command"][-1]) < WAITS["startTimeout"] <= 120


def test_the_health_check_is_a_command_that_exists_and_outlasts_its_own_patience() -> None:
    check = AGENT["healthCheck"]
    kind, program, *arguments = check["command"]
    assert (kind, program) == ("CMD", PROGRAM)
    assert arguments == ["health"]
    assert_runs(arguments)
    assert check["timeout"] > 5


def test_every_variable_exists_and_what_is_secret_comes_from_secrets_manager() -> None:
    for container in (AGENT, APPLICATION):
        names = [variable["name"] for variable in container["environment"]]
        assert_are_variables(names)
        assert not (set(names) & set(SECRET_VARIABLES)) - {"CLEF_AGENT_SOURCE"}
        (token,) = container["secrets"]
        assert token["name"] == "CLEF_AGENT_TOKEN"
        assert token["name"] in VARIABLES
        assert ":secretsmanager:" in token["valueFrom"]
    assert AGENT["secrets"] == APPLICATION["secrets"]


def test_the_agent_may_do_as_little_as_a_container_can() -> None:
    for container in (AGENT, WAITS):
        assert container["user"] == "65532:65532"
        assert container["readonlyRootFilesystem"] is True
        assert container["linuxParameters"]["capabilities"] == {"drop": ["ALL"]}
        assert "portMappings" not in container
