"""What others on the machine see of a running agent, and what they do not."""

from __future__ import annotations

import http.client
import os
import re
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess, running
from artifact_store import ArtifactStore, serving
from fakes import AGE_KEY, PAYLOAD, packed

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

NOBODY = 65534
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    return {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}


def proc(agent: AgentProcess, name: str) -> str:
    return Path(f"/proc/{agent.process.pid}/{name}").read_text()


def listening_addresses(agent: AgentProcess) -> list[str]:
    """The local addresses of the agent's own listening TCP sockets, as /proc writes them."""
    links = Path(f"/proc/{agent.process.pid}/fd").iterdir()
    inodes = {match[1] for link in links if (match := re.match(r"socket:\[(\d+)]", _target(link)))}
    found = []
    for table in ("tcp", "tcp6"):
        for line in proc(agent, f"net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and fields[3] == "0A":  # LISTEN
                found.append(fields[1])
    return found


def _target(link: Path) -> str:
    try:
        return str(link.readlink())
    except FileNotFoundError:  # closed meanwhile
        return ""


def test_no_core_is_dumped_and_no_file_is_left_readable(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(tmp_path, env) as agent:
        (limit,) = re.findall(r"Max core file size +(\d+) +(\d+)", proc(agent, "limits"))
        (umask,) = re.findall(r"Umask:\s+(\d+)", proc(agent, "status"))
    assert limit == ("0", "0")
    assert umask == "0077"


def test_only_the_configured_port_listens_and_only_on_loopback(
    tmp_path: Path, env: dict[str, str]
) -> None:
    with running(tmp_path, env) as agent:
        assert listening_addresses(agent) == [f"0100007F:{agent.port:04X}"]


def test_the_token_file_is_all_that_is_written_and_goes_with_the_agent(
    tmp_path: Path, env: dict[str, str]
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    places = {"TMPDIR": str(home), "HOME": str(home), "XDG_CACHE_HOME": str(home)}
    without = ("CLEF_AGENT_TOKEN",)
    with AgentProcess(home, {**env, **places}, without=without) as agent:
        agent.wait_until_ready()
        agent.request("/v1/metrics")
        written = [path for path in home.rglob("*") if not path.is_dir()]
        assert written == [agent.runtime_directory / f"token-{agent.port}"]
        assert agent.stop() == 0
    assert not [path for path in home.rglob("*") if not path.is_dir()]


def test_the_unix_socket_serves_its_owner_without_a_host_check(
    tmp_path: Path, env: dict[str, str]
) -> None:
    path = tmp_path / "agent.sock"
    with running(tmp_path, {**env, "CLEF_AGENT_SOCKET": str(path)}) as agent:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        connection = http.client.HTTPConnection("any.example")
        connection.sock = socket.socket(socket.AF_UNIX)
        connection.sock.connect(str(path))
        connection.request("GET", "/v1/secrets")
        refused = connection.getresponse()
        refused.read()
        connection.request("GET", "/v1/secrets", headers={"Authorization": f"Bearer {TOKEN}"})
        served = connection.getresponse()
        assert (refused.status, served.status) == (401, 200)
        assert served.read() == agent.secrets().body
        connection.close()
        assert agent.stop() == 0
    assert not path.exists()


# case 5
def test_no_secret_is_written_to_a_stream_in_a_whole_life(tmp_path: Path) -> None:
    secrets = {
        "token": TOKEN,
        "key": AGE_KEY.removeprefix("AGE-SECRET-KEY-"),
        "bearer": "source-bearer-secret",
        "signature": "signed-query-secret",
        "value": "postgres://db/app",
    }
    with serving(ArtifactStore(packed())) as store:
        env = {
            "CLEF_AGENT_SOURCE": f"{store.url}?X-Amz-Signature={secrets['signature']}",
            "CLEF_AGENT_SOURCE_TOKEN": secrets["bearer"],
            "CLEF_AGENT_AGE_KEY": AGE_KEY,
            "CLEF_AGENT_LOG_LEVEL": "debug",
            "CLEF_AGENT_CACHE_PATH": str(tmp_path / "cache"),
        }
        with running(tmp_path, env) as agent:
            assert agent.secrets().json == PAYLOAD
            bodies = [agent.request("/v1/health").body, agent.request("/v1/metrics").body]
            for status in (500, 403, 404):
                store.status = status
                bodies += [agent.refresh().body]
            store.status, store.body = 200, b"no artifact"
            bodies += [agent.refresh().body]
            assert agent.stop() == 0
        assert store.authorizations[0] == f"Bearer {secrets['bearer']}"
    with AgentProcess(tmp_path, {**env, "CLEF_AGENT_CACHE_TTL": "1"}) as misconfigured:
        assert misconfigured.exit_code() == 1
    with AgentProcess(tmp_path, env, without=("CLEF_AGENT_CACHE_PATH",)) as gone:
        gone.wait_for("trying again")
    told = "\n".join(
        (agent.said, misconfigured.said, gone.said, *(body.decode() for body in bodies))
    )
    assert [name for name, secret in secrets.items() if secret in told] == []


# case 5
def test_userinfo_of_a_source_is_used_and_not_told(tmp_path: Path) -> None:
    with serving(ArtifactStore(packed())) as store:
        source = store.url.replace("http://", "http://reader:userinfo-secret@")
        env = {"CLEF_AGENT_SOURCE": source, "CLEF_AGENT_AGE_KEY": AGE_KEY}
        with running(tmp_path, env) as agent:
            store.status = 401
            bodies = agent.refresh().body
            assert agent.stop() == 0
    assert (store.authorizations[0] or "").startswith("Basic ")
    assert "userinfo-secret" not in agent.said + bodies.decode()
    assert f"[clef-agent] source: {store.url}" in agent.out_lines


# --- as another user --------------------------------------------------------------------------


@pytest.fixture
def home_of_nobody() -> Iterator[Path]:
    """A directory of the user nobody, where such processes can run; skips where they cannot."""
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("another user's processes need root, and setpriv (util-linux)")
    imports = [*AS_NOBODY, sys.executable, "-c", "import clef_agent"]
    if subprocess.run(imports, capture_output=True, check=False, cwd="/").returncode:
        pytest.skip("this interpreter, or the package, cannot be read by the user nobody")
    with tempfile.TemporaryDirectory() as name:
        home = Path(name)
        home.chmod(0o755)
        yield home


def given(path: Path, data: bytes) -> Path:
    """The file ``path`` with ``data``, the user nobody's own."""
    path.write_bytes(data)
    os.chown(path, NOBODY, NOBODY)
    return path


def test_another_process_of_the_same_user_cannot_read_the_environment(
    home_of_nobody: Path,
) -> None:
    source = given(home_of_nobody / "artifact.json", packed())
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with AgentProcess(home_of_nobody, env, prefix=AS_NOBODY) as agent:
        agent.wait_until_ready()
        spy = ["cat", f"/proc/{agent.process.pid}/environ"]
        read = subprocess.run([*AS_NOBODY, *spy], capture_output=True, check=False)
        assert agent.secrets().json == PAYLOAD
    assert (read.returncode, read.stdout) == (1, b"")
    assert b"Permission denied" in read.stderr


# case 26
def test_a_key_file_of_another_user_ends_the_start(home_of_nobody: Path) -> None:
    source = given(home_of_nobody / "artifact.json", packed())
    key_file = home_of_nobody / "key"
    key_file.write_text(AGE_KEY)
    key_file.chmod(0o600)
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY_FILE": str(key_file)}
    with AgentProcess(home_of_nobody, env, prefix=AS_NOBODY) as agent:
        assert agent.exit_code() == 1
    assert "CLEF_AGENT_AGE_KEY_FILE cannot be read: Permission denied" in agent.err
