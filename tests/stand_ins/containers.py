"""``docker run``, and the commands of ``kubectl`` that a deployment takes."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import yaml

from stand_ins import Asked, Refused, command, options

_SECURITY: Final = re.compile(r"no-new-privileges(?::true)?|seccomp=.+|apparmor=.+|label=.+")
_NETWORK: Final = re.compile(r"bridge|host|none|container:[\w.-]+|[\w.-]+")
#: Source: https://kubernetes.io/docs/concepts/overview/working-with-objects/names/#dns-subdomain-names
_NAME: Final = re.compile(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?")
_DATA_NAME: Final = re.compile(r"[\w.-]+", re.ASCII)


def docker(arguments: list[str]) -> Asked:
    """``docker run OPTIONS IMAGE``. A variable without a value must be set here: the real
    one leaves it out in silence.

    Source: https://docs.docker.com/reference/cli/docker/container/run/
    """
    parser = options("docker")
    commands = parser.add_subparsers(dest="command", required=True)
    run = command(commands, "run")
    for flag in ("--detach", "--read-only", "--rm", "--init", "--interactive", "--tty"):
        run.add_argument(flag, action="store_true")
    for name in ("--name", "--network", "--user", "--entrypoint", "--restart"):
        run.add_argument(name)
    for name in ("--cap-drop", "--cap-add", "--security-opt", "--env", "--volume", "--tmpfs"):
        run.add_argument(name, action="append", default=[])
    run.add_argument("image")
    run.add_argument("arguments", nargs=argparse.REMAINDER)
    given = parser.parse_args(arguments)
    for value in given.security_opt:
        if not _SECURITY.fullmatch(value):
            raise Refused(f"{value} is no option of security")
    if given.network is not None and not _NETWORK.fullmatch(given.network):
        raise Refused(f"{given.network} is no network")
    return Asked({**vars(given), "env": dict(_variable(text) for text in given.env)})


def _variable(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not equals and name not in os.environ:
        raise Refused(f"{name} is not set here")
    return name, value if equals else os.environ[name]


def kubectl(arguments: list[str]) -> Asked:
    """``kubectl create secret generic`` and ``kubectl apply``.

    Source: https://kubernetes.io/docs/reference/kubectl/generated/
    """
    parser = options("kubectl")
    parser.add_argument("--namespace", "-n")
    commands = parser.add_subparsers(dest="command", required=True)
    apply = command(commands, "apply")
    apply.add_argument("--filename", "-f", required=True)
    create = command(commands, "create").add_subparsers(dest="kind", required=True)
    secret = command(create, "secret").add_subparsers(dest="type", required=True)
    generic = command(secret, "generic")
    generic.add_argument("name")
    generic.add_argument("--from-file", action="append", default=[])
    generic.add_argument("--from-literal", action="append", default=[])
    given = parser.parse_args(arguments)
    if given.command == "apply":
        return Asked({"applied": _applied(Path(given.filename))})
    if not _NAME.fullmatch(given.name):
        raise Refused(f"{given.name} is no name")
    return Asked({"secret": given.name, "data": dict(_file(text) for text in given.from_file)})


def _applied(path: Path) -> list[dict[str, Any]]:
    documents: list[dict[str, Any]] = [*yaml.safe_load_all(path.read_text("utf-8"))]
    for document in documents:
        try:
            kubernetes_validate.validate(
                document, kubernetes_validate.latest_version(), strict=True
            )
        except kubernetes_validate.ValidationError as exc:
            raise Refused(str(exc)) from None
    return documents


def _file(text: str) -> tuple[str, str]:
    name, equals, path = text.rpartition("=")
    key = name if equals else Path(path).name
    if not _DATA_NAME.fullmatch(key):
        raise Refused(f"{key} is no name of data")
    return key, Path(path).read_text("utf-8")
