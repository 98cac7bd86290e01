from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed448, ed25519, rsa

from clef_agent.artifact.pack import Packing, RecipientMalformed, ToRecipients, pack, revocation
from clef_agent.artifact.parse import parse
from clef_agent.artifact.signing import (
    EcdsaP256Signer,
    Ed25519Signer,
    Signer,
    load_signer,
)
from clef_agent.artifact.verify import Policy, verify
from clef_agent.errors import Revoked
from clef_agent.keys import KeyMalformed, decode_base64, encode_base64
from fakes import (
    AGE_RECIPIENT,
    ECDSA_KEY,
    ECDSA_SIGNER,
    ED25519_KEY,
    ED25519_SIGNER,
    NOW,
    PAYLOAD,
    FakeKeyService,
    packed,
    shared,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PrivateKeyTypes


def field_order(document: Mapping[str, object]) -> list[str]:
    envelope = document.get("envelope")
    return [*document, *(envelope if isinstance(envelope, dict) else ())]


@pytest.mark.parametrize(
    ("reference", "ours"),
    [
        ("age-two-namespaces", packed()),
        ("signed-ed25519", packed(signer=ED25519_SIGNER)),
        ("signed-ed25519-with-expiry", packed(signer=ED25519_SIGNER, expires_at=NOW)),
        ("signed-ecdsa-p256", packed(signer=ECDSA_SIGNER)),
        ("kms-aws", packed(service=FakeKeyService())),
        ("kms-aws-signed", packed(service=FakeKeyService(), signer=ED25519_SIGNER)),
    ],
)
def test_fields_stand_in_the_order_and_form_of_the_reference(reference: str, ours: bytes) -> None:
    theirs = json.loads((shared("vectors") / f"{reference}.json").read_bytes())
    mine = json.loads(ours)
    assert field_order(mine) == field_order(theirs)
    assert mine["version"] == theirs["version"]
    assert mine.get("signatureAlgorithm") == theirs.get("signatureAlgorithm")
    for name in ("packedAt", "revision", "ciphertextHash"):
        shape = re.sub(r"[0-9a-f]", "0", theirs[name])
        assert re.sub(r"[0-9a-f]", "0", mine[name]) == shape


def test_what_is_packed_is_what_was_asked_for() -> None:
    document = json.loads(packed(expires_at=NOW + 0.5, signer=ED25519_SIGNER))
    assert document["packedAt"] == "2027-01-15T08:00:00.000Z"
    assert document["expiresAt"] == "2027-01-15T08:00:00.500Z"
    assert document["revision"].startswith("1800000000000-")
    text = document["ciphertext"]
    assert document["ciphertextHash"] == hashlib.sha256(text.encode()).hexdigest()
    assert decode_base64(text).startswith(b"age-encryption.org/v1\n")


def test_an_envelope_has_a_fresh_key_and_a_whole_tag() -> None:
    service = FakeKeyService()
    first, second = (json.loads(packed(service=service))["envelope"] for _ in range(2))
    assert len(decode_base64(first["iv"])) == 12
    assert len(decode_base64(first["authTag"])) == 16
    assert first["iv"] != second["iv"]
    assert first["wrappedKey"] != second["wrappedKey"]
    assert (first["provider"], first["keyId"]) == (service.provider, service.key_id)


def test_two_packings_of_one_payload_have_two_revisions() -> None:
    assert json.loads(packed())["revision"] != json.loads(packed())["revision"]


@pytest.mark.parametrize(
    "recipient", ["", "age1", "ssh-ed25519 AAAA", AGE_RECIPIENT[:-1], AGE_RECIPIENT + "x", "\ud800"]
)
def test_a_malformed_recipient_is_named_by_its_position(recipient: str) -> None:
    packing = Packing(
        identity="a",
        environment="b",
        encryption=ToRecipients([f" {AGE_RECIPIENT}\n", recipient]),
        packed_at=NOW,
    )
    with pytest.raises(RecipientMalformed, match="recipient 2"):
        pack(PAYLOAD, packing)


def test_no_recipient_at_all_is_refused() -> None:
    packing = Packing(identity="a", environment="b", encryption=ToRecipients([]), packed_at=NOW)
    with pytest.raises(RecipientMalformed):
        pack(PAYLOAD, packing)


def test_a_revocation_keeps_the_artifact_and_is_honoured() -> None:
    data = packed(signer=ED25519_SIGNER)
    revoked = revocation(json.loads(data), NOW)
    with pytest.raises(Revoked) as caught:
        parse(revoked)
    assert caught.value.revoked_at == "2027-01-15T08:00:00.000Z"
    document = json.loads(revoked)
    assert document.pop("revokedAt") == "2027-01-15T08:00:00.000Z"
    assert document == json.loads(data)


def test_no_repr_of_a_packing_shows_a_signer() -> None:
    packing = Packing(
        identity="a",
        environment="b",
        encryption=ToRecipients([]),
        packed_at=NOW,
        signer=ED25519_SIGNER,
    )
    assert "igner" not in repr(packing)


# --- signing keys -------------------------------------------------------------------------------


def pkcs8(key: PrivateKeyTypes, password: bytes | None = None) -> tuple[bytes, bytes]:
    encryption = (
        serialization.NoEncryption()
        if password is None
        else serialization.BestAvailableEncryption(password)
    )
    pem, der = (
        key.private_bytes(encoding, serialization.PrivateFormat.PKCS8, encryption)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    )
    return pem, encode_base64(der).encode()


@pytest.mark.parametrize("position", [0, 1], ids=["PEM", "DER"])
@pytest.mark.parametrize(
    ("key", "kind"), [(ED25519_KEY, Ed25519Signer), (ECDSA_KEY, EcdsaP256Signer)]
)
def test_a_signing_key_comes_in_pem_or_der(
    key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey,
    kind: type[Signer],
    position: int,
) -> None:
    signer = load_signer(b"\n" + pkcs8(key)[position] + b"\n")
    assert isinstance(signer, kind)
    verify(parse(packed(signer=signer)), Policy(verify_key=key.public_key()), wall=NOW)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xff",
        b"AAAA",
        # No key is in it.
        b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----",  # pragma: allowlist secret
        *pkcs8(ED25519_KEY, b"password"),
        *pkcs8(rsa.generate_private_key(65537, 2048)),
        *pkcs8(ec.generate_private_key(ec.SECP384R1())),
        *pkcs8(ed448.Ed448PrivateKey.generate()),
    ],
)
def test_what_is_no_signing_key_is_refused(data: bytes) -> None:
    with pytest.raises(KeyMalformed):
        load_signer(data)
