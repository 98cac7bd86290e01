"""The Deployment: valid for the API, safe, and true to the agent."""

from __future__ import annotations

from typing import Any

import kubernetes_validate
import pytest
import yaml

from deployments import (
    IMAGE,
    PROGRAM,
    RELEASE,
    assert_are_variables,
    assert_runs,
)

TEXT = (RELEASE / "kubernetes" / "deployment.yaml").read_text("utf-8")
DEPLOYMENT: dict[str, Any] = yaml.safe_load(TEXT)
POD: dict[str, Any] = DEPLOYMENT["spec"]["template"]["spec"]
(AGENT,) = POD["initContainers"]
(APPLICATION,) = POD["containers"]
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")


# The first with native sidecars by default, and the newest that the schemas know.
@pytest.mark.parametrize("version", ["1.29", kubernetes_validate.latest_version()])
def test_the_api_takes_it(version: str) -> None:
    kubernetes_validate.validate(DEPLOYMENT, version, strict=True)


def test_the_schemas_would_find_a_slip() -> None:
    wrong = yaml.safe_load(TEXT.replace("readOnlyRootFilesystem", "readonlyRootFilesystem"))
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, "1.29", strict=True)


def test_the_agent_is_a_native_sidecar() -> None:
    assert AGENT["restartPolicy"] == "Always"
    assert AGENT["image"] == IMAGE


@pytest.mark.parametrize("probe", PROBES)
def test_each_probe_is_a_command_that_exists_and_outlasts_its_own_patience(probe: str) -> None:
    assert set(AGENT[probe]) & {"exec", "httpGet", "tcpSocket", "grpc"} == {"exec"}
    program, *arguments = AGENT[probe]["exec"]["command"]
    assert program == PROGRAM
    assert_runs(arguments)
    patience_s = float(arguments[-1]) if "--wait" in arguments else 5.0
    assert AGENT[probe]["timeoutSeconds"] > patience_s


def test_no_restart_for_want_of_secrets_and_no_traffic_without() -> None:
    assert AGENT["livenessProbe"]["exec"]["command"][1] == "health"
    assert AGENT["startupProbe"]["exec"]["command"][1] == "ready"
    assert AGENT["readinessProbe"]["exec"]["command"][1] == "ready"


@pytest.mark.parametrize("container", [AGENT, APPLICATION], ids=["agent", "application"])
def test_every_variable_exists(container: dict[str, Any]) -> None:
    assert_are_variables([variable["name"] for variable in container["env"]])


def test_what_is_secret_is_a_file_and_the_key_is_the_agents_alone() -> None:
    secrets = {volume["name"]: volume["secret"] for volume in POD["volumes"] if "secret" in volume}
    assert set(secrets) == {"key", "token"}
    assert all(secret["defaultMode"] == 0o440 for secret in secrets.values())
    assert POD["securityContext"]["fsGroup"] == AGENT["securityContext"]["runAsGroup"]
    for container, mounted in ((AGENT, {"key", "token"}), (APPLICATION, {"token"})):
        mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
        assert set(mounts) & set(secrets) == mounted
        # The kubelet never renews what is mounted by subPath.
        assert all("subPath" not in mount for mount in mounts.values())
        for variable in container["env"]:
            if variable["name"].endswith("_FILE"):
                directory, _, _ = variable["value"].rpartition("/")
                assert directory in {mounts[name]["mountPath"] for name in mounted}


def test_both_containers_have_the_same_token_file() -> None:
    token_files = [
        variable["value"]
        for container in (AGENT, APPLICATION)
        for variable in container["env"]
        if variable["name"] == "CLEF_AGENT_TOKEN_FILE"
    ]
    assert len(token_files) == 2
    assert len(set(token_files)) == 1


def test_the_agent_may_do_as_little_as_a_container_can() -> None:
    pod, own = POD["securityContext"], AGENT["securityContext"]
    assert pod["runAsNonRoot"] is True
    assert pod["seccompProfile"] == {"type": "RuntimeDefault"}
    assert own == {
        "runAsUser": 65532,
        "runAsGroup": 65532,
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert POD["automountServiceAccountToken"] is False
    assert "ports" not in AGENT
    assert AGENT["resources"]["limits"]["memory"]


def test_the_copy_on_disk_lies_in_a_volume() -> None:
    (volume,) = (volume for volume in POD["volumes"] if "emptyDir" in volume)
    (mount,) = (mount for mount in AGENT["volumeMounts"] if mount["name"] == volume["name"])
    (path,) = (v["value"] for v in AGENT["env"] if v["name"] == "CLEF_AGENT_CACHE_PATH")
    # Not the mount itself, which is root's and stays open to the group.
    assert path.startswith(mount["mountPath"] + "/")
