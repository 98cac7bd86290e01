"""systemd as process 1 of namespaces: a unit runs as on any machine, and leaves no trace."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from agent_process import PATIENCE_S, eventually

#: How long a machine may take to come up, or to say that it cannot.
_BOOT_S = 15.0
_SYSTEMD = Path("/lib/systemd/systemd")
_TARGET = "machine.target"

#: /etc and /usr/local may be written to without a change to the real ones; no network but loopback,
#: which systemd brings up. ``container`` keeps it from touching what all namespaces share.
_BOOT = f"""
set -e
mount --make-rprivate /
mount -t proc proc /proc
for place in /run /var/cache; do mount -t tmpfs -o mode=755 tmpfs $place; done
for place in etc usr/local; do
    mkdir -p /run/overlay/$place/upper /run/overlay/$place/work
    mount -t overlay overlay /$place \
        -o lowerdir=/$place,upperdir=/run/overlay/$place/upper,workdir=/run/overlay/$place/work
done
umount -R /sys/fs/cgroup
mount -t cgroup2 cgroup2 /sys/fs/cgroup
for target in {_TARGET} network-online.target nss-lookup.target multi-user.target; do
    printf '[Unit]\\nDefaultDependencies=no\\n' > /etc/systemd/system/$target
done
mount --make-rshared /
exec env -i PATH="$PATH" container=tests {_SYSTEMD} --system --unit={_TARGET} --log-target=console
"""


class NoMachine(Exception):
    """systemd does not come up here; the text says why."""


@dataclass(frozen=True)
class Machine:
    """A systemd that is up. ``pid`` is its process, as seen from outside."""

    pid: int

    def path(self, path: str) -> Path:
        """The machine's file ``path``, as it can be opened from outside."""
        return Path(f"/proc/{self.pid}/root") / path.lstrip("/")

    def run(self, *command: str) -> str:
        """What ``command`` printed in the machine, where it has to succeed."""
        done = self._try(*command)
        assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
        return done.stdout

    def shows(self, unit: str, name: str) -> str:
        """The property ``name`` of ``unit``."""
        return self.run("systemctl", "show", f"--property={name}", "--value", unit).strip()

    def is_up(self) -> bool:
        return self._try("systemctl", "show", "--property=Version").returncode == 0

    def _try(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self.pid}", "--all", "--", *command],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
            check=False,
            env={"PATH": os.environ["PATH"]},
        )


@contextlib.contextmanager
def booted(home: Path) -> Iterator[Machine]:
    """A machine until the end of the block; ``home`` is for what it says.

    Raises:
        NoMachine: not here.
    """
    if os.geteuid() != 0:
        raise NoMachine("only root can make its namespaces")
    for program in ("unshare", "nsenter"):
        if shutil.which(program) is None:
            raise NoMachine(f"{program} (util-linux) is not installed")
    if not _SYSTEMD.exists():
        raise NoMachine("systemd is not installed")
    with _cgroup() as cgroup, (home / "console").open("wb") as console:
        enter = f'echo $$ > {cgroup}/cgroup.procs && exec "$@"'
        namespaces = ("--mount", "--pid", "--fork", "--uts", "--ipc", "--net", "--cgroup")
        process = subprocess.Popen(
            ["sh", "-c", enter, "sh", "unshare", *namespaces, "--kill-child", "sh", "-c", _BOOT],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
            start_new_session=True,
        )
        try:
            yield _machine(process, home / "console")
        finally:
            _switch_off(process)


def _machine(process: subprocess.Popen[bytes], console: Path) -> Machine:
    deadline = time.monotonic() + _BOOT_S
    while process.poll() is None and time.monotonic() < deadline:
        pid = _child_of(process.pid)
        if pid is not None and _is_systemd(pid) and Machine(pid).is_up():
            return Machine(pid)
        time.sleep(0.05)
    raise NoMachine(f"systemd does not come up in namespaces: {console.read_text().strip()}")


def _is_systemd(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "systemd"
    except OSError:
        return False


def _child_of(pid: int) -> int | None:
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    except OSError:
        return None
    return int(children[0]) if children else None


def _switch_off(process: subprocess.Popen[bytes]) -> None:
    """Kills process 1, and with it, says the kernel, everything in its namespace."""
    with contextlib.suppress(ProcessLookupError):
        os.kill(_child_of(process.pid) or process.pid, signal.SIGKILL)
    process.wait(PATIENCE_S)


@contextlib.contextmanager
def _cgroup() -> Iterator[Path]:
    """A new control group (version 2), which a machine takes for the root of all."""
    mounts = (line.split(" ") for line in Path("/proc/self/mountinfo").read_text().splitlines())
    roots = [fields[4] for fields in mounts if fields[fields.index("-") + 1] == "cgroup2"]
    if not roots:
        raise NoMachine("no control groups of version 2 are mounted")
    path = Path(roots[0], f"clef-agent-tests-{os.getpid()}")
    try:
        path.mkdir()
    except OSError as exc:
        raise NoMachine(f"no control group can be made: {exc.strerror}") from None
    try:
        yield path
    finally:
        eventually(lambda: _is_removed(path), "an end of all processes in the control group")


def _is_removed(path: Path) -> bool:
    try:
        for directory, _, _ in os.walk(path, topdown=False):
            Path(directory).rmdir()
    except OSError:  # a process is not quite dead yet
        return False
    return True
