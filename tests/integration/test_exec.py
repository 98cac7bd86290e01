"""``clef-agent exec`` with real programs: variables, signals, ends, rotations, orphans."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Self

import pytest

from agent_process import PATIENCE_S, TOKEN, AgentProcess, eventually, replace_file, running
from command_line import agent_command
from fakes import AGE_KEY, OTHER_AGE_KEY, changed, packed

#: "A restart on rotation within 2 s", and what a busy machine adds.
RESTARTED_WITHIN_S = 2.0 + 1.0
PAYLOAD = {"app": {"KEY": "first"}}
SHOW = 'echo "KEY=$app__KEY"'


@pytest.fixture(autouse=True)
def hangups_count() -> Iterator[None]:
    """A shell cannot trap what was ignored when it began, as nohup has it for a whole test run."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact.json"
    path.write_bytes(packed(PAYLOAD))
    return path


@pytest.fixture
def source(artifact: Path) -> dict[str, str]:
    return {"CLEF_AGENT_SOURCE": str(artifact), "CLEF_AGENT_AGE_KEY": AGE_KEY}


every_way = pytest.mark.parametrize("options", [(), ("--watch", "restart")])


def command(*arguments: str) -> list[str]:
    return [*agent_command(), "exec", *arguments]


def run(
    *arguments: str, env: Mapping[str, str], prefix: tuple[str, ...] = ()
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*prefix, *command(*arguments)],
        env={"PATH": os.environ["PATH"], **env},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )


#: Makes standard input the controlling terminal of a session of one's own.
IN_A_TERMINAL = (
    "import fcntl, os, sys, termios\n"
    "fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"
    "os.execvp(sys.argv[1], sys.argv[1:])\n"
)


class Running:
    """An ``exec`` under way, with what its program has written."""

    def __init__(
        self,
        tmp_path: Path,
        *arguments: str,
        env: Mapping[str, str],
        prefix: tuple[str, ...] = (),
        terminal: int | None = None,
    ) -> None:
        self.output = tmp_path / "output"
        if terminal is not None:
            prefix = (sys.executable, "-c", IN_A_TERMINAL, *prefix)
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [*prefix, *command(*arguments)],
                env={"PATH": os.environ["PATH"], **env},
                stdin=subprocess.DEVNULL if terminal is None else terminal,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def said(self) -> str:
        return self.output.read_text()

    def wait_for(self, words: str) -> None:
        eventually(lambda: words in self.said, f"{words!r} in {self.said!r}")

    def ended(self) -> int:
        return self.process.wait(PATIENCE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)


# --- what the program gets ------------------------------------------------------------------------


def test_secrets_come_straight_from_a_configured_source(source: dict[str, str]) -> None:
    done = run("--", "sh", "-c", SHOW, env=source)
    assert (done.returncode, done.stdout, done.stderr) == (0, "KEY=first\n", "")


def test_secrets_come_from_the_running_agent_where_no_source_is_configured(
    source: dict[str, str], tmp_path: Path
) -> None:
    with running(tmp_path, source) as agent:
        env = {"CLEF_ENDPOINT": f"http://127.0.0.1:{agent.port}", "CLEF_AGENT_TOKEN": TOKEN}
        done = run(
            "--strip-namespace", "--prefix", "MY_", "--", "sh", "-c", "echo $MY_KEY", env=env
        )
        assert (done.returncode, done.stdout) == (0, "first\n")


def test_without_an_agent_and_a_source_it_says_so() -> None:
    done = run("--", "true", env={"CLEF_ENDPOINT": "http://127.0.0.1:1"})
    assert done.returncode == 1
    assert "no agent listens" in done.stderr


def test_the_agents_own_secrets_do_not_reach_the_program(
    source: dict[str, str], tmp_path: Path
) -> None:
    own = {
        **source,
        "CLEF_AGENT_TOKEN": "own-token",
        "CLEF_AGENT_ID": "kept",
        "MINE": "kept",
        "CLEF_AGENT_TELEMETRY_URL": "https://u:own-password@collector.example/",
    }
    done = run(
        "--", sys.executable, "-c", "import os, json; print(json.dumps(dict(os.environ)))", env=own
    )
    env = json.loads(done.stdout)
    assert env["app__KEY"] == "first"
    assert env["MINE"] == env["CLEF_AGENT_ID"] == "kept"
    for name in ("AGE_KEY", "TOKEN", "SOURCE", "TELEMETRY_URL"):
        assert f"CLEF_AGENT_{name}" not in env
    assert not any(secret in done.stdout for secret in (AGE_KEY, "own-token", "own-password"))


def test_limits_umask_and_signals_are_those_that_it_was_started_with(
    source: dict[str, str],
) -> None:
    program = "umask; ulimit -c; ulimit -Sn; grep -E 'SigIgn|SigBlk' /proc/self/status"
    prefix = ("sh", "-c", 'umask 022; ulimit -Sn 512; exec "$@"', "sh")
    through = run("--", "sh", "-c", program, env=source, prefix=prefix)
    plain = subprocess.run(
        [*prefix, "sh", "-c", program],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=True,
        timeout=PATIENCE_S,
    )
    assert through.returncode == 0, through.stderr
    assert through.stdout == plain.stdout
    watched = run("--watch", "restart", "--", "sh", "-c", program, env=source, prefix=prefix)
    assert watched.stdout == plain.stdout


@every_way
@pytest.mark.parametrize("more", [{}, {"LANG": "C"}, {"LC_CTYPE": "C.UTF-8"}], ids=str)
def test_the_program_gets_what_was_there_and_the_secrets_and_nothing_else(
    source: dict[str, str], options: tuple[str, ...], more: dict[str, str]
) -> None:
    done = run(*options, "--", "/usr/bin/env", env={**source, **more})
    got = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert got == {"PATH": os.environ["PATH"], **more, "app__KEY": "first"}


@every_way
def test_what_was_ignored_and_what_was_open_stays_so(
    source: dict[str, str], options: tuple[str, ...], tmp_path: Path
) -> None:
    (tmp_path / "inherited").write_text("from descriptor 7")
    setting = f"trap '' HUP QUIT; exec 7<{tmp_path}/inherited; exec \"$@\""
    program = "grep SigIgn /proc/self/status; cat <&7"
    done = run(*options, "--", "sh", "-c", program, env=source, prefix=("sh", "-c", setting, "sh"))
    ignored, inherited = done.stdout.splitlines()
    numbers = int(ignored.split()[1], 16)
    assert numbers == 1 << signal.SIGHUP - 1 | 1 << signal.SIGQUIT - 1
    assert inherited == "from descriptor 7"


@every_way
def test_no_signal_is_blocked_that_was_not(
    source: dict[str, str], options: tuple[str, ...]
) -> None:
    # Not by way of a shell: that clears what is blocked.
    done = run(*options, "--", "grep", "-E", "SigBlk|SigIgn", "/proc/self/status", env=source)
    assert [int(line.split()[1], 16) for line in done.stdout.splitlines()] == [0, 0]


@every_way
def test_the_locale_does_not_decide_what_the_program_reads(
    source: dict[str, str], options: tuple[str, ...], artifact: Path
) -> None:
    replace_file(artifact, packed({"KEY": "grün ☃"}))
    ascii_only = {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0", "PYTHONUTF8": "0"}
    done = run(*options, "--", "sh", "-c", 'printf %s "$KEY"', env={**source, **ascii_only})
    assert (done.returncode, done.stdout) == (0, "grün ☃"), done.stderr


def test_a_dangerous_name_stops_before_the_program_runs(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    replace_file(artifact, packed({"LD_PRELOAD": "/tmp/evil.so", "KEY": "k"}))
    marker = tmp_path / "ran"
    done = run("--", "touch", str(marker), env=source)
    assert done.returncode == 1
    assert "LD_PRELOAD" in done.stderr
    assert "/tmp/evil.so" not in done.stderr
    assert not marker.exists()
    done = run("--skip-invalid", "--", "sh", "-c", "echo $KEY,$LD_PRELOAD", env=source)
    assert (done.returncode, done.stdout) == (0, "k,\n")
    assert "LD_PRELOAD is left out" in done.stderr


@pytest.mark.parametrize(
    "fields", [{"revokedAt": "2026-01-01T00:00:00Z"}, {"expiresAt": "2020-01-01"}]
)
def test_an_artifact_that_must_not_be_served_runs_nothing(
    source: dict[str, str], artifact: Path, fields: dict[str, str], tmp_path: Path
) -> None:
    replace_file(artifact, changed(artifact.read_bytes(), **fields))
    done = run("--", "touch", str(tmp_path / "ran"), env=source)
    assert done.returncode == 1
    assert not (tmp_path / "ran").exists()


def test_a_wrong_key_is_one_failure_and_a_hint(source: dict[str, str]) -> None:
    done = run("--", "true", env={**source, "CLEF_AGENT_AGE_KEY": OTHER_AGE_KEY})
    assert done.returncode == 1
    assert "age cannot open it" in done.stderr
    assert "hint:" in done.stderr


def test_options_of_the_program_are_its_own(source: dict[str, str]) -> None:
    done = run("--", "echo", "--watch", "-h", "--", "--only", env=source)
    assert done.stdout == "--watch -h -- --only\n"
    assert run("--watch", "sometimes", "--", "true", env=source).returncode == 2
    assert run("--watch", "signal=NONE", "--", "true", env=source).returncode == 2
    assert run(env=source).returncode == 2


# --- how it ends ----------------------------------------------------------------------------------


@every_way
@pytest.mark.parametrize(
    ("script", "code"), [("exit 0", 0), ("exit 7", 7), ("kill -9 $$", None), ("kill -15 $$", None)]
)
def test_the_exit_code_is_the_programs(
    source: dict[str, str], options: tuple[str, ...], script: str, code: int | None
) -> None:
    done = run(*options, "--", "sh", "-c", script, env=source)
    number = int(script.split()[1][1:]) if code is None else 0
    if code is not None:
        assert done.returncode == code
    elif options:
        assert done.returncode == 128 + number
    else:  # the program has taken our place, and dies by the signal itself
        assert done.returncode == -number


@every_way
def test_a_command_that_cannot_run_ends_as_in_a_shell(
    source: dict[str, str], options: tuple[str, ...], tmp_path: Path
) -> None:
    assert run(*options, "--", "no-such-command-here", env=source).returncode == 127
    plain = tmp_path / "plain"
    plain.write_text("")
    assert run(*options, "--", str(plain), env=source).returncode == 126


@every_way
@pytest.mark.parametrize("name", ["TERM", "INT", "HUP", "USR1", "USR2"])
def test_a_signal_reaches_the_program(
    source: dict[str, str], options: tuple[str, ...], name: str, tmp_path: Path
) -> None:
    script = f"trap 'echo got {name}; exit 3' {name}; echo ready; while :; do sleep 0.05; done"
    with Running(tmp_path, *options, "--", "sh", "-c", script, env=source) as under_way:
        under_way.wait_for("ready")
        under_way.process.send_signal(signal.Signals[f"SIG{name}"])
        assert under_way.ended() == 3
        assert f"got {name}" in under_way.said


COUNTS_INTERRUPTS = (
    "import signal, time\n"
    "signal.signal(signal.SIGINT, lambda *_: print('interrupted'))\n"
    "print('ready')\n"
    "while True: time.sleep(60)\n"
)


@pytest.mark.skipif(sys.platform != "linux", reason="who sent a signal is Linux's to tell")
def test_what_a_terminal_sends_to_both_reaches_the_program_once(
    source: dict[str, str], tmp_path: Path
) -> None:
    program = (sys.executable, "-uc", COUNTS_INTERRUPTS)
    terminal, its_end = os.openpty()
    under_way = Running(
        tmp_path, "--watch", "restart", "--", *program, env=source, terminal=its_end
    )
    os.close(its_end)
    with under_way:
        under_way.wait_for("ready")
        for times in range(1, 31):  # two that meet become one: once would prove little
            os.write(terminal, b"\x03")  # Ctrl+C
            eventually(lambda: under_way.said.count("interrupted") >= times, "an interrupt")  # noqa: B023
        under_way.process.send_signal(signal.SIGUSR2)  # passed on behind whatever came before
        assert under_way.ended() == 128 + signal.SIGUSR2
        assert under_way.said.count("interrupted") == 30
    os.close(terminal)


def test_a_signal_sent_to_a_foreground_process_reaches_the_program(
    source: dict[str, str], tmp_path: Path
) -> None:
    script = "trap 'echo got it; exit 3' QUIT; echo ready; while :; do sleep 0.05; done"
    terminal, its_end = os.openpty()
    under_way = Running(
        tmp_path, "--watch", "restart", "--", "sh", "-c", script, env=source, terminal=its_end
    )
    os.close(its_end)
    with under_way:
        under_way.wait_for("ready")
        under_way.process.send_signal(signal.SIGQUIT)  # what nginx is stopped by
        assert under_way.ended() == 3
    os.close(terminal)


def test_a_wish_to_end_before_the_program_began_is_heard(tmp_path: Path) -> None:
    env = {"CLEF_AGENT_SOURCE": "http://127.0.0.1:1/a", "CLEF_AGENT_AGE_KEY": AGE_KEY}
    with Running(tmp_path, "--watch", "restart", "--", "true", env=env) as under_way:
        under_way.wait_for("fetch failed")
        under_way.process.send_signal(signal.SIGTERM)
        assert under_way.ended() == 128 + signal.SIGTERM


# --- watching -------------------------------------------------------------------------------------

COUNTING = "trap 'echo asked to end; exit 0' TERM; " + SHOW + "; while :; do sleep 0.05; done"


@pytest.fixture(params=["source", "agent"])
def watched(
    request: pytest.FixtureRequest, source: dict[str, str], tmp_path: Path
) -> Iterator[dict[str, str]]:
    if request.param == "source":
        yield source
        return
    with running(tmp_path, source) as agent:
        yield {"CLEF_ENDPOINT": f"http://127.0.0.1:{agent.port}", "CLEF_AGENT_TOKEN": TOKEN}


def test_new_secrets_restart_the_program_soon(
    watched: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", COUNTING, env=watched) as child:
        child.wait_for("KEY=first")
        began = time.monotonic()
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        child.wait_for("KEY=second")
        assert time.monotonic() - began < RESTARTED_WITHIN_S
        assert "asked to end" in child.said
        child.process.send_signal(signal.SIGTERM)
        assert child.ended() == 0


def test_new_secrets_send_a_signal(watched: dict[str, str], artifact: Path, tmp_path: Path) -> None:
    script = "trap 'echo told' HUP; echo ready; while :; do sleep 0.05; done"
    with Running(tmp_path, "--watch", "signal=HUP", "--", "sh", "-c", script, env=watched) as child:
        child.wait_for("ready")
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        child.wait_for("told")


def test_secrets_that_cannot_be_variables_leave_the_program_as_it_is(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", COUNTING, env=source) as child:
        child.wait_for("KEY=first")
        replace_file(artifact, packed({"app": {"KEY": "second"}, "LD_PRELOAD": "x"}))
        child.wait_for("goes on with the secrets that it has")
        assert "asked to end" not in child.said
        replace_file(artifact, packed({"app": {"KEY": "third"}}))
        child.wait_for("KEY=third")


def test_a_program_that_ends_by_itself_ends_the_watching(
    source: dict[str, str], tmp_path: Path
) -> None:
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", "exit 5", env=source) as child:
        assert child.ended() == 5


def test_a_program_that_lives_on_after_a_signal_is_still_started_anew(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    script = f"trap 'echo threads' QUIT; {COUNTING}"
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", script, env=source) as child:
        child.wait_for("KEY=first")
        child.process.send_signal(signal.SIGQUIT)
        child.wait_for("threads")
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        child.wait_for("KEY=second")


def test_a_program_that_takes_its_time_to_end_is_not_started_anew(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    script = f"trap 'echo draining' TERM; trap 'exit 4' USR1; {SHOW}; while :; do sleep 0.05; done"
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", script, env=source) as child:
        child.wait_for("KEY=first")
        child.process.send_signal(signal.SIGTERM)
        child.wait_for("draining")
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        time.sleep(2.5)  # more than a look at the file, and a restart, would take
        child.process.send_signal(signal.SIGUSR1)
        assert child.ended() == 4
        assert child.said.count("draining") == 1
        assert "second" not in child.said


def test_a_program_that_does_not_end_when_asked_is_ended_and_started_anew(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    script = f"trap '' TERM; {SHOW}; while :; do sleep 0.05; done"
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", script, env=source) as child:
        child.wait_for("KEY=first")
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        child.wait_for("KEY=second")


def test_an_artifact_with_the_same_secrets_disturbs_nobody(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", COUNTING, env=source) as child:
        child.wait_for("KEY=first")
        replace_file(artifact, packed(PAYLOAD))
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        child.wait_for("KEY=second")
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        time.sleep(2.5)  # more than a look at the file, and a restart, would take
        assert child.said.count("KEY=second") == 1


def test_secrets_that_are_too_many_for_a_program_leave_it_those_that_it_had(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    with Running(tmp_path, "--watch", "restart", "--", "sh", "-c", COUNTING, env=source) as child:
        child.wait_for("KEY=first")
        too_many = {f"K{number}": "x" * 100_000 for number in range(100)}
        replace_file(artifact, packed({"app": {"KEY": "second", **too_many}}))
        child.wait_for("goes on with the secrets that it had")
        eventually(lambda: child.said.count("KEY=first") == 2, "the program once more")
        replace_file(artifact, packed({"app": {"KEY": "third"}}))
        child.wait_for("KEY=third")


def test_an_agent_that_restarts_is_followed_again(
    source: dict[str, str], artifact: Path, tmp_path: Path
) -> None:
    with running(tmp_path, source) as first:
        port = first.port
        env = {"CLEF_ENDPOINT": f"http://127.0.0.1:{port}", "CLEF_AGENT_TOKEN": TOKEN}
        child = Running(tmp_path, "--watch", "restart", "--", "sh", "-c", COUNTING, env=env)
        child.wait_for("KEY=first")
        assert first.stop() == 0
    with child:
        child.wait_for("no news of the secrets")
        replace_file(artifact, packed({"app": {"KEY": "second"}}))
        with AgentProcess(tmp_path, {**source, "CLEF_AGENT_PORT": str(port)}):
            child.wait_for("KEY=second")


# --- as process 1 ---------------------------------------------------------------------------------

as_root = pytest.mark.skipif(
    os.geteuid() != 0 or shutil.which("unshare") is None,
    reason="a PID namespace of one's own needs root, and unshare (util-linux)",
)

AS_PID_1 = ("unshare", "--pid", "--fork", "--mount-proc", "--kill-child")

#: Leaves two hundred orphans behind, waits until they have ended, and counts the dead among
#: what /proc shows.
ORPHANS = """
import os, sys, time
for _ in range(200):
    if os.fork() == 0:
        if os.fork() == 0:
            os._exit(0)
        os._exit(0)
    os.wait()
deadline = time.monotonic() + 20
while time.monotonic() < deadline:
    states = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            states.append(open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0])
        except OSError:
            pass
    if states.count("Z") == 0 and len(states) == 2:
        break
    time.sleep(0.02)
print(os.getppid(), len(states), states.count("Z"))
"""


@as_root
def test_as_process_1_a_wish_to_end_while_it_is_still_loading_is_heard(
    source: dict[str, str], tmp_path: Path
) -> None:
    env = {**source, "PYTHONPROFILEIMPORTTIME": "1"}
    with Running(tmp_path, "--", "true", env=env, prefix=AS_PID_1) as under_way:

        def has_ended() -> bool:
            children = Path(f"/proc/{under_way.process.pid}/task/{under_way.process.pid}/children")
            with contextlib.suppress(OSError):
                for child in children.read_text().split():
                    os.kill(int(child), signal.SIGTERM)  # Python itself comes up without handlers
            return under_way.process.poll() is not None

        eventually(has_ended, "an end")
        assert under_way.ended() == 128 + signal.SIGTERM
        assert "clef_agent.cli.signals" not in under_way.said  # what holds them later


@as_root
def test_as_process_1_signals_and_exit_codes_pass_through(
    source: dict[str, str], tmp_path: Path
) -> None:
    script = "trap 'echo got it; exit 3' TERM; echo ready; while :; do sleep 0.05; done"
    with Running(tmp_path, "--", "sh", "-c", script, env=source, prefix=AS_PID_1) as under_way:
        under_way.wait_for("ready")
        pid = under_way.process.pid
        (child,) = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        os.kill(int(child), signal.SIGTERM)
        assert under_way.ended() == 3


@as_root
def test_below_the_loader_of_a_frozen_executable_orphans_are_buried_too(
    source: dict[str, str], tmp_path: Path
) -> None:
    # As the one-file executable comes up: a loader as process 1, which waits for its child only.
    loader = "import subprocess, sys; sys.exit(subprocess.call(sys.argv[1:]))"
    frozen = (
        "import sys; sys.frozen, sys._MEIPASS = True, '/tmp/_MEIabc123';"
        "sys.argv[0] = 'clef-agent'; from clef_agent.__main__ import main; main()"
    )
    python = sys.executable
    program = ("exec", "--", python, "-c", ORPHANS.replace("len(states) == 2", "len(states) == 3"))
    done = subprocess.run(
        [*AS_PID_1, python, "-c", loader, python, "-c", frozen, *program],
        env={"PATH": os.environ["PATH"], **source},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    parent, alive, dead = map(int, done.stdout.split())
    assert (parent > 1, alive, dead) == (True, 3, 0), done.stderr


@as_root
def test_as_process_1_two_hundred_orphans_are_buried(source: dict[str, str]) -> None:
    done = run("--", sys.executable, "-c", ORPHANS, env=source, prefix=AS_PID_1)
    assert (done.returncode, done.stdout) == (0, "1 2 0\n"), done.stderr
