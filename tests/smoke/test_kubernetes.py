"""The Deployment's sidecar, with its volumes as the kubelet mounts them, and its probes."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent_process import TOKEN, AgentProcess, wait_for_copy
from artifact_store import ArtifactStore, serving
from deployments import PROGRAM, RELEASE
from fakes import AGE_KEY, PAYLOAD, packed

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="namespaces and other users need root"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
]

POD: dict[str, Any] = yaml.safe_load((RELEASE / "kubernetes" / "deployment.yaml").read_text())[
    "spec"
]["template"]["spec"]
(SIDECAR,) = POD["initContainers"]
(APPLICATION,) = POD["containers"]
GROUP = POD["securityContext"]["fsGroup"]

#: Volumes are mounted for this process only; whoever runs in there may do nothing else.
#: /run comes last: what is mounted lies below it.
IN_THE_POD = """
set -e
for path in /var/cache /run; do mount --bind "$1$path" "$path"; done
user=$2 group=$3
shift 3
exec setpriv --reuid="$user" --regid="$user" --groups="$group" \\
    --no-new-privs --bounding-set=-all "$@"
"""


def as_mounted(volume: Path, name: str, text: str) -> None:
    """A Secret, as the kubelet has it: links to a directory that it can exchange."""
    data = volume / "..2027_01_15"
    data.mkdir(parents=True)
    (data / name).write_text(text)
    os.chown(data / name, 0, GROUP)
    (data / name).chmod(0o440)
    (volume / "..data").symlink_to(data.name)
    (volume / name).symlink_to(f"..data/{name}")


@pytest.fixture
def root(executable: Path, is_one_file: bool) -> Iterator[Path]:
    """What the pod has in the places of its volumes; outside /tmp, which is private to nobody."""
    if is_one_file:
        pytest.skip("the image holds the folder")
    root = Path(f"/run/clef-agent-pod-{os.getpid()}")
    as_mounted(root / "run/secrets/clef-agent/key", "age.key", AGE_KEY)
    as_mounted(root / "run/secrets/clef-agent/token", "token", TOKEN)
    cache = root / "var/cache/clef-agent"
    cache.mkdir(parents=True)
    os.chown(cache, 0, GROUP)
    cache.chmod(0o2775)  # as an emptyDir is under fsGroup
    yield root
    shutil.rmtree(root)


def prefix(root: Path, user: int) -> tuple[str, ...]:
    return ("unshare", "--mount", "sh", "-c", IN_THE_POD, "sh", str(root), str(user), str(GROUP))


def variables(container: dict[str, Any]) -> dict[str, str]:
    return {variable["name"]: variable["value"] for variable in container["env"]}


def test_the_sidecar_serves_and_its_probes_and_the_application_find_it(
    root: Path, executable: Path, tmp_path: Path
) -> None:
    env = variables(SIDECAR)
    artifact = packed(
        identity=env["CLEF_AGENT_EXPECT_IDENTITY"],
        environment=env["CLEF_AGENT_EXPECT_ENVIRONMENT"],
    )
    inside = prefix(root, SIDECAR["securityContext"]["runAsUser"])
    with (
        serving(ArtifactStore(artifact)) as store,
        AgentProcess(tmp_path, env | {"CLEF_AGENT_SOURCE": store.url}, prefix=inside) as agent,
    ):
        for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
            command = SIDECAR[probe]["exec"]["command"]
            program = [str(executable) if word == PROGRAM else word for word in command]
            done = subprocess.run([*inside, *program], env=agent.env, check=False, timeout=60)
            assert done.returncode == 0, (probe, agent.said)
        assert agent.secrets().json == PAYLOAD
        given = variables(APPLICATION) | {"CLEF_ENDPOINT": f"http://127.0.0.1:{agent.port}"}
        asked = subprocess.run(
            # Of another user: the image of the application decides which.
            [*prefix(root, 1000), str(executable), "secrets"],
            env={"PATH": os.environ["PATH"], **given},
            capture_output=True,
            check=False,
            timeout=60,
        )
        assert asked.returncode == 0, asked.stderr
        cache = root.joinpath(env["CLEF_AGENT_CACHE_PATH"].lstrip("/"))
        wait_for_copy(cache)
        assert cache.stat().st_mode & 0o777 == 0o700
        assert agent.stop() == 0
        assert agent.err == ""
