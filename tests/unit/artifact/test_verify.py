from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import (
    decode_dss_signature,
    encode_dss_signature,
)
from hypothesis import assume, given
from hypothesis import strategies as st

from clef_agent.artifact.model import Artifact, Expectation, RollbackMark
from clef_agent.artifact.parse import parse
from clef_agent.artifact.signing import Signer, signing_payload
from clef_agent.artifact.verify import MAX_AHEAD_S, Policy, VerifiedArtifact, verify
from clef_agent.errors import ArtifactError
from clef_agent.keys import decode_base64, encode_base64
from fakes import (
    ECDSA_KEY,
    ECDSA_SIGNER,
    ED25519_KEY,
    ED25519_SIGNER,
    ENVIRONMENT,
    IDENTITY,
    NOW,
    OTHER_ED25519_KEY,
    OTHER_ED25519_SIGNER,
    Document,
    FakeKeyService,
    changed,
    packed,
    rehashed,
    signed,
    with_envelope,
    without,
)

if TYPE_CHECKING:
    from clef_agent.keys import VerifyKey

ED25519 = Policy(verify_key=ED25519_KEY.public_key())
ECDSA = Policy(verify_key=ECDSA_KEY.public_key())
SERVICE = FakeKeyService()
SIGNED = packed(signer=ED25519_SIGNER, expires_at=NOW + 3600)
SEALED = packed(signer=ED25519_SIGNER, expires_at=NOW + 3600, service=SERVICE)

P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551


def reason(
    data: bytes, policy: Policy = ED25519, *, wall: float = NOW, mark: RollbackMark | None = None
) -> str:
    artifact = parse(data)
    with pytest.raises(ArtifactError) as caught:
        verify(artifact, policy, wall=wall, mark=mark)
    return caught.value.reason


def accepted(
    data: bytes, policy: Policy = ED25519, *, wall: float = NOW, mark: RollbackMark | None = None
) -> Artifact:
    return verify(parse(data), policy, wall=wall, mark=mark).artifact


# --- the proof is a type ------------------------------------------------------------------------


def test_only_verify_makes_a_verified_artifact() -> None:
    # case 1
    artifact = parse(SIGNED)
    with pytest.raises(TypeError):
        VerifiedArtifact(artifact, proof=object())
    with pytest.raises(TypeError):
        VerifiedArtifact(artifact)  # type: ignore[call-arg]


def test_what_was_proven_cannot_be_exchanged_afterwards() -> None:
    proven = verify(parse(SIGNED), ED25519, wall=NOW)
    with pytest.raises(AttributeError):
        proven.artifact = parse(packed())  # type: ignore[misc]


# --- step 4: hash -------------------------------------------------------------------------------


def test_the_hash_is_of_the_base64_text_and_not_of_the_bytes_behind_it() -> None:
    document = json.loads(SIGNED)
    text = document["ciphertext"]
    assert document["ciphertextHash"] == hashlib.sha256(text.encode()).hexdigest()
    over_bytes = hashlib.sha256(decode_base64(text)).hexdigest()
    assert reason(changed(SIGNED, ciphertextHash=over_bytes), Policy()) == "integrity"


@pytest.mark.parametrize("found", ["x", "0" * 64, "é", "a" * 63, "🔑" * 64])
def test_another_hash_is_refused_with_or_without_a_key(found: str) -> None:
    # case 1
    assert reason(changed(SIGNED, ciphertextHash=found), Policy()) == "integrity"
    assert reason(changed(SIGNED, ciphertextHash=found), ED25519) == "integrity"


def test_the_revision_says_nothing_about_the_hash() -> None:
    # case 1
    other = packed()
    same_revision = changed(other, revision=json.loads(SIGNED)["revision"], ciphertext="AAAA")
    assert reason(same_revision, Policy()) == "integrity"


def test_ciphertext_beyond_ascii_is_hashed_and_not_a_crash() -> None:
    accepted(rehashed(packed(), "schlüssel"), Policy())
    assert reason(changed(packed(), ciphertext="schlüssel"), Policy()) == "integrity"


# --- step 5: signature --------------------------------------------------------------------------


@pytest.mark.parametrize("signer", [ED25519_SIGNER, ECDSA_SIGNER])
@pytest.mark.parametrize("service", [None, SERVICE])
def test_a_signature_by_the_keys_holder_is_accepted(
    signer: Signer, service: FakeKeyService | None
) -> None:
    policy = ED25519 if signer is ED25519_SIGNER else ECDSA
    accepted(packed(signer=signer, service=service), policy)
    accepted(packed(signer=signer, service=service, expires_at=NOW + 1), policy)


def test_the_payload_that_is_signed_is_the_fields_in_their_order() -> None:
    for data in (SIGNED, SEALED, packed()):
        document = json.loads(data)
        envelope = document.get("envelope", {})
        expected = [
            "clef-sig-v3",
            "1",
            document["identity"],
            document["environment"],
            document["revision"],
            document["packedAt"],
            document["ciphertextHash"],
            document.get("expiresAt", ""),
            *[
                envelope.get(name, "")
                for name in ("provider", "keyId", "wrappedKey", "algorithm", "iv", "authTag")
            ],
        ]
        assert signing_payload(parse(data)) == "\n".join(expected).encode()
        assert signing_payload(parse(data)).count(b"\n") == 13


def test_dates_are_signed_as_they_are_written() -> None:
    data = changed(SIGNED, packedAt="2027-01-15t08:00:00.000z", expiresAt="2028-01-01")
    lines = signing_payload(parse(data)).decode().split("\n")
    assert lines[5] == "2027-01-15t08:00:00.000z"
    assert lines[7] == "2028-01-01"
    accepted(signed(data))


@pytest.mark.parametrize("value", [None, ""])
def test_no_signature_is_missing_where_a_key_is_configured(value: str | None) -> None:
    # case 1
    assert reason(changed(SIGNED, signature=value)) == "signature_missing"
    assert reason(without(SIGNED, "signature")) == "signature_missing"
    accepted(changed(SIGNED, signature=value), Policy())


@pytest.mark.parametrize(
    "signature",
    [
        "!",
        "é",
        " ",
        "AAAA",
        encode_base64(bytes(64)),
        encode_base64(bytes(63)),
        encode_base64(bytes(10_000)),
        encode_base64(bytes.fromhex("3006020100020100")),
        "A" * 5,
    ],
)
@pytest.mark.parametrize("policy", [ED25519, ECDSA])
def test_rubbish_in_place_of_a_signature_is_invalid(policy: Policy, signature: str) -> None:
    assert reason(changed(SIGNED, signature=signature), policy) == "signature_invalid"


def test_a_signature_of_another_key_is_invalid() -> None:
    assert reason(packed(signer=OTHER_ED25519_SIGNER)) == "signature_invalid"
    assert reason(packed(signer=ECDSA_SIGNER), ED25519) == "signature_invalid"
    assert reason(packed(signer=ED25519_SIGNER), ECDSA) == "signature_invalid"


@pytest.mark.parametrize("claim", ["ECDSA_SHA256", "Ed25519", "none", "HMAC", "", None])
def test_the_algorithm_is_the_keys_whatever_the_artifact_claims(claim: str | None) -> None:
    accepted(changed(SIGNED, signatureAlgorithm=claim))
    accepted(changed(packed(signer=ECDSA_SIGNER), signatureAlgorithm=claim), ECDSA)
    forged = changed(packed(signer=OTHER_ED25519_SIGNER), signatureAlgorithm=claim)
    assert reason(forged) == "signature_invalid"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("identity", "other"),
        ("environment", "staging"),
        ("revision", "1-x"),
        ("packedAt", "2027-01-15T08:00:00.001Z"),
        ("packedAt", "2027-01-15T08:00:00Z"),  # the same instant, other text
        ("expiresAt", "2099-01-01"),
        ("expiresAt", None),
    ],
)
def test_a_signed_field_that_was_changed_is_invalid(field: str, value: str | None) -> None:
    # case 4
    assert reason(changed(SIGNED, **{field: value})) == "signature_invalid"


def test_the_case_of_the_hash_is_signed_too() -> None:
    upper = json.loads(SIGNED)["ciphertextHash"].upper()
    accepted(changed(SIGNED, ciphertextHash=upper), Policy())
    assert reason(changed(SIGNED, ciphertextHash=upper)) == "signature_invalid"


@pytest.mark.parametrize("name", ["provider", "keyId", "wrappedKey", "algorithm", "iv", "authTag"])
def test_an_envelope_field_that_was_changed_is_invalid(name: str) -> None:
    # case 4
    assert reason(with_envelope(SEALED, **{name: "AAAA"})) == "signature_invalid"


def test_an_envelope_that_was_added_or_taken_away_is_invalid() -> None:
    assert reason(without(SEALED, "envelope")) == "signature_invalid"
    added = changed(SIGNED, envelope=json.loads(SEALED)["envelope"])
    assert reason(added) == "signature_invalid"


def test_another_ciphertext_under_the_same_signature_is_invalid() -> None:
    assert reason(rehashed(SIGNED, b"another")) == "signature_invalid"


def test_an_ecdsa_signature_is_der_and_not_two_numbers_side_by_side() -> None:
    data = packed(signer=ECDSA_SIGNER)
    der = decode_base64(json.loads(data)["signature"])
    r, s = decode_dss_signature(der)
    raw = r.to_bytes(32, "big") + s.to_bytes(32, "big")
    assert reason(changed(data, signature=encode_base64(raw)), ECDSA) == "signature_invalid"
    trailing = encode_base64(der + b"\0")
    assert reason(changed(data, signature=trailing), ECDSA) == "signature_invalid"


def test_both_halves_of_the_order_are_good_for_an_ecdsa_signature() -> None:
    # Signers other than Bitcoin's do not normalise s; about every second signature is high.
    data = packed(signer=ECDSA_SIGNER)
    r, s = decode_dss_signature(decode_base64(json.loads(data)["signature"]))
    for value in (s, P256_ORDER - s):
        twin = encode_base64(encode_dss_signature(r, value))
        accepted(changed(data, signature=twin), ECDSA)
    for pair in ((0, s), (r, 0), (P256_ORDER, s), (r, s + P256_ORDER)):
        broken = encode_base64(encode_dss_signature(*pair))
        assert reason(changed(data, signature=broken), ECDSA) == "signature_invalid"


def test_a_signature_may_be_url_safe_and_unpadded() -> None:
    # case 28
    signature = json.loads(SIGNED)["signature"]
    url_safe = signature.replace("+", "-").replace("/", "_").rstrip("=")
    accepted(changed(SIGNED, signature=url_safe))


# --- step 6: for whom, and not older ------------------------------------------------------------


@pytest.mark.parametrize(
    "expected",
    [
        Expectation("other"),
        Expectation(None, "staging"),
        Expectation(IDENTITY, "staging"),
        Expectation("other", ENVIRONMENT),
    ],
)
def test_an_artifact_for_somebody_else_is_refused_though_signed(expected: Expectation) -> None:
    # case 4
    policy = Policy(verify_key=ED25519.verify_key, expected=expected)
    assert reason(SIGNED, policy) == "identity_mismatch"


def test_an_artifact_for_us_is_accepted() -> None:
    accepted(SIGNED, Policy(expected=Expectation(IDENTITY, ENVIRONMENT)))


GUARDED = Policy(verify_key=ED25519_KEY.public_key(), rollback_protection=True)


@pytest.mark.parametrize(
    ("packed_at", "mark", "refused"),
    [
        (NOW, None, False),
        (NOW, RollbackMark(NOW), False),
        (NOW, RollbackMark(NOW - 1), False),
        (NOW - 0.001, RollbackMark(NOW), True),
        (NOW - 86400, RollbackMark(NOW), True),
        (NOW, RollbackMark(NOW, revoked=True), True),
        (NOW - 1, RollbackMark(NOW, revoked=True), True),
        (NOW + 0.001, RollbackMark(NOW, revoked=True), False),
        (NOW + MAX_AHEAD_S, None, False),
        (NOW + MAX_AHEAD_S + 0.001, None, True),
        (NOW + MAX_AHEAD_S + 0.001, RollbackMark(NOW), True),
    ],
)
def test_rollback_protection_compares_instants(
    packed_at: float, mark: RollbackMark | None, refused: bool
) -> None:
    # case 4
    data = packed(packed_at=packed_at, signer=ED25519_SIGNER)
    if refused:
        assert reason(data, GUARDED, mark=mark) == "rollback"
    else:
        accepted(data, GUARDED, mark=mark)
    accepted(data, ED25519, mark=mark)


def test_rollback_protection_does_not_compare_texts() -> None:
    # 10:00 at +02:00 is 08:00 UTC: later as text, and the same instant.
    same = signed(changed(SIGNED, packedAt="2027-01-15T10:00:00+02:00"))
    accepted(same, GUARDED, mark=RollbackMark(NOW))
    older = signed(changed(SIGNED, packedAt="2027-01-15T09:59:59+02:00"))
    assert reason(older, GUARDED, mark=RollbackMark(NOW)) == "rollback"


# --- step 7: expiry -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wall", "expired"), [(NOW + 3599.999, False), (NOW + 3600, True), (NOW + 10**9, True)]
)
def test_an_artifact_is_refused_from_its_expiry_on(wall: float, expired: bool) -> None:
    # case 2
    assert parse(SIGNED).has_expired(wall) is expired
    if expired:
        assert reason(SIGNED, wall=wall) == "expired"
    else:
        accepted(SIGNED, wall=wall)


def test_an_artifact_without_expiry_does_not_expire() -> None:
    assert not parse(packed()).has_expired(1e18)
    accepted(packed(), Policy(), wall=1e18)


# --- the order of checks ------------------------------------------------------------------------


def test_each_step_is_asked_only_when_those_before_it_passed() -> None:
    strict = Policy(
        verify_key=ED25519_KEY.public_key(),
        expected=Expectation("other"),
        rollback_protection=True,
    )
    us = Policy(verify_key=strict.verify_key, rollback_protection=True)
    lax = Policy(verify_key=strict.verify_key)
    wall, mark = NOW + 10**6, RollbackMark(NOW + 1)
    bad_hash = changed(SIGNED, ciphertextHash="0" * 64)
    assert reason(without(bad_hash, "signature"), strict, wall=wall, mark=mark) == "integrity"
    unsigned = without(SIGNED, "signature")
    assert reason(unsigned, strict, wall=wall, mark=mark) == "signature_missing"
    tampered = changed(SIGNED, revision="x")
    assert reason(tampered, strict, wall=wall, mark=mark) == "signature_invalid"
    assert reason(SIGNED, strict, wall=wall, mark=mark) == "identity_mismatch"
    assert reason(SIGNED, us, wall=wall, mark=mark) == "rollback"
    assert reason(SIGNED, lax, wall=wall, mark=mark) == "expired"


def test_no_repr_of_a_policy_shows_a_key() -> None:
    assert repr(OTHER_ED25519_KEY.public_key()) not in repr(Policy(OTHER_ED25519_KEY.public_key()))
    assert "verify_key" not in repr(ED25519)


# --- any change ---------------------------------------------------------------------------------

PROVEN = ("identity", "environment", "packedAt", "revision", "ciphertextHash", "expiresAt")


def proven_part(artifact: Artifact) -> tuple[object, ...]:
    """All that the signature covers, and the ciphertext that its hash covers."""
    return (signing_payload(artifact), artifact.ciphertext)


@given(st.sampled_from([(SIGNED, ED25519.verify_key), (SEALED, ED25519.verify_key)]), st.data())
def test_no_mangled_artifact_is_accepted_unless_it_says_the_same(
    sample: tuple[bytes, VerifyKey | None], draw: st.DataObject
) -> None:
    data, key = sample
    mangled = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 3))):
        at = draw.draw(st.integers(0, len(mangled) - 1))
        mangled[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    assume(bytes(mangled) != data)
    try:
        found = verify(parse(bytes(mangled)), Policy(verify_key=key), wall=NOW).artifact
    except ArtifactError:
        return
    assert proven_part(found) == proven_part(parse(data))


@given(
    st.dictionaries(
        st.sampled_from([*PROVEN, "ciphertext", "signature", "envelope"]),
        st.none() | st.text(max_size=6) | st.just("2027-01-15T08:00:00Z"),
        min_size=1,
        max_size=3,
    )
)
def test_no_rewritten_artifact_is_accepted_unless_it_says_the_same(fields: Document) -> None:
    kept: dict[str, Any] = {k: v for k, v in fields.items() if v is not None or k in PROVEN}
    try:
        found = verify(parse(changed(SIGNED, **kept)), ED25519, wall=NOW).artifact
    except ArtifactError:
        return
    assert proven_part(found) == proven_part(parse(SIGNED))
