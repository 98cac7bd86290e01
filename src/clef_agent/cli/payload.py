"""A payload as a person writes it: ``.env`` or JSON text, to what is packed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Literal, TypeAlias

from clef_agent.artifact import strict_json
from clef_agent.artifact.pack import Payload
from clef_agent.cli.dotenv import DotenvMalformed, parse_dotenv
from clef_agent.cli.failure import Failure, printable

Format: TypeAlias = Literal["env", "json"]

_HINT = "A payload is {NAMESPACE: {KEY: VALUE}} or {KEY: VALUE}; every value is a string."
_KINDS = {bool: "true or false", int: "a number", float: "a number", list: "an array"}


def format_of(path: Path | None) -> Format | None:
    """The format that a file's name promises; None where only its content can tell."""
    if path is None:
        return None
    if path.suffix.lower() == ".json":
        return "json"
    return "env" if path.suffix.lower() == ".env" or path.name.startswith(".env") else None


def parse_source(data: bytes, *, where: str, form: Format | None = None) -> Payload:
    """The payload in ``data``, checked by the rules that a decrypted one has to pass.

    Without ``form``, what begins with a brace is JSON, everything else ``.env``.

    Raises:
        Failure: what is wrong and where in ``where``; no value is repeated.
    """
    from clef_agent.decrypt.secrets import parse_payload

    if form is None:
        form = "json" if data.lstrip().startswith(b"{") else "env"
    payload = _json(data, where) if form == "json" else _env(data, where)
    # The reader's own rules have the last word, so nothing is packed that it would refuse.
    parse_payload(json.dumps(payload, ensure_ascii=False).encode("utf-8"))
    return payload


def in_namespace(payload: Payload, namespace: str) -> Payload:
    """A flat ``payload`` as the one namespace ``namespace``.

    Raises:
        Failure: it has namespaces of its own.
    """
    flat = {key: value for key, value in payload.items() if isinstance(value, str)}
    if len(flat) < len(payload):
        raise Failure(
            "--namespace is for a flat payload, and this one has namespaces already",
            "Leave out --namespace, or take the namespaces out of the file.",
        )
    return {namespace: flat}


def _env(data: bytes, where: str) -> Payload:
    try:
        return parse_dotenv(data.decode("utf-8"))
    except UnicodeDecodeError:
        raise Failure(f"{where} is not UTF-8 text", "Convert it to UTF-8.") from None
    except DotenvMalformed as exc:
        raise Failure(
            f"{where}: {exc}", "Each line is NAME=VALUE, quoted where VALUE has # or line breaks."
        ) from None


def _json(data: bytes, where: str) -> Payload:
    try:
        document = strict_json.loads(data)
    except (strict_json.NotStrict, strict_json.LoneSurrogate) as exc:
        raise Failure(f"{where} is not strict JSON: {exc}", _HINT) from None
    if not isinstance(document, dict):
        raise Failure(f"{where} is not a JSON object", _HINT)
    payload: dict[str, str | dict[str, str]] = {}
    for name, value in document.items():
        if isinstance(value, dict):
            payload[name] = {
                key: _text(inner, f"{name}/{key}", where) for key, inner in value.items()
            }
        else:
            payload[name] = _text(value, name, where)
    return payload


def _text(value: strict_json.JsonValue, name: str, where: str) -> str:
    if isinstance(value, str):
        return value
    kind = "null" if value is None else _KINDS.get(type(value), "an object")
    raise Failure(f"{where}: {printable(name)} is {kind}, not a string", _HINT)
