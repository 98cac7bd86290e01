"""Fresh key pairs, as text: age's for encrypting, Ed25519 for signing."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime

from clef_agent.keys import encode_base64


@dataclass(frozen=True, slots=True)
class KeyPair:
    """``private`` is a whole file's content; ``public`` one line, and what it is good for."""

    private: bytes = field(repr=False)
    public: str
    public_label: str


def age_pair(wall: float) -> KeyPair:
    """An X25519 pair, in the form that ``age-keygen`` prints it; made at ``wall``.

    Source: https://github.com/C2SP/C2SP/blob/main/age.md#the-x25519-recipient-type
    """
    import pyrage

    identity = pyrage.x25519.Identity.generate()
    recipient = str(identity.to_public())
    created = datetime.fromtimestamp(int(wall), UTC).isoformat().replace("+00:00", "Z")
    text = f"# created: {created}\n# public key: {recipient}\n{identity}\n"
    return KeyPair(text.encode("ascii"), recipient, "public key, for pack --recipient")


def signing_pair() -> KeyPair:
    """An Ed25519 pair: PKCS#8 in PEM, and base64 of DER SPKI.

    Source: RFC 8410 (Ed25519 in PKCS#8 and SPKI), RFC 7468 (PEM)
    """
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ed25519

    key = ed25519.Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    text = encode_base64(public)
    # Behind the key, where readers of PEM look no more.
    private += f"# public key: {text}\n".encode("ascii")
    return KeyPair(private, text, "public key, for CLEF_AGENT_VERIFY_KEY")
