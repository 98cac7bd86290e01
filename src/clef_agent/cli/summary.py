"""What can be told of an artifact without any key: ``clef-agent inspect``.

It reads documents that the agent would refuse too, for they are the ones that are looked at.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from clef_agent.artifact import strict_json
from clef_agent.artifact.model import Moment, NotAMoment
from clef_agent.cli.failure import Failure
from clef_agent.cli.table import Row
from clef_agent.keys import decode_base64

_UNITS = (("day", 86_400), ("hour", 3_600), ("minute", 60), ("second", 1))
_SPAN_UNITS = 2


@dataclass(frozen=True, slots=True)
class Summary:
    """An artifact's fields as they stand in it (None: absent, or no text), and what they mean.

    ``hash_ok`` is None where the hash or the ciphertext is absent, ``expired`` where there is no
    expiry that can be read. Sizes are in bytes; ``ciphertext_bytes`` counts the decoded ones.
    """

    version: strict_json.JsonValue
    identity: str | None
    environment: str | None
    packed_at: str | None
    revision: str | None
    expires_at: str | None
    expires_in_s: float | None
    revoked_at: str | None
    provider: str | None
    key_id: str | None
    is_signed: bool
    signature_algorithm: str | None
    size_bytes: int
    ciphertext_bytes: int | None
    hash_ok: bool | None

    @property
    def expired(self) -> bool | None:
        """Whether ``expiresAt`` has passed."""
        return None if self.expires_in_s is None else self.expires_in_s <= 0

    def as_json(self) -> dict[str, object]:
        """The same by the names that the format has."""
        envelope = {"provider": self.provider, "keyId": self.key_id}
        return {
            "version": self.version,
            "identity": self.identity,
            "environment": self.environment,
            "packedAt": self.packed_at,
            "revision": self.revision,
            "expiresAt": self.expires_at,
            "expired": self.expired,
            "revokedAt": self.revoked_at,
            "revoked": self.revoked_at is not None,
            "envelope": envelope if self.provider or self.key_id else None,
            "signed": self.is_signed,
            "signatureAlgorithm": self.signature_algorithm,
            "sizeBytes": self.size_bytes,
            "ciphertextBytes": self.ciphertext_bytes,
            "hashOk": self.hash_ok,
        }

    def rows(self) -> list[Row]:
        """The same for a person."""
        return [
            Row("identity", self.identity or "missing"),
            Row("environment", self.environment or "missing"),
            Row("packed at", self.packed_at or "missing"),
            Row("revision", self.revision or "missing"),
            self._expiry_row(),
            Row("revoked", f"at {self.revoked_at}", "bad") if self.revoked_at else _NOT_REVOKED,
            Row("encryption", self._encryption()),
            Row("signature", self._signature()),
            Row("size", self._size()),
            self._hash_row(),
        ]

    def _expiry_row(self) -> Row:
        if self.expires_at is None:
            return Row("expires at", "never")
        if self.expires_in_s is None:
            return Row("expires at", f"{self.expires_at} (no date)", "bad")
        if self.expires_in_s <= 0:
            return Row("expires at", f"{self.expires_at} ({_span(-self.expires_in_s)} ago)", "bad")
        return Row("expires at", f"{self.expires_at} (in {_span(self.expires_in_s)})")

    def _encryption(self) -> str:
        if self.provider or self.key_id:
            return f"AES-256-GCM, key by {self.provider or '?'}: {self.key_id or 'missing'}"
        return "age"

    def _signature(self) -> str:
        if not self.is_signed:
            return "none"
        return f"{self.signature_algorithm or 'of unnamed algorithm'} (not checked here)"

    def _size(self) -> str:
        if self.ciphertext_bytes is None:
            return f"{self.size_bytes:,} bytes"
        return f"{self.size_bytes:,} bytes, {self.ciphertext_bytes:,} of them ciphertext"

    def _hash_row(self) -> Row:
        if self.hash_ok is None:
            return Row("hash", "missing", "bad")
        if not self.hash_ok:
            return Row("hash", "does not fit the ciphertext", "bad")
        return Row("hash", "fits the ciphertext", "good")


_NOT_REVOKED = Row("revoked", "no")


def summarise(data: bytes, *, where: str, wall: float) -> Summary:
    """What ``data``, an artifact's bytes, says of itself at ``wall`` (seconds since 1970 UTC).

    Raises:
        Failure: it is no JSON object.
    """
    document = artifact_document(data, where=where)
    envelope = document.get("envelope")
    envelope = envelope if isinstance(envelope, dict) else {}
    revoked_at = document.get("revokedAt")
    ciphertext, digest = _text(document, "ciphertext"), _text(document, "ciphertextHash")
    expires_at = _text(document, "expiresAt")
    return Summary(
        version=document.get("version"),
        identity=_text(document, "identity"),
        environment=_text(document, "environment"),
        packed_at=_text(document, "packedAt"),
        revision=_text(document, "revision"),
        expires_at=expires_at,
        expires_in_s=_expires_in_s(expires_at, wall),
        # Of any type: so does the agent take it.
        revoked_at=None if revoked_at is None else str(revoked_at),
        provider=_text(envelope, "provider"),
        key_id=_text(envelope, "keyId"),
        is_signed=bool(_text(document, "signature")),
        signature_algorithm=_text(document, "signatureAlgorithm"),
        size_bytes=len(data),
        ciphertext_bytes=_decoded_bytes(ciphertext),
        hash_ok=_hash_fits(ciphertext, digest),
    )


def artifact_document(data: bytes, *, where: str) -> dict[str, strict_json.JsonValue]:
    """The JSON object in ``data``, whether or not an agent would accept it.

    Raises:
        Failure: it is no strict JSON, or no object with an identity or a ciphertext.
    """
    hint = "Check that the file is a packed artifact, and whole."
    try:
        document = strict_json.loads(data)
    except (strict_json.NotStrict, strict_json.LoneSurrogate) as exc:
        raise Failure(f"{where} is not strict JSON: {exc}", hint) from None
    if not isinstance(document, dict) or not ({"identity", "ciphertext"} & document.keys()):
        raise Failure(f"{where} is JSON, but not an artifact", hint)
    return document


def _text(document: dict[str, strict_json.JsonValue], name: str) -> str | None:
    value = document.get(name)
    return value if isinstance(value, str) else None


def _expires_in_s(expires_at: str | None, wall: float) -> float | None:
    try:
        return None if expires_at is None else Moment.parse(expires_at).wall - wall
    except NotAMoment:
        return None


def _decoded_bytes(ciphertext: str | None) -> int | None:
    try:
        return None if ciphertext is None else len(decode_base64(ciphertext))
    except ValueError:
        return None


def _hash_fits(ciphertext: str | None, digest: str | None) -> bool | None:
    if not ciphertext or not digest:
        return None
    return hashlib.sha256(ciphertext.encode("utf-8")).hexdigest() == digest.lower()


def _span(seconds: float) -> str:
    """``seconds`` in the two largest units that fit: "29 days, 23 hours"."""
    left_s = int(seconds)
    counts: list[tuple[int, str]] = []
    for unit, unit_s in _UNITS:
        count, left_s = divmod(left_s, unit_s)
        if count or counts:
            counts.append((count, unit))
    shown = [
        f"{count} {unit}{'' if count == 1 else 's'}"
        for count, unit in counts[:_SPAN_UNITS]
        if count
    ]
    return ", ".join(shown) or "less than a second"
