"""Bytes to :class:`Artifact`: steps 1 to 3 of the order of checks.

1. strict JSON, an object
2. ``revokedAt``
3. version, required fields, types, dates, envelope
"""

from __future__ import annotations

import hashlib

from clef_agent.artifact import strict_json
from clef_agent.artifact.model import (
    FORMAT_VERSION,
    Artifact,
    Envelope,
    Expectation,
    Moment,
    NotAMoment,
)
from clef_agent.errors import (
    ArtifactError,
    IncompleteEnvelope,
    InvalidShape,
    MissingFields,
    NotStrictJson,
    Revoked,
    UnsupportedVersion,
)

_REQUIRED = ("identity", "environment", "packedAt", "revision", "ciphertextHash", "ciphertext")
_OPTIONAL = ("expiresAt", "signature", "signatureAlgorithm")
_ENVELOPE = ("provider", "keyId", "wrappedKey", "algorithm", "iv", "authTag")
#: What the signing payload holds as it stands.
_SIGNED = frozenset((*_REQUIRED[:-1], *_ENVELOPE))
#: 32 MiB of "[],[],..." would become 600 MB of lists, and hold the interpreter for seconds.
_MAX_COMMAS = 100_000
#: These are shown to people and programs: in logs, health and telemetry. An ARN has 2,048 at most.
_MAX_CHARS = dict.fromkeys(
    (
        *("identity", "environment", "packedAt", "revision", "expiresAt"),
        *("signatureAlgorithm", "provider", "keyId", "algorithm"),
    ),
    2048,
)
#: A revokedAt of any type revokes; only so much of it is repeated in a log.
_MAX_REVOKED_AT_CHARS = 64


def parse(data: bytes, expected: Expectation | None = None) -> Artifact:
    """The artifact in ``data``, the bytes as they were fetched.

    ``expected`` decides only whether a revocation is meant for this agent.

    Raises:
        NotStrictJson, InvalidShape, Revoked, UnsupportedVersion, MissingFields,
        IncompleteEnvelope: in the order of the checks.
    """
    document = _document(data)
    _refuse_revoked(document, expected or Expectation())
    version = document.get("version")
    if version != FORMAT_VERSION or isinstance(version, bool) or not isinstance(version, int):
        raise UnsupportedVersion(f"its version is not {FORMAT_VERSION}")
    required = _strings(document, _REQUIRED, MissingFields)
    optional = {
        name: _string(document, name) if document.get(name) is not None else None
        for name in _OPTIONAL
    }
    packed_at = _moment("packedAt", required["packedAt"])
    expires_at = optional["expiresAt"]
    return Artifact(
        identity=required["identity"],
        environment=required["environment"],
        packed_at=packed_at,
        revision=required["revision"],
        ciphertext_hash=required["ciphertextHash"],
        ciphertext=required["ciphertext"],
        expires_at=None if expires_at is None else _moment("expiresAt", expires_at),
        signature=optional["signature"],
        envelope=_envelope(document),
        digest=hashlib.sha256(data).hexdigest(),
    )


def _document(data: bytes) -> dict[str, strict_json.JsonValue]:
    if data.count(b",") > _MAX_COMMAS:
        raise NotStrictJson("it has far more members than an artifact")
    try:
        document = strict_json.loads(data)
    except strict_json.NotStrict as exc:
        raise NotStrictJson(f"it is not strict JSON: {exc}") from None
    except strict_json.LoneSurrogate as exc:
        raise InvalidShape(f"its text is broken: {exc}") from None
    if not isinstance(document, dict):
        raise InvalidShape("it is not a JSON object")
    return document


def _refuse_revoked(document: dict[str, strict_json.JsonValue], expected: Expectation) -> None:
    revoked_at = document.get("revokedAt")
    if revoked_at is None:
        return
    raise Revoked(
        str(revoked_at)[:_MAX_REVOKED_AT_CHARS],
        applies=expected.allows(document.get("identity"), document.get("environment")),
    )


def _strings(
    document: dict[str, strict_json.JsonValue],
    names: tuple[str, ...],
    missing_error: type[ArtifactError],
) -> dict[str, str]:
    """The values of ``names``, all of them present, not empty, and text."""
    missing = [name for name in names if document.get(name) in (None, "")]
    if missing:
        raise missing_error(f"missing or empty: {', '.join(missing)}")
    return {name: _string(document, name) for name in names}


def _string(document: dict[str, strict_json.JsonValue], name: str) -> str:
    value = document[name]
    if not isinstance(value, str):
        raise InvalidShape(f"{name} is not a string")
    if len(value) > _MAX_CHARS.get(name, len(value)):
        raise InvalidShape(f"{name} has more than {_MAX_CHARS[name]:,} characters")
    if name in _SIGNED and "\n" in value:
        # The signing payload joins fields by line feeds: with one inside a field, two different
        # artifacts would share a signature.
        raise InvalidShape(f"{name} has a line break")
    return value


def _moment(name: str, text: str) -> Moment:
    try:
        return Moment.parse(text)
    except NotAMoment as exc:
        raise InvalidShape(f"{name} is {exc}") from None


def _envelope(document: dict[str, strict_json.JsonValue]) -> Envelope | None:
    value = document.get("envelope")
    if value is None:
        return None
    if not isinstance(value, dict):
        raise InvalidShape("envelope is not an object")
    envelope = _strings(value, _ENVELOPE, IncompleteEnvelope)
    return Envelope(
        provider=envelope["provider"],
        key_id=envelope["keyId"],
        wrapped_key=envelope["wrappedKey"],
        algorithm=envelope["algorithm"],
        iv=envelope["iv"],
        auth_tag=envelope["authTag"],
    )
