"""``inspect``: what an artifact says of itself, sound or not."""

from __future__ import annotations

import json

import pytest

from clef_agent.artifact.pack import Packing, ToRecipients, pack
from clef_agent.cli.failure import Failure
from clef_agent.cli.summary import Summary, summarise
from fakes import (
    AGE_RECIPIENT,
    ED25519_SIGNER,
    ENVIRONMENT,
    IDENTITY,
    NOW,
    PAYLOAD,
    Document,
)


def document(expires_at: float | None = None) -> Document:
    data = pack(
        PAYLOAD,
        Packing(
            identity=IDENTITY,
            environment=ENVIRONMENT,
            encryption=ToRecipients([AGE_RECIPIENT]),
            packed_at=NOW,
            expires_at=expires_at,
            signer=ED25519_SIGNER,
        ),
    )
    parsed: Document = json.loads(data)
    return parsed


def summary_of(fields: Document) -> Summary:
    return summarise(json.dumps(fields).encode(), where="it", wall=NOW)


def rows_of(fields: Document) -> dict[str, tuple[str, str]]:
    return {row.label: (row.text, row.mood) for row in summary_of(fields).rows()}


def test_a_sound_artifact_is_described_by_the_names_of_its_format() -> None:
    fields = document(expires_at=NOW + 86_400)

    found = summary_of(fields).as_json()

    assert {name: found[name] for name in ("version", "identity", "environment", "revision")} == {
        name: fields[name] for name in ("version", "identity", "environment", "revision")
    }
    assert found["packedAt"] == "2027-01-15T08:00:00.000Z"
    assert found["expiresAt"] == "2027-01-16T08:00:00.000Z"
    assert (found["expired"], found["revoked"], found["revokedAt"]) == (False, False, None)
    assert (found["signed"], found["signatureAlgorithm"]) == (True, "Ed25519")
    assert (found["hashOk"], found["envelope"]) == (True, None)
    assert found["sizeBytes"] == len(json.dumps(fields))


def test_nothing_of_the_plaintext_or_the_ciphertext_is_shown() -> None:
    fields = document()

    shown = json.dumps(summary_of(fields).as_json()) + str(rows_of(fields))

    assert fields["ciphertext"] not in shown
    assert "stripe-key" not in shown
    assert fields["ciphertext"] not in repr(summary_of(fields))


@pytest.mark.parametrize(
    ("change", "label", "text", "mood"),
    [
        ({}, "expires at", "never", "plain"),
        ({"expiresAt": "2027-01-18"}, "expires at", "2027-01-18 (in 2 days, 16 hours)", "plain"),
        ({"expiresAt": "2027-01-15T07:59Z"}, "expires at", "2027-01-15T07:59Z (no date)", "bad"),
        (
            {"expiresAt": "2027-01-15T07:00:00Z"},
            "expires at",
            "2027-01-15T07:00:00Z (1 hour ago)",
            "bad",
        ),
        ({"revokedAt": True}, "revoked", "at True", "bad"),
        ({"ciphertextHash": "0" * 64}, "hash", "does not fit the ciphertext", "bad"),
        ({"ciphertextHash": None}, "hash", "missing", "bad"),
        ({"identity": 7}, "identity", "missing", "plain"),
        ({"signature": None}, "signature", "none", "plain"),
        (
            {"envelope": {"provider": "aws", "keyId": "arn:aws:kms:x"}},
            "encryption",
            "AES-256-GCM, key by aws: arn:aws:kms:x",
            "plain",
        ),
    ],
)
def test_what_is_wrong_or_noteworthy_is_told(
    change: Document, label: str, text: str, mood: str
) -> None:
    assert rows_of({**document(), **change})[label] == (text, mood)


def test_a_bare_revocation_marker_is_described_too() -> None:
    found = summary_of({"version": 1, "identity": "api", "revokedAt": "2026-01-01"}).as_json()

    assert (found["revoked"], found["hashOk"], found["ciphertextBytes"]) == (True, None, None)


@pytest.mark.parametrize("data", [b"", b"[1]", b"{}", b'{"name": "left-pad"}', b'{"a":NaN}'])
def test_what_is_no_artifact_is_a_failure(data: bytes) -> None:
    with pytest.raises(Failure, match="it is "):
        summarise(data, where="it", wall=NOW)
