"""Key material as configuration carries it: age identities and verification keys.

Parsing happens once, where the text comes in, so that a malformed key is known at start.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:  # both are loaded where they are first used, not at start
    import pyrage
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    VerifyKey: TypeAlias = Ed25519PublicKey | EllipticCurvePublicKey

#: age private keys, https://github.com/C2SP/C2SP/blob/main/age.md#the-x25519-recipient-type
_AGE_IDENTITY = "AGE-SECRET-KEY-1"
_AGE_HYBRID_IDENTITY = "AGE-SECRET-KEY-PQ-1"

#: Base64 is decoded in pieces of so many characters: one call for 10 MB would hold the interpreter
#: for 50 ms, and with it the event loop in another thread.
_PIECE_CHARS = 512 * 1024


class KeyMalformed(ValueError):
    """Text that holds no usable key. The message says where, and never what stands there."""


def parse_age_identities(text: str) -> tuple[pyrage.x25519.Identity, ...]:
    """The X25519 identities in ``text``: one a line, comments (``#``) and blank lines allowed.

    Raises:
        KeyMalformed: no identity at all, or a line that is none.
    """
    import pyrage

    identities = []
    for number, raw_line in enumerate(text.splitlines(), start=1):
        line = raw_line.strip()
        if not line or line.startswith("#"):
            continue
        if line.upper().startswith(_AGE_HYBRID_IDENTITY):
            raise KeyMalformed(
                f"line {number} is a post-quantum age identity, which is not supported;"
                f" use an {_AGE_IDENTITY}... key"
            )
        try:
            identities.append(pyrage.x25519.Identity.from_str(line))
        except (pyrage.IdentityError, UnicodeEncodeError):
            # The cause is dropped: it could repeat a part of the key.
            raise KeyMalformed(
                f"line {number} is not an age identity ({_AGE_IDENTITY}...)"
            ) from None
    if not identities:
        raise KeyMalformed(f"there is no age identity ({_AGE_IDENTITY}...) in it")
    return tuple(identities)


def parse_verify_key(text: str) -> VerifyKey:
    """An Ed25519 or ECDSA P-256 public key from base64 of DER SPKI, or from PEM.

    Raises:
        KeyMalformed: neither encoding, or another type of key.

    Source: RFC 5280 section 4.1 (SubjectPublicKeyInfo), RFC 8410, RFC 5480
    """
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    text = text.strip()
    try:
        if text.startswith("-----BEGIN"):
            key = serialization.load_pem_public_key(text.encode())
        else:
            key = serialization.load_der_public_key(decode_base64(text))
    except (ValueError, UnsupportedAlgorithm):
        raise KeyMalformed("it is neither base64 of a DER public key (SPKI) nor PEM") from None
    if isinstance(key, ed25519.Ed25519PublicKey):
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1):
        return key
    raise KeyMalformed("it is a public key, but neither Ed25519 nor ECDSA P-256")


def decode_base64(text: str) -> bytes:
    """The bytes behind base64 ``text`` in the standard or the URL-safe alphabet, padded or not.

    Nothing else is tolerated: no white space, no character of neither alphabet.

    Raises:
        ValueError: not base64.

    Source: RFC 4648 sections 4 and 5
    """
    try:
        ascii_text = text.encode("ascii")
    except UnicodeEncodeError:
        raise ValueError("not base64: it has characters beyond ASCII") from None
    if b"-" in ascii_text or b"_" in ascii_text:
        ascii_text = ascii_text.replace(b"-", b"+").replace(b"_", b"/")
    if not ascii_text.endswith(b"="):
        ascii_text += b"=" * (-len(ascii_text) % 4)
    elif len(ascii_text) % 4 or ascii_text.endswith(b"==="):  # binascii passes some of these
        raise ValueError("not base64: its padding is neither whole nor absent")
    if b"=" in ascii_text[:-2]:  # a piece could end there, and be taken for whole
        raise ValueError("not base64: padding stands before its end")
    try:
        return b"".join(
            binascii.a2b_base64(ascii_text[start : start + _PIECE_CHARS], strict_mode=True)
            for start in range(0, len(ascii_text), _PIECE_CHARS)
        )
    except binascii.Error as exc:
        raise ValueError("not base64") from exc


def encode_base64(data: bytes) -> str:
    """Standard base64 with padding, as the format's writers have it."""
    return base64.b64encode(data).decode("ascii")
