"""The bytes that a signature covers, and signatures made with a private key at hand.

Source: the signing payload ``clef-sig-v3`` of clef; Ed25519 in RFC 8032; ECDSA P-256 over SHA-256
with an ASN.1 DER signature (RFC 3279 section 2.2.3)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from clef_agent.artifact.model import FORMAT_VERSION, Artifact
from clef_agent.keys import KeyMalformed

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

_DOMAIN = "clef-sig-v3"


def signing_payload(artifact: Artifact) -> bytes:
    """What is signed: the fields in their fixed order, joined by a line feed, absent ones empty."""
    envelope = artifact.envelope
    wrapping = (
        ("",) * 6
        if envelope is None
        else (
            envelope.provider,
            envelope.key_id,
            envelope.wrapped_key,
            envelope.algorithm,
            envelope.iv,
            envelope.auth_tag,
        )
    )
    fields = (
        _DOMAIN,
        str(FORMAT_VERSION),
        artifact.identity,
        artifact.environment,
        artifact.revision,
        artifact.packed_at.text,
        artifact.ciphertext_hash,
        artifact.expires_at.text if artifact.expires_at else "",
        *wrapping,
    )
    return "\n".join(fields).encode("utf-8")


class Signer(Protocol):
    """Makes signatures; a key at hand, or one that never leaves a key service."""

    #: What ``signatureAlgorithm`` says.
    algorithm: str

    def sign(self, payload: bytes) -> bytes:
        """The signature over ``payload``: 64 bytes for Ed25519, ASN.1 DER for ECDSA."""
        ...


class Ed25519Signer:
    """Signs with an Ed25519 key at hand."""

    algorithm = "Ed25519"

    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key

    def sign(self, payload: bytes) -> bytes:
        """64 bytes."""
        return self._key.sign(payload)


class EcdsaP256Signer:
    """Signs with an ECDSA P-256 key at hand."""

    algorithm = "ECDSA_SHA256"

    def __init__(self, key: EllipticCurvePrivateKey) -> None:
        self._key = key

    def sign(self, payload: bytes) -> bytes:
        """ASN.1 DER."""
        from cryptography.hazmat.primitives import hashes
        from cryptography.hazmat.primitives.asymmetric import ec

        return self._key.sign(payload, ec.ECDSA(hashes.SHA256()))


def load_signer(pem_or_der: bytes) -> Signer:
    """A signer for a PKCS#8 private key in PEM or in base64 of DER, Ed25519 or ECDSA P-256.

    Raises:
        KeyMalformed: no such key.

    Source: RFC 5958 (PKCS#8), RFC 8410
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    from clef_agent.keys import decode_base64

    text = pem_or_der.strip()
    try:
        if text.startswith(b"-----BEGIN"):
            key = serialization.load_pem_private_key(text, password=None)
        else:
            key = serialization.load_der_private_key(decode_base64(text.decode()), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        # The cause is dropped: parsers quote what they could not read.
        raise KeyMalformed(
            "it is no unencrypted PKCS#8 private key, in PEM or base64 of DER"
        ) from None
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return Ed25519Signer(key)
    if isinstance(key, ec.EllipticCurvePrivateKey) and isinstance(key.curve, ec.SECP256R1):
        return EcdsaP256Signer(key)
    raise KeyMalformed("it is a private key, but neither Ed25519 nor ECDSA P-256")
