"""``aws``, by the models of botocore, of which the real one is made, too; and ``sam``."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import botocore.session
import yaml
from botocore import xform_name
from botocore.exceptions import UnknownServiceError
from botocore.validate import ParamValidator

from stand_ins import Asked, Refused, command, options

if TYPE_CHECKING:
    from botocore.model import OperationModel, Shape, StructureShape

#: Options that the command line has in place of a member's own.
#: Source: https://docs.aws.amazon.com/cli/latest/reference/lambda/publish-layer-version.html
_ZIP_FILE: Final = ("lambda", "publish-layer-version", "zip-file")


def aws(arguments: list[str]) -> Asked:
    """``aws SERVICE OPERATION --OPTION VALUE...``."""
    parser = options("aws")
    parser.add_argument("service")
    parser.add_argument("operation")
    parser.add_argument("--region")
    parser.add_argument("--profile")
    known, _ = parser.parse_known_args(arguments[:2])
    operation = _operation(known.service, known.operation)
    members = _members(operation)
    parser.add_argument("--cli-input-json")
    for name, shape in members.items():
        many = shape.type_name == "list" and getattr(shape, "member").type_name == "string"  # noqa: B009  # only lists have it
        parser.add_argument(f"--{name}", nargs="+" if many else None)
    if _ZIP_FILE[:2] == (known.service, known.operation):
        parser.add_argument(f"--{_ZIP_FILE[2]}")
    given = parser.parse_args(arguments)
    request: dict[str, Any] = {}
    if given.cli_input_json is not None:
        request = json.loads(_paramfile(given.cli_input_json))
    shapes = _input(operation).members
    names = {xform_name(member, "-"): member for member in shapes}
    for name, shape in members.items():
        value = getattr(given, name.replace("-", "_"))
        if value is not None:
            request[names[name]] = _value(value, shape)
    zip_file = getattr(given, "zip_file", None)
    if zip_file is not None:
        request.setdefault("Content", {})["ZipFile"] = _value(zip_file, None)
    complaints = str(ParamValidator().validate(request, _input(operation)).generate_report())
    if complaints:
        raise Refused(complaints)
    asked = json.loads(json.dumps(request, default=lambda data: f"<{len(data)} bytes>"))
    return Asked({"operation": operation.name, "request": asked})


def sam(arguments: list[str]) -> Asked:
    """``sam deploy``: a template lies here, and whatever it names on this machine beside it."""
    parser = options("sam")
    commands = parser.add_subparsers(dest="command", required=True)
    deploy = command(commands, "deploy")
    deploy.add_argument("--guided", action="store_true")
    deploy.add_argument("--stack-name")
    deploy.add_argument("--template-file", default="template.yaml")
    deploy.add_argument(
        "--capabilities",
        nargs="+",
        choices=["CAPABILITY_IAM", "CAPABILITY_NAMED_IAM", "CAPABILITY_AUTO_EXPAND"],
    )
    given = parser.parse_args(arguments)
    template = yaml.load(Path(given.template_file).read_text("utf-8"), _Template)
    resources = template["Resources"]
    local = [
        properties[name]
        for properties in (resource["Properties"] for resource in resources.values())
        for name in ("CodeUri", "ContentUri")
        if name in properties
    ]
    missing = [name for name in local if not Path(name).exists()]
    if missing:
        raise Refused(f"{missing} is not here")
    roles = any("Policies" in resource["Properties"] for resource in resources.values())
    if roles and not given.capabilities:
        raise Refused("InsufficientCapabilities: it makes a role")
    return Asked({"local": local})


class _Template(yaml.SafeLoader):
    """YAML with CloudFormation's functions, which are of no interest here."""


_Template.add_multi_constructor("!", lambda loader, suffix, node: suffix)


def _operation(service: str, operation: str) -> OperationModel:
    try:
        model = botocore.session.Session().get_service_model(service)
    except UnknownServiceError as exc:
        raise Refused(str(exc)) from None
    for name in model.operation_names:
        if xform_name(name, "-") == operation:
            return model.operation_model(name)
    raise Refused(f"{service} has no {operation}")


def _input(operation: OperationModel) -> StructureShape:
    if operation.input_shape is None:
        raise Refused(f"{operation.name} takes nothing")
    return operation.input_shape


def _members(operation: OperationModel) -> dict[str, Shape]:
    return {xform_name(name, "-"): shape for name, shape in _input(operation).members.items()}


def _value(text: str | list[str], shape: Shape | None) -> Any:
    """``text`` as a member of that shape; None stands for a blob."""
    if isinstance(text, list):
        return text
    kind = "blob" if shape is None else shape.type_name
    if kind == "blob":
        if not text.startswith("fileb://"):
            raise Refused(f"{text} is no fileb://")
        return Path(text.removeprefix("fileb://")).read_bytes()
    if kind in ("structure", "map", "list"):
        return json.loads(_paramfile(text))
    return int(text) if kind in ("integer", "long") else text


def _paramfile(text: str) -> str:
    is_file = text.startswith("file://")
    return Path(text.removeprefix("file://")).read_text("utf-8") if is_file else text
