"""What others on the machine see of a running agent, and what they do not."""

from __future__ import annotations

import http.client
import os
import re
import resource
import shutil
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent_process import TOKEN, AgentProcess, eventually, free_port, running, wait_for_copy
from artifact_store import ArtifactStore, serving
from fakes import AGE_KEY, PAYLOAD, packed
from process_tree import descriptors, is_ours, open_to, runs, tree_of

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="/proc is Linux's")

NOBODY = 65534
#: A user that has nothing on the machine: whatever it owns afterwards, the agent has left there.
SOMEBODY = 54_321
PROGRAM = ("exec", "--watch", "restart", "--", "sleep", "600")
#: Where any user may leave something.
COMMON_PLACES = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock", "/dev/mqueue")
AS_NOBODY = ("setpriv", f"--reuid={NOBODY}", f"--regid={NOBODY}", "--clear-groups", "--")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    return {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}


def proc(agent: AgentProcess, name: str) -> str:
    return Path(f"/proc/{agent.process.pid}/{name}").read_text()


def listening_addresses(agent: AgentProcess) -> list[str]:
    """The local addresses of the TCP sockets that listen in the agent's processes, and those of
    bound UDP sockets, as /proc writes them.
    """
    targets = [what for pid in tree_of(agent.process.pid) for what in descriptors(pid).values()]
    inodes = {match[1] for what in targets if (match := re.match(r"socket:\[(\d+)]", what))}
    found = []
    for table in ("tcp", "tcp6", "udp", "udp6"):
        for line in proc(agent, f"net/{table}").splitlines()[1:]:
            fields = line.split()
            if fields[9] in inodes and (fields[3] == "0A" or table.startswith("udp")):  # LISTEN
                found.append(fields[1])
    return found


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


@pytest.fixture(params=["daemon", "just-in-time", "exec"])
def agent_of_nobody(request: pytest.FixtureRequest, home_of_nobody: Path) -> Iterator[AgentProcess]:
    """An agent, or the one that looks after a program, that serves or runs it by now."""
    source = given(home_of_nobody / "artifact.json", packed())
    env = {"CLEF_AGENT_SOURCE": str(source), "CLEF_AGENT_AGE_KEY": AGE_KEY}
    if request.param == "just-in-time":
        env["CLEF_AGENT_CACHE_TTL"] = "0"
    arguments = PROGRAM if request.param == "exec" else ()
    with AgentProcess(home_of_nobody, env, *arguments, prefix=AS_NOBODY) as agent:
        if request.param == "exec":
            eventually(lambda: runs("sleep", agent.process.pid), "the program's start")
        else:
            agent.wait_until_ready()
            assert agent.secrets().json == PAYLOAD
        yield agent


def test_no_process_of_the_tree_lets_its_own_user_look_into_it(
    agent_of_nobody: AgentProcess,
) -> None:
    ours = [pid for pid in tree_of(agent_of_nobody.process.pid) if is_ours(pid)]
    assert ours
    for pid in ours:
        owner = Path(f"/proc/{pid}/status").read_text()
        assert f"Uid:\t{NOBODY}\t{NOBODY}\t{NOBODY}\t{NOBODY}" in owner
        # A process that must not be dumped is root's in /proc.
        assert [Path(f"/proc/{pid}/{name}").stat().st_uid for name in ("mem", "environ")] == [0, 0]
        assert open_to(AS_NOBODY, pid) == []


def test_the_program_of_exec_gets_its_limits_back_and_an_agent_takes_its_own(
    agent_of_nobody: AgentProcess,
) -> None:
    is_exec = "exec" in Path(f"/proc/{agent_of_nobody.process.pid}/cmdline").read_text()
    serving = tree_of(agent_of_nobody.process.pid)[-1]
    (umask,) = re.findall(r"Umask:\s+(\d+)", Path(f"/proc/{serving}/status").read_text())
    limits = Path(f"/proc/{serving}/limits").read_text()
    (core,) = re.findall(r"Max core file size +(\S+) +(\S+)", limits)
    if is_exec:
        assert (umask, core) == ("0022", _core_limit())
    else:
        assert (umask, core) == ("0077", ("0", "0"))


def _core_limit() -> tuple[str, str]:
    soft, hard = (
        "unlimited" if one == resource.RLIM_INFINITY else str(one)
        for one in resource.getrlimit(resource.RLIMIT_CORE)
    )
    return soft, hard


def test_only_one_port_is_open_and_nothing_that_a_child_would_inherit(
    agent_of_nobody: AgentProcess,
) -> None:
    is_exec = "exec" in Path(f"/proc/{agent_of_nobody.process.pid}/cmdline").read_text()
    expected = [] if is_exec else [f"0100007F:{agent_of_nobody.port:04X}"]
    assert listening_addresses(agent_of_nobody) == expected
    for pid in filter(is_ours, tree_of(agent_of_nobody.process.pid)):
        for number, what in descriptors(pid).items():
            if number <= 2:
                assert what == "/dev/null" or what.startswith("pipe:")
                continue
            assert what == "/dev/null" or what.startswith(("socket:", "pipe:", "anon_inode:"))
            info = Path(f"/proc/{pid}/fdinfo/{number}").read_text()
            (flags,) = re.findall(r"flags:\s+(\d+)", info)
            assert int(flags, 8) & os.O_CLOEXEC, what


def test_what_it_writes_is_its_token_and_its_copy_and_nobody_else_may_read_them(
    home_of_nobody: Path,
) -> None:
    user = ("setpriv", f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups", "--")
    port = free_port()
    home, runtime = home_of_nobody / "home", home_of_nobody / f"run-{port}"
    for directory in (home, runtime):
        directory.mkdir(mode=0o700)
        os.chown(directory, SOMEBODY, SOMEBODY)
    places = ("HOME", "TMPDIR", "XDG_CACHE_HOME", "XDG_CONFIG_HOME", "XDG_STATE_HOME")
    with serving(ArtifactStore(packed())) as store:
        env = {
            "CLEF_AGENT_SOURCE": store.url,
            "CLEF_AGENT_AGE_KEY": AGE_KEY,
            "CLEF_AGENT_PORT": str(port),
            "CLEF_AGENT_CACHE_PATH": str(home / "cache"),
            **dict.fromkeys(places, str(home)),
        }
        with AgentProcess(home_of_nobody, env, prefix=user, without=("CLEF_AGENT_TOKEN",)) as agent:
            agent.wait_until_ready()
            token = (runtime / f"token-{port}").read_text().strip()
            assert agent.request("/v1/secrets", token=token).json == PAYLOAD
            assert agent.request("/v1/metrics").status == 200
            cache = home / "cache"
            wait_for_copy(cache)
            written = {path for path in home_of_nobody.rglob("*") if path.is_file()}
            assert written == {runtime / f"token-{port}", *cache.iterdir()}
            assert {stat.S_IMODE(path.stat().st_mode) for path in written} == {0o600}
            assert stat.S_IMODE(cache.stat().st_mode) == 0o700
            told = [path.read_bytes() for path in written]
            values = ("postgres://db/app", "app-key", "stripe-key")
            assert not [value for value in values if any(value.encode() in data for data in told)]
            assert agent.stop() == 0
    elsewhere = [
        path
        for place in COMMON_PLACES
        for path in Path(place).glob("**/*")
        if not path.is_relative_to(home_of_nobody) and _owner(path) == SOMEBODY
    ]
    assert elsewhere == []


def _owner(path: Path) -> int:
    try:
        return path.lstat().st_uid
    except FileNotFoundError:  # another test's, and gone
        return -1


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
