"""The stand-ins of the documentation's tests refuse what the real programs refuse."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from stand_ins import Asked, Refused
from stand_ins.__main__ import PROGRAMS
from terminal import Terminal

OBJECT = "apiVersion: v1\nkind: Secret\nmetadata: {name: a}\n"
DOWNLOADS = "https://github.com/clef-sh/clef-agent/releases/latest/download"
FUNCTION = "aws lambda update-function-configuration --function-name f"


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a few files, in which commands are typed."""
    files = {
        "file": "content",
        "secret.yaml": OBJECT,
        "wrong.yaml": OBJECT.replace("metadata", "metdata"),
        "task.json": json.dumps({"family": "f"}),
    }
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("STAND_INS_RELEASE", str(tmp_path))
    monkeypatch.setenv("STAND_INS_ROOT", str(tmp_path / "root"))
    return tmp_path


def asked(line: str) -> Asked:
    name, *arguments = shlex.split(line)
    return PROGRAMS[name]()[name](arguments)


@pytest.mark.parametrize(
    "line",
    [
        "apt-get install debootstrap",
        "aws kms decrypt --ciphertext-blob fileb://file",
        "aws lambda get-function --function-name f",
        f"{FUNCTION} --layers one two",
        "aws lambda publish-layer-version --layer-name l --zip-file fileb://file",
        "aws ecs register-task-definition --family f --container-definitions '[]'",
        f"curl -fLO {DOWNLOADS}/file",
        "docker run --env A=1 --read-only --security-opt=no-new-privileges image",
        "gh attestation verify file --repo a/b",
        "kubectl apply --filename secret.yaml",
        "kubectl create secret generic a --from-file=file --from-file=b=file",
        "nox -s tests",
        "nox -s build -- --target arm64",
        "pip install 'clef-agent[gcp]'",
        "pipx run clef-agent --version",
        "sudo install --mode=0644 file /etc/file",
        "systemctl daemon-reload",
    ],
)
def test_what_the_program_takes_is_taken(line: str) -> None:
    asked(line)


@pytest.mark.parametrize(
    "line",
    [
        "apt-get instal debootstrap",
        "aws kms decrypt --ciphertext-blob file",
        "aws lambda get-function --function f",
        "aws lambda get-functions --function-name f",
        "aws lamda get-function --function-name f",
        "aws lambda get-function",
        f"{FUNCTION} --environment '{{'",
        f"{FUNCTION} --environment '{{\"Variable\": {{}}}}'",
        "aws lambda publish-layer-version --layer-name l --zip-file fileb://absent",
        "aws ecs register-task-definition --cli-input-json file://task.json",
        "curl -fLO https://github.com/someone/else/releases/latest/download/file",
        f"curl -fO {DOWNLOADS}/file",
        f"curl -LO {DOWNLOADS}/file",
        f"curl -fLO {DOWNLOADS}/absent",
        "docker run --env UNSET_HERE image",
        "docker run --readonly image",
        "docker run --security-opt=nothing-new image",
        "docker start image",
        "gh attestation verify absent --repo a/b",
        "gh attestation verify oci://ghcr.io/a/b:1 --repo a/b",
        "gh attestation verify file",
        "kubectl apply --filename wrong.yaml",
        "kubectl apply --file secret.yaml",
        "kubectl create secret generic A_ --from-file=file",
        "kubectl create secret generic a --from-file=b=absent",
        "nox -s test",
        "nox -s lint -- --target arm64",
        "nox -s build -- --target arm",
        "pip install 'clef-agent[google]'",
        "pip install clefagent",
        "pipx run clef --version",
        "sam deploy",
        "sudo",
        "systemctl enable --now clef-agent",
        "systemctl reload-daemon",
    ],
)
def test_what_the_program_refuses_is_refused(line: str) -> None:
    with pytest.raises((Refused, OSError, ValueError, SystemExit)) as refused:
        asked(line)
    assert not isinstance(refused.value, SystemExit) or refused.value.code == 2


def test_a_download_is_the_file_of_the_release(here: Path) -> None:
    assert asked(f"curl -fL -o copy {DOWNLOADS}/file").facts == {"url": f"{DOWNLOADS}/file"}
    assert (here / "copy").read_text() == "content"


def test_sudo_keeps_to_its_own_root(here: Path) -> None:
    then = asked("sudo sh -c 'cat file > /etc/clef-agent/token' /usr/local/bin/x ./etc/y").then
    root = f"{here}/root"
    moved = [f"cat file > {root}/etc/clef-agent/token", f"{root}/usr/local/bin/x", "./etc/y"]
    assert then == ["sh", "-c", *moved]


def test_in_a_terminal_a_refusal_is_an_exit_code_and_no_call(tmp_path: Path) -> None:
    terminal = Terminal(tmp_path / "terminal", "docker", "pipx")
    assert terminal.types("docker run image").strip() == ""
    with pytest.raises(AssertionError, match="no-such-option"):
        terminal.types("docker run --no-such-option image")
    assert [call.program for call in terminal.calls] == ["docker"]
    assert terminal.types("pipx run clef-agent --version").startswith("clef-agent ")
