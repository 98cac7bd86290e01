from __future__ import annotations

import base64
import re
import traceback
from typing import TYPE_CHECKING

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed448, ed25519, rsa, x25519
from hypothesis import example, given
from hypothesis import strategies as st

from clef_agent.keys import (
    KeyMalformed,
    decode_base64,
    encode_base64,
    parse_age_identities,
    parse_verify_key,
)
from fakes import (
    AGE_KEY,
    AGE_RECIPIENT,
    ECDSA_KEY,
    ECDSA_VERIFY_KEY,
    ED25519_KEY,
    ED25519_VERIFY_KEY,
    OTHER_AGE_KEY,
    OTHER_AGE_RECIPIENT,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes


def recipients(text: str) -> list[str]:
    return [str(identity.to_public()) for identity in parse_age_identities(text)]


def pem(key: PublicKeyTypes) -> str:
    return key.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    ).decode()


def der(key: PublicKeyTypes) -> str:
    return encode_base64(
        key.public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )


# --- age identities -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (AGE_KEY, [AGE_RECIPIENT]),
        (AGE_KEY + "\n", [AGE_RECIPIENT]),
        (f"  {AGE_KEY}\t\r\n", [AGE_RECIPIENT]),
        (f"# public key: {AGE_RECIPIENT}\n\n{AGE_KEY}\n# end", [AGE_RECIPIENT]),
        (f"{AGE_KEY}\n{OTHER_AGE_KEY}", [AGE_RECIPIENT, OTHER_AGE_RECIPIENT]),
        (AGE_KEY.lower(), [AGE_RECIPIENT]),
    ],
)
def test_identities_stand_one_a_line_among_comments(text: str, expected: list[str]) -> None:
    # case 26
    assert recipients(text) == expected


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", "no age identity"),
        ("\n# only a comment\n", "no age identity"),
        (AGE_RECIPIENT, "line 1"),
        (f"{AGE_KEY}\n\n{AGE_KEY[:-1]}", "line 3"),
        (AGE_KEY[:-1] + ("Q" if AGE_KEY[-1] != "Q" else "P"), "line 1"),
        (f"{AGE_KEY} {OTHER_AGE_KEY}", "line 1"),
        (f"{AGE_KEY} # trailing", "line 1"),
        ("AGE-SECRET-KEY-PQ-1QQQQ", "line 1 is a post-quantum"),
        ("age-secret-key-pq-1qqqq", "line 1 is a post-quantum"),
        ("\udcff", "line 1"),
    ],
)
def test_a_line_that_is_no_identity_is_named_and_not_quoted(text: str, where: str) -> None:
    # case 26
    with pytest.raises(KeyMalformed, match=where) as caught:
        parse_age_identities(text)
    rendered = "".join(traceback.format_exception(caught.value))
    assert AGE_KEY[20:] not in rendered
    assert AGE_KEY[20:-1] not in rendered


@given(st.text(max_size=60) | st.text("AGE-SECRETKY-1QPZRacdefhj\n#", max_size=90))
def test_any_text_is_identities_or_malformed(text: str) -> None:
    try:
        found = len(parse_age_identities(text))
    except KeyMalformed:
        found = 1
    assert found > 0


# --- verification keys --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        ED25519_VERIFY_KEY,
        f" {ED25519_VERIFY_KEY}\n",
        ED25519_VERIFY_KEY.rstrip("="),
        ED25519_VERIFY_KEY.replace("+", "-").replace("/", "_"),
        pem(ED25519_KEY.public_key()),
        "\n" + pem(ED25519_KEY.public_key()).replace("\n", "\r\n"),
    ],
)
def test_an_ed25519_key_comes_in_der_or_pem(text: str) -> None:
    key = parse_verify_key(text)
    assert isinstance(key, ed25519.Ed25519PublicKey)
    assert key == ED25519_KEY.public_key()


@pytest.mark.parametrize("text", [ECDSA_VERIFY_KEY, pem(ECDSA_KEY.public_key())])
def test_a_p256_key_comes_in_der_or_pem(text: str) -> None:
    key = parse_verify_key(text)
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert key == ECDSA_KEY.public_key()


@pytest.mark.parametrize(
    "key",
    [
        rsa.generate_private_key(65537, 2048).public_key(),
        ec.generate_private_key(ec.SECP384R1()).public_key(),
        ec.generate_private_key(ec.SECP256K1()).public_key(),
        ed448.Ed448PrivateKey.generate().public_key(),
        x25519.X25519PrivateKey.generate().public_key(),
        dsa.generate_private_key(2048).public_key(),
    ],
    ids=lambda key: type(key).__name__,
)
def test_another_type_of_public_key_is_refused(key: PublicKeyTypes) -> None:
    for text in (pem(key), der(key)):
        with pytest.raises(KeyMalformed, match="neither"):
            parse_verify_key(text)


PRIVATE_PEM = ED25519_KEY.private_bytes(
    serialization.Encoding.PEM,
    serialization.PrivateFormat.PKCS8,
    serialization.NoEncryption(),
).decode()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "AAAA",
        "not base64!",
        ED25519_VERIFY_KEY[:-8],
        encode_base64(base64.b64decode(ED25519_VERIFY_KEY) + b"\0"),
        encode_base64(base64.b64decode(ED25519_VERIFY_KEY)[12:]),
        encode_base64(pem(ED25519_KEY.public_key()).encode()),
        PRIVATE_PEM,
        "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----",
        "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----",
        "-----BEGIN \ud800",
        "schlüssel",
    ],
)
def test_what_is_no_public_key_is_refused_and_not_quoted(text: str) -> None:
    with pytest.raises(KeyMalformed) as caught:
        parse_verify_key(text)
    rendered = "".join(traceback.format_exception(caught.value))
    assert PRIVATE_PEM.splitlines()[1] not in rendered


@given(st.binary(max_size=120) | st.binary(max_size=60).map(lambda b: b"0Y0\x13\x06\x07" + b))
def test_any_bytes_are_a_verify_key_or_malformed(data: bytes) -> None:
    with pytest.raises(KeyMalformed):
        parse_verify_key(encode_base64(data))


# --- base64 -------------------------------------------------------------------------------------

_WHOLE_OR_ABSENT_PADDING = re.compile(
    r"(?:[A-Za-z0-9+/_-]{4})*"
    r"(?:[A-Za-z0-9+/_-]{2}(?:==)?|[A-Za-z0-9+/_-]{3}=?)?"
)


def reference(text: str) -> bytes | None:
    """Base64 by its grammar and bit by bit; None for what is none."""
    if _WHOLE_OR_ABSENT_PADDING.fullmatch(text) is None:
        return None
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    digits = text.rstrip("=").replace("-", "+").replace("_", "/")
    bits = "".join(f"{alphabet.index(digit):06b}" for digit in digits)
    return bytes(int(bits[i : i + 8], 2) for i in range(0, len(bits) - 7, 8))


def decoded(text: str) -> bytes | None:
    try:
        return decode_base64(text)
    except ValueError:
        return None


@given(st.binary(max_size=100))
def test_both_alphabets_decode_padded_or_not(data: bytes) -> None:
    # case 28
    standard, url_safe = encode_base64(data), base64.urlsafe_b64encode(data).decode()
    for text in (standard, url_safe, standard.rstrip("="), url_safe.rstrip("=")):
        assert decode_base64(text) == data


@given(st.text("AQZaz09+/-_=", max_size=14) | st.text(max_size=8))
@example("=")
@example("====")
@example("A")
@example("A===")
@example("AA=")
@example("AAA==")
@example("AAAA=")
@example("AAAA====")
@example("AA==AA==")
@example("AA\n==")
@example(" AAAA")
@example("AAAA\n")
@example("AB")
@example("\ud800")
def test_base64_is_read_as_its_grammar_says(text: str) -> None:
    # case 28
    assert decoded(text) == reference(text)


def test_base64_of_several_pieces_is_read_as_one() -> None:
    data = bytes(range(256)) * 8192
    text = encode_base64(data)
    assert decode_base64(text) == decode_base64(text.rstrip("=")) == data
    for at in (0, 100, len(text) // 2, 512 * 1024 - 2, 512 * 1024 - 1, len(text) - 4):
        assert decoded(text[:at] + "=" + text[at + 1 :]) is None
    assert decoded(text[: 512 * 1024 - 2] + "==" + text[512 * 1024 :]) is None
