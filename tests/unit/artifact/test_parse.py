from __future__ import annotations

import json
import string
import traceback
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.artifact.model import Expectation
from clef_agent.artifact.parse import parse
from clef_agent.errors import ArtifactError, InvalidShape, Revoked
from fakes import (
    ED25519_SIGNER,
    ENVIRONMENT,
    IDENTITY,
    NOW,
    Document,
    FakeKeyService,
    changed,
    packed,
    with_envelope,
    without,
)

PLAIN = packed(expires_at=NOW + 60, signer=ED25519_SIGNER)
SEALED = packed(service=FakeKeyService())

REQUIRED = ("identity", "environment", "packedAt", "revision", "ciphertextHash", "ciphertext")
OPTIONAL = ("expiresAt", "signature", "signatureAlgorithm")
ENVELOPE = ("provider", "keyId", "wrappedKey", "algorithm", "iv", "authTag")


def reason(data: bytes) -> str:
    with pytest.raises(ArtifactError) as caught:
        parse(data)
    return caught.value.reason


def test_a_sound_artifact_has_all_its_fields() -> None:
    document = json.loads(PLAIN)
    artifact = parse(PLAIN)
    assert (artifact.identity, artifact.environment) == (IDENTITY, ENVIRONMENT)
    assert artifact.packed_at.wall == NOW
    assert artifact.expires_at is not None
    assert artifact.expires_at.wall == NOW + 60
    assert artifact.revision == document["revision"]
    assert artifact.ciphertext == document["ciphertext"]
    assert artifact.ciphertext_hash == document["ciphertextHash"]
    assert artifact.signature == document["signature"]
    assert artifact.envelope is None
    envelope = parse(SEALED).envelope
    assert envelope is not None
    assert [
        envelope.provider,
        envelope.key_id,
        envelope.wrapped_key,
        envelope.algorithm,
        envelope.iv,
        envelope.auth_tag,
    ] == [json.loads(SEALED)["envelope"][name] for name in ENVELOPE]


def test_the_digest_is_that_of_the_bytes_and_not_of_what_they_say() -> None:
    assert parse(PLAIN).digest == parse(bytes(PLAIN)).digest
    assert parse(PLAIN).digest != parse(PLAIN + b"\n").digest


def test_no_repr_holds_ciphertext_signature_or_envelope() -> None:
    for data in (PLAIN, SEALED):
        document, text = json.loads(data), repr(parse(data))
        assert document["ciphertext"] not in text
        assert document.get("signature", "\0") not in text
        assert document.get("envelope", {}).get("wrappedKey", "\0") not in text


# --- step 1: strict JSON ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"", "json_parse"),
        (b"\x00", "json_parse"),
        (b"<html>", "json_parse"),
        (b"\xef\xbb\xbf" + PLAIN, "json_parse"),
        (PLAIN.decode().encode("utf-16"), "json_parse"),
        (PLAIN[:-3], "json_parse"),
        (PLAIN + b"{}", "json_parse"),
        (PLAIN.replace(b"{", b'{"x": "\xff",', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": "\xed\xa0\x80",', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": "\x01",', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": NaN,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": Infinity,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": -Infinity,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": 1e999,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": -1e999,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": 9223372036854775808,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": -9223372036854775809,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": ' + b"7" * 5000 + b",", 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"version": 1,', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": {"a": 1, "\\u0061": 1},', 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": ' + b"[" * 32 + b"]" * 32 + b",", 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": ' + b"[" * 10**6 + b"]" * 10**6 + b",", 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": [' + b"[]," * 10**5 + b"[]],", 1), "json_parse"),
        (PLAIN.replace(b"{", b'{"x": ' * 10**5 + b"{", 1), "json_parse"),
        (b"null", "invalid_shape"),
        (b"[]", "invalid_shape"),
        (b'"text"', "invalid_shape"),
        (b"1", "invalid_shape"),
        (b"true", "invalid_shape"),
        (PLAIN.replace(b"{", b'{"x": "\\ud800",', 1), "invalid_shape"),
        (PLAIN.replace(b"{", b'{"x\\udfff": 1,', 1), "invalid_shape"),
        (PLAIN.replace(b"{", b'{"x": [{"y": ["\\udc00\\ud800"]}],', 1), "invalid_shape"),
        (b'"\\ud83d"', "invalid_shape"),
    ],
)
def test_what_two_readers_could_read_differently_is_refused(data: bytes, word: str) -> None:
    assert reason(data) == word


@pytest.mark.parametrize(
    "extra",
    [
        '"x": 9223372036854775807',
        '"x": -9223372036854775808',
        '"x": 1.5e300',
        '"x": "\\ud83d\\udd11"',
        '"x": "\\u0000\\u2028"',
        '"x": ' + "[" * 31 + "]" * 31,
        '"signing": {"a": null}',
        '"": ""',
    ],
)
def test_an_unknown_field_that_is_strict_is_ignored(extra: str) -> None:
    parse(PLAIN.replace(b"{", b"{" + extra.encode() + b",", 1))


# --- step 2: revocation -------------------------------------------------------------------------


@pytest.mark.parametrize("marker", ["2026-01-01", "", "x", 0, 1.5, False, True, [], {}, {"a": [1]}])
def test_revoked_at_of_any_type_but_null_revokes(marker: object) -> None:
    assert reason(changed(PLAIN, revokedAt=marker)) == "revoked"
    assert reason(json.dumps({"revokedAt": marker}).encode()) == "revoked"


def test_revoked_at_null_does_not_revoke() -> None:
    parse(changed(PLAIN, revokedAt=None))


def test_a_very_long_marker_is_repeated_in_part_only() -> None:
    with pytest.raises(Revoked) as caught:
        parse(changed(PLAIN, revokedAt="9" * 10_000))
    assert caught.value.revoked_at == "9" * 64


@pytest.mark.parametrize(
    ("expected", "fields", "applies"),
    [
        (Expectation(), {}, True),
        (Expectation(), {"identity": "x", "environment": 5}, True),
        (Expectation("a", "p"), {}, True),
        (Expectation("a", "p"), {"identity": None}, True),
        (Expectation("a", "p"), {"identity": "a"}, True),
        (Expectation("a", "p"), {"identity": "a", "environment": "p"}, True),
        (Expectation("a", "p"), {"identity": "b", "environment": "p"}, False),
        (Expectation("a", "p"), {"identity": "a", "environment": "q"}, False),
        (Expectation("a", "p"), {"environment": "q"}, False),
        (Expectation("a"), {"identity": "a", "environment": "q"}, True),
        (Expectation(None, "p"), {"identity": "z", "environment": "p"}, True),
        (Expectation("a"), {"identity": ["a"]}, False),
        (Expectation("a"), {"identity": ""}, False),
    ],
)
def test_a_revocation_applies_where_identity_and_environment_match_if_present(
    expected: Expectation, fields: Document, applies: bool
) -> None:
    with pytest.raises(Revoked) as caught:
        parse(json.dumps({**fields, "revokedAt": "2026-01-01"}).encode(), expected)
    assert caught.value.applies is applies


# --- step 3: version, fields, types, dates, envelope --------------------------------------------


@pytest.mark.parametrize("version", [0, 2, -1, 1.0, 1.5, "1", True, False, None, [1], {}, 10**18])
def test_a_version_that_is_not_the_number_one_is_unsupported(version: object) -> None:
    assert reason(changed(PLAIN, version=version)) == "unsupported_version"


def test_a_missing_version_is_unsupported() -> None:
    assert reason(without(PLAIN, "version")) == "unsupported_version"


@pytest.mark.parametrize("name", REQUIRED)
def test_a_required_field_that_is_absent_null_or_empty_is_missing(name: str) -> None:
    for data in (
        without(PLAIN, name),
        changed(PLAIN, **{name: None}),
        changed(PLAIN, **{name: ""}),
    ):
        with pytest.raises(ArtifactError, match=name) as caught:
            parse(data)
        assert caught.value.reason == "missing_fields"


def test_all_missing_fields_are_named() -> None:
    with pytest.raises(ArtifactError) as caught:
        parse(b'{"version": 1}')
    assert all(name in str(caught.value) for name in REQUIRED)


@pytest.mark.parametrize("value", [0, 1, 1.5, True, False, [], ["x"], {}, {"a": "b"}])
@pytest.mark.parametrize("name", [*REQUIRED, *OPTIONAL])
def test_a_field_that_is_no_string_is_of_the_wrong_shape(name: str, value: object) -> None:
    with pytest.raises(ArtifactError, match=name) as caught:
        parse(changed(PLAIN, **{name: value}))
    assert caught.value.reason == "invalid_shape"


@pytest.mark.parametrize("name", [*OPTIONAL, "envelope"])
def test_an_optional_field_that_is_null_is_absent(name: str) -> None:
    without_it = parse(without(SEALED, name))
    null = parse(changed(SEALED, **{name: None}))
    assert null.envelope == without_it.envelope
    assert null.expires_at is without_it.expires_at is None
    assert null.signature is without_it.signature is None


@pytest.mark.parametrize("value", ["x", 1, True, [], ["provider"], "", 0])
def test_an_envelope_that_is_no_object_is_of_the_wrong_shape(value: object) -> None:
    assert reason(changed(SEALED, envelope=value)) == "invalid_shape"


@pytest.mark.parametrize("name", ENVELOPE)
def test_an_envelope_without_one_of_its_fields_is_incomplete(name: str) -> None:
    def drop(document: Document) -> None:
        del document["envelope"][name]

    for data in (
        changed(SEALED, drop),
        with_envelope(SEALED, **{name: None}),
        with_envelope(SEALED, **{name: ""}),
    ):
        with pytest.raises(ArtifactError, match=name) as caught:
            parse(data)
        assert caught.value.reason == "incomplete_envelope"


@pytest.mark.parametrize("value", [0, True, [], {}])
@pytest.mark.parametrize("name", ENVELOPE)
def test_an_envelope_field_that_is_no_string_is_of_the_wrong_shape(
    name: str, value: object
) -> None:
    assert reason(with_envelope(SEALED, **{name: value})) == "invalid_shape"


@pytest.mark.parametrize("name", ["packedAt", "expiresAt"])
@pytest.mark.parametrize("text", ["tomorrow", "2026-13-01", "2026-01-01T00:00:00", "1767225600"])
def test_a_date_that_is_none_is_of_the_wrong_shape(name: str, text: str) -> None:
    # case 2, case 14
    with pytest.raises(ArtifactError, match=name) as caught:
        parse(changed(PLAIN, **{name: text}))
    assert caught.value.reason == "invalid_shape"


def test_an_empty_expiry_is_no_absent_one() -> None:
    # case 2
    assert reason(changed(PLAIN, expiresAt="")) == "invalid_shape"


@pytest.mark.parametrize("name", ["identity", "environment", "revision", "ciphertextHash"])
def test_a_signed_field_with_a_line_break_is_refused(name: str) -> None:
    # The payload joins fields by line feeds: a break inside one would move the others.
    assert reason(changed(PLAIN, **{name: "a\nb"})) == "invalid_shape"


@pytest.mark.parametrize("name", ENVELOPE)
def test_a_signed_envelope_field_with_a_line_break_is_refused(name: str) -> None:
    assert reason(with_envelope(SEALED, **{name: "a\nb"})) == "invalid_shape"


@pytest.mark.parametrize("name", ["packedAt", "expiresAt"])
def test_a_date_with_a_line_break_is_refused(name: str) -> None:
    assert reason(changed(PLAIN, **{name: "2026-01-01\n"})) == "invalid_shape"


# --- the order of checks ------------------------------------------------------------------------

Change = Callable[[Document], Any]

#: What fails at each step, in the order of the checks; a later failure never hides an earlier.
STEPS: list[tuple[str, Change]] = [
    ("revoked", lambda d: d.update(revokedAt="2026-01-01")),
    ("unsupported_version", lambda d: d.update(version=2)),
    ("missing_fields", lambda d: d.update(revision="")),
    ("invalid_shape", lambda d: d.update(packedAt="yesterday")),
    ("incomplete_envelope", lambda d: d["envelope"].update(iv=None)),
]


@pytest.mark.parametrize(
    ("first", "second"),
    [(a, b) for position, a in enumerate(STEPS) for b in STEPS[position + 1 :]],
    ids=lambda step: step[0],
)
def test_an_artifact_that_fails_twice_carries_the_first_reason(
    first: tuple[str, Change], second: tuple[str, Change]
) -> None:
    def both(document: Document) -> None:
        second[1](document)
        first[1](document)

    assert reason(changed(SEALED, both)) == first[0]
    assert reason(changed(SEALED, both).replace(b"{", b'{"x":NaN,', 1)) == "json_parse"


# --- any bytes ----------------------------------------------------------------------------------


def parsed(data: bytes) -> None:
    """Parses ``data``; whatever is no ArtifactError with a word of its own ends the test."""
    word, hint, rendered = "none", "none", ""
    try:
        parse(data)
    except ArtifactError as exc:
        word, hint, rendered = exc.reason, exc.hint, "".join(traceback.format_exception(exc))
    assert word != ArtifactError.reason
    assert hint
    assert rendered.encode("utf-8").decode() == rendered


@given(st.binary(max_size=200))
def test_any_bytes_are_an_artifact_or_refused_by_name(data: bytes) -> None:
    parsed(data)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3)
    ),
    max_leaves=12,
)


@given(json_values)
def test_any_json_is_an_artifact_or_refused_by_name(value: object) -> None:
    parsed(json.dumps(value).encode())


@given(
    st.sampled_from([PLAIN, SEALED]),
    st.dictionaries(
        st.sampled_from([*REQUIRED, *OPTIONAL, "envelope", "version", "revokedAt"]),
        json_values | st.text(string.printable, max_size=30),
        max_size=4,
    ),
    st.dictionaries(st.sampled_from(ENVELOPE), json_values, max_size=3),
)
def test_any_mutated_artifact_is_an_artifact_or_refused_by_name(
    data: bytes, fields: Document, envelope: Document
) -> None:
    def mutate(document: Document) -> None:
        if isinstance(document.get("envelope"), dict):
            document["envelope"].update(envelope)

    parsed(changed(data, mutate, **fields))


@given(st.sampled_from([PLAIN, SEALED]), st.data())
def test_any_mangled_artifact_is_an_artifact_or_refused_by_name(
    data: bytes, draw: st.DataObject
) -> None:
    mangled = bytearray(data)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(mangled) - 1))
        mangled[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=3))
    parsed(bytes(mangled))


@pytest.mark.parametrize("field", ["identity", "environment", "revision"])
def test_a_field_that_people_read_has_bounds(field: str) -> None:
    assert parse(changed(packed(), **{field: "x" * 2048})).digest
    with pytest.raises(InvalidShape, match=f"{field} has more than 2,048 characters"):
        parse(changed(packed(), **{field: "x" * 2049}))
