"""Makes artifacts: the format of :mod:`clef_agent.artifact.parse` from the other side."""

from __future__ import annotations

import hashlib
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Protocol, TypeAlias

from clef_agent.artifact.model import FORMAT_VERSION, Artifact, Envelope, Moment
from clef_agent.artifact.signing import Signer, signing_payload
from clef_agent.keys import encode_base64

Payload: TypeAlias = Mapping[str, "str | Mapping[str, str]"]

_DATA_KEY_BYTES = 32
_IV_BYTES = 12
_TAG_BYTES = 16


@dataclass(frozen=True, slots=True)
class WrappedKey:
    """A data key as a key service wrapped it; ``key_id`` is the resolved one, not an alias."""

    provider: str
    key_id: str
    wrapped_key: bytes
    algorithm: str


class KeyWrapper(Protocol):
    """Wraps data keys with a key that never leaves its service."""

    def wrap(self, data_key: bytes) -> WrappedKey:
        """``data_key`` (32 bytes), wrapped."""
        ...


@dataclass(frozen=True, slots=True)
class ToRecipients:
    """Encrypt with age, for ``recipients`` (``age1...``), any of whom can open it."""

    recipients: Sequence[str]


@dataclass(frozen=True, slots=True)
class ToKeyService:
    """Encrypt with AES-256-GCM under a fresh data key that ``wrapper`` wraps."""

    wrapper: KeyWrapper


@dataclass(frozen=True, slots=True, kw_only=True)
class Packing:
    """For whom, from when, until when. Moments in seconds since 1970 UTC."""

    identity: str
    environment: str
    encryption: ToRecipients | ToKeyService
    packed_at: float
    expires_at: float | None = None
    signer: Signer | None = field(default=None, repr=False)


class RecipientMalformed(ValueError):
    """A recipient that is no ``age1...`` public key, or none at all."""


def pack(payload: Payload, packing: Packing) -> bytes:
    """The artifact that holds ``payload``, as indented UTF-8 JSON.

    Raises:
        RecipientMalformed: a recipient is no age public key, or there is none.
    """
    plaintext = json.dumps(payload, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    ciphertext, envelope = _encrypt(plaintext, packing.encryption)
    text = encode_base64(ciphertext)
    packed_at = _moment(packing.packed_at)
    artifact = Artifact(
        identity=packing.identity,
        environment=packing.environment,
        packed_at=packed_at,
        revision=f"{round(packing.packed_at * 1000)}-{secrets.token_hex(4)}",
        ciphertext_hash=hashlib.sha256(text.encode("ascii")).hexdigest(),
        ciphertext=text,
        expires_at=None if packing.expires_at is None else _moment(packing.expires_at),
        envelope=envelope,
        digest="",
    )
    if packing.signer is not None:
        signature = packing.signer.sign(signing_payload(artifact))
        artifact = replace(artifact, signature=encode_base64(signature))
    return _render(artifact, packing.signer)


def revocation(document: Mapping[str, object], revoked_at: float) -> bytes:
    """``document``, an artifact as parsed JSON, marked as revoked at ``revoked_at`` (seconds)."""
    return _json({**document, "revokedAt": _moment(revoked_at).text})


def _encrypt(
    plaintext: bytes, encryption: ToRecipients | ToKeyService
) -> tuple[bytes, Envelope | None]:
    if isinstance(encryption, ToRecipients):
        return _encrypt_with_age(plaintext, encryption.recipients), None
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    data_key, iv = secrets.token_bytes(_DATA_KEY_BYTES), secrets.token_bytes(_IV_BYTES)
    sealed = AESGCM(data_key).encrypt(iv, plaintext, None)
    wrapped = encryption.wrapper.wrap(data_key)
    envelope = Envelope(
        provider=wrapped.provider,
        key_id=wrapped.key_id,
        wrapped_key=encode_base64(wrapped.wrapped_key),
        algorithm=wrapped.algorithm,
        iv=encode_base64(iv),
        auth_tag=encode_base64(sealed[-_TAG_BYTES:]),
    )
    return sealed[:-_TAG_BYTES], envelope


def _encrypt_with_age(plaintext: bytes, recipients: Sequence[str]) -> bytes:
    import pyrage

    keys = []
    for position, recipient in enumerate(recipients, start=1):
        try:
            keys.append(pyrage.x25519.Recipient.from_str(recipient.strip()))
        except (pyrage.RecipientError, UnicodeEncodeError):
            raise RecipientMalformed(
                f"recipient {position} is not an age public key (age1...)"
            ) from None
    if not keys:
        raise RecipientMalformed("there is no recipient (age1...) to encrypt for")
    ciphertext: bytes = pyrage.encrypt(plaintext, keys)
    return ciphertext


def _render(artifact: Artifact, signer: Signer | None) -> bytes:
    document: dict[str, object] = {
        "version": FORMAT_VERSION,
        "identity": artifact.identity,
        "environment": artifact.environment,
        "packedAt": artifact.packed_at.text,
        "revision": artifact.revision,
        "ciphertextHash": artifact.ciphertext_hash,
        "ciphertext": artifact.ciphertext,
    }
    if artifact.envelope is not None:
        document["envelope"] = {
            "provider": artifact.envelope.provider,
            "keyId": artifact.envelope.key_id,
            "wrappedKey": artifact.envelope.wrapped_key,
            "algorithm": artifact.envelope.algorithm,
            "iv": artifact.envelope.iv,
            "authTag": artifact.envelope.auth_tag,
        }
    if artifact.expires_at is not None:
        document["expiresAt"] = artifact.expires_at.text
    if artifact.signature is not None and signer is not None:
        document["signature"] = artifact.signature
        document["signatureAlgorithm"] = signer.algorithm
    return _json(document)


def _json(document: Mapping[str, object]) -> bytes:
    return (json.dumps(document, ensure_ascii=False, indent=2) + "\n").encode("utf-8")


def _moment(wall: float) -> Moment:
    """``wall`` (seconds since 1970 UTC) as ISO 8601 with milliseconds, as JavaScript writes it."""
    moment = datetime.fromtimestamp(round(wall * 1000) / 1000, UTC)
    text = moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")
    return Moment(text, wall)
