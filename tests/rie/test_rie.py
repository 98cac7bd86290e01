"""The extension under AWS's own runtime interface emulator, with a function that reads a secret.

The emulator runs what lies in /opt/extensions, so /opt is one of the test's own: a tmpfs in a
mount namespace. Source: https://github.com/aws/aws-lambda-runtime-interface-emulator
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent_process import PATIENCE_S, TOKEN, eventually, free_port, replace_file
from fakes import AGE_KEY, changed, packed

pytestmark = [
    pytest.mark.skipif(
        shutil.which("aws-lambda-rie") is None,
        reason="aws-lambda-rie is not on PATH: `go install"
        " github.com/aws/aws-lambda-runtime-interface-emulator/cmd/aws-lambda-rie@latest` gives it",
    ),
    pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace of one's own needs root"),
    pytest.mark.skipif(shutil.which("unshare") is None, reason="unshare is not installed"),
]

#: A function's runtime: reads the secret once while it is loading, and again at each invocation.
BOOTSTRAP = """\
import json, os, urllib.request
API = "http://" + os.environ["AWS_LAMBDA_RUNTIME_API"] + "/2018-06-01/runtime/invocation/"

def secret():
    request = urllib.request.Request(
        "http://127.0.0.1:%(port)d/v1/secrets/KEY", headers={"Authorization": "Bearer %(token)s"})
    with urllib.request.urlopen(request, timeout=5) as answer:
        return json.load(answer)["value"]

STATIC = secret()
while True:
    with urllib.request.urlopen(API + "next") as event:
        request_id = event.headers["Lambda-Runtime-Aws-Request-Id"]
        event.read()
    body = json.dumps({"static": STATIC, "now": secret()}).encode()
    urllib.request.urlopen(urllib.request.Request(API + request_id + "/response", body)).read()
"""

SETUP = """\
set -e
mount -t tmpfs tmpfs /opt
mkdir /opt/extensions
cp "$1" /opt/extensions/clef-agent
chmod 755 /opt/extensions/clef-agent
shift
exec "$@"
"""


class Emulator:
    """The emulator with one function and one extension."""

    def __init__(self, directory: Path, artifact: Path, port: int) -> None:
        self._api = free_port()
        self._log = directory / "rie.log"
        wrapper = directory / "clef-agent"
        wrapper.write_text(
            f'#!/bin/sh\nexec {sys.executable} -m clef_agent --extension-name "${{0##*/}}"\n'
        )
        bootstrap = directory / "bootstrap"
        code = BOOTSTRAP % {"port": port, "token": TOKEN}
        bootstrap.write_text(f"#!{sys.executable}\n{code}")
        bootstrap.chmod(0o755)
        rie = shutil.which("aws-lambda-rie")
        assert rie is not None
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                ["unshare", "-m", "sh", "-c", SETUP, "sh", str(wrapper), rie,
                 "--runtime-api-address", f"127.0.0.1:{free_port()}",
                 "--runtime-interface-emulator-address", f"127.0.0.1:{self._api}",
                 str(bootstrap)],
                env={
                    "PATH": os.environ["PATH"],
                    "CLEF_AGENT_SOURCE": str(artifact),
                    "CLEF_AGENT_AGE_KEY": AGE_KEY,
                    "CLEF_AGENT_PORT": str(port),
                    "CLEF_AGENT_TOKEN": TOKEN,
                    "CLEF_AGENT_POLL_INTERVAL": "5",
                },
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def invoke(self) -> tuple[int, Any]:
        """The status and the answer of one invocation."""
        url = f"http://127.0.0.1:{self._api}/2015-03-31/functions/function/invocations"
        try:
            with urllib.request.urlopen(url, data=b"{}", timeout=PATIENCE_S) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as exc:
            with exc:
                return exc.code, exc.read().decode(errors="replace")

    def wait_until_listening(self) -> None:
        import socket

        def listens() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self._api)) == 0

        eventually(listens, "the emulator")

    def stop(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact.json"
    path.write_bytes(packed({"app": {"KEY": "first"}}))
    return path


@pytest.fixture
def emulator(tmp_path: Path, artifact: Path) -> Iterator[Emulator]:
    emulator = Emulator(tmp_path, artifact, free_port())
    emulator.wait_until_listening()
    try:
        yield emulator
    except BaseException as exc:
        exc.add_note(emulator.log)
        raise
    finally:
        emulator.stop()


def test_a_function_reads_a_secret_in_its_static_part_and_at_each_invocation(
    emulator: Emulator, artifact: Path
) -> None:
    status, answer = emulator.invoke()
    assert (status, answer) == (200, {"static": "first", "now": "first"}), emulator.log
    assert "lifecycle: lambda-extension" in emulator.log
    replace_file(artifact, packed({"app": {"KEY": "second"}}))

    def is_new() -> bool:
        return emulator.invoke() == (200, {"static": "first", "now": "second"})

    eventually(is_new, "the rotated value")


def test_the_end_of_the_sandbox_ends_the_agent_in_time(emulator: Emulator) -> None:
    assert emulator.invoke()[0] == 200
    emulator.process.send_signal(signal.SIGTERM)
    emulator.process.wait(PATIENCE_S)
    assert "stopping: the sandbox ends" in emulator.log


def test_a_start_that_fails_is_cured_by_the_next_one(emulator: Emulator, artifact: Path) -> None:
    good = artifact.read_bytes()
    artifact.write_bytes(changed(good, ciphertextHash="0" * 64))
    assert emulator.invoke()[0] != 200
    assert "reason=integrity" in emulator.log
    replace_file(artifact, good)
    eventually(lambda: emulator.invoke() == (200, {"static": "first", "now": "first"}), "the cure")
