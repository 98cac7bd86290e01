"""The Lambda layer, as Lambda unpacks it: at /opt, read-only."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from agent_process import TOKEN, eventually, free_port
from extensions_api import Sandbox
from extensions_api import serving as serving_sandbox
from fakes import AGE_KEY, packed

PACK = Path(__file__).resolve().parents[2] / "release" / "lambda" / "layer.py"

#: Python's zipfile forgets modes; Lambda does not.
AT_OPT = """
set -e
mount --bind "$1" /opt
mount -o remount,bind,ro /opt
exec /opt/extensions/clef-agent
"""


@pytest.fixture
def layer(executable: Path, is_one_file: bool, tmp_path: Path) -> Path:
    if is_one_file:
        pytest.skip("the layer is made of the folder")
    target = tmp_path / "layer.zip"
    subprocess.run([sys.executable, PACK, executable.parent, target], check=True)
    return target


def test_the_same_folder_gives_the_same_layer(layer: Path, executable: Path) -> None:
    again = layer.with_name("again.zip")
    subprocess.run([sys.executable, PACK, executable.parent, again], check=True)
    assert again.read_bytes() == layer.read_bytes()


def test_what_lambda_starts_can_run_and_has_unix_line_ends(layer: Path) -> None:
    with zipfile.ZipFile(layer) as packed_layer:
        for name in ("extensions/clef-agent", "clef-agent/clef-agent"):
            mode = packed_layer.getinfo(name).external_attr >> 16
            assert mode == stat.S_IFREG | 0o755, name
        assert b"\r" not in packed_layer.read("extensions/clef-agent")
        extensions = [name for name in packed_layer.namelist() if name.startswith("extensions/")]
        assert extensions == ["extensions/clef-agent"]


@pytest.mark.skipif(os.geteuid() != 0, reason="a mount namespace of one's own needs root")
def test_it_registers_under_the_name_of_its_file(layer: Path, tmp_path: Path) -> None:
    opt = tmp_path / "opt"
    with zipfile.ZipFile(layer) as packed_layer:
        for entry in packed_layer.infolist():
            Path(packed_layer.extract(entry, opt)).chmod(entry.external_attr >> 16 & 0o777)
    artifact = tmp_path / "artifact.json"
    artifact.write_bytes(packed())
    with serving_sandbox(Sandbox("clef-agent")) as sandbox:
        env = {
            **sandbox.environment,
            "PATH": os.environ["PATH"],
            "CLEF_AGENT_SOURCE": str(artifact),
            "CLEF_AGENT_AGE_KEY": AGE_KEY,
            "CLEF_AGENT_PORT": str(free_port()),
            "CLEF_AGENT_TOKEN": TOKEN,
        }
        command = ["unshare", "--mount", "sh", "-c", AT_OPT, "sh", str(opt)]
        with subprocess.Popen(command, env=env) as process:
            try:
                sandbox.wait_until_idle()
            finally:
                process.kill()
    eventually(lambda: process.poll() is not None, "its end")
