"""``verify``: the agent's checks in the agent's order, each told as it went."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from clef_agent.artifact.model import Expectation
from clef_agent.artifact.pack import Packing, ToRecipients, pack
from clef_agent.artifact.verify import Policy
from clef_agent.cli.checks import Examination, examine
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.keys import parse_verify_key
from fakes import (
    AGE_KEY,
    AGE_RECIPIENT,
    ED25519_SIGNER,
    ED25519_VERIFY_KEY,
    ENVIRONMENT,
    IDENTITY,
    NOW,
    OTHER_AGE_KEY,
    PAYLOAD,
)

ORDER = [
    *("json", "revocation", "fields", "integrity", "signature", "identity", "rollback", "expiry"),
    *("unwrap", "decrypt", "payload"),
]
VECTORS = Path(__file__).parents[4] / "shared" / "vectors"


def keyring(key: str = AGE_KEY) -> AgeKeyring:
    return AgeKeyring(key, None, lambda path: Path(path).read_bytes())


def packed(expires_at: float | None = None) -> bytes:
    return pack(
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


STRICT = Policy(parse_verify_key(ED25519_VERIFY_KEY), Expectation(IDENTITY, ENVIRONMENT))


def results(examination: Examination) -> dict[str, str]:
    return {check.name: check.result for check in examination.checks}


def test_every_check_that_can_be_made_passes_and_the_others_say_why_they_were_not_made() -> None:
    examination = examine(packed(NOW + 60), STRICT, keyring(), wall=NOW)

    assert examination.failure is None
    assert [check.name for check in examination.checks] == ORDER
    assert {name for name, result in results(examination).items() if result != "passed"} == {
        "rollback",
        "unwrap",
    }
    details = {check.name: check.detail for check in examination.checks}
    assert details["payload"] == "3 secrets"
    assert all(details.values())


def test_without_keys_and_expectations_their_checks_are_left_open() -> None:
    examination = examine(packed(), Policy(), None, wall=NOW)

    assert examination.failure is None
    assert {name for name, result in results(examination).items() if result == "not checked"} == {
        "signature",
        "identity",
        "rollback",
        "unwrap",
        "decrypt",
        "payload",
    }


@pytest.mark.parametrize(
    ("change", "failed", "reason"),
    [
        ({"revokedAt": True}, "revocation", "revoked"),
        ({"version": 2}, "fields", "unsupported_version"),
        ({"packedAt": "yesterday"}, "fields", "invalid_shape"),
        ({"identity": ""}, "fields", "missing_fields"),
        ({"envelope": {}}, "fields", "incomplete_envelope"),
        ({"ciphertext": "AAAA"}, "integrity", "integrity"),
        ({"signature": None}, "signature", "signature_missing"),
        ({"environment": "staging"}, "signature", "signature_invalid"),
    ],
)
def test_what_comes_before_the_failed_check_has_passed_and_what_comes_after_is_not_reached(
    change: dict[str, object], failed: str, reason: str
) -> None:
    data = json.dumps({**json.loads(packed()), **change}).encode()

    examination = examine(data, STRICT, keyring(), wall=NOW)

    assert examination.failure is not None
    assert examination.failure.reason == reason
    position = ORDER.index(failed)
    found = list(results(examination).values())
    assert found == ["passed"] * position + ["failed"] + ["not checked"] * (10 - position)
    assert examination.checks[position].detail.startswith(f"{reason}: ")


@pytest.mark.parametrize(
    ("data", "reason"),
    [(b"", "json_parse"), (b"[]", "invalid_shape"), (b'{"a": "\\ud800"}', "invalid_shape")],
)
def test_what_is_no_json_object_fails_the_first_check(data: bytes, reason: str) -> None:
    examination = examine(data, STRICT, keyring(), wall=NOW)

    assert examination.failure is not None
    assert examination.failure.reason == reason
    assert results(examination)["json"] == "failed"


def test_expiry_identity_and_decryption_fail_at_their_own_check() -> None:
    late = examine(packed(NOW), STRICT, keyring(), wall=NOW)
    other = examine(packed(), Policy(expected=Expectation("other")), keyring(), wall=NOW)
    locked = examine(packed(), STRICT, keyring(OTHER_AGE_KEY), wall=NOW)

    assert results(late)["expiry"] == "failed"
    assert results(other)["identity"] == "failed"
    assert results(locked)["decrypt"] == "failed"
    assert results(locked)["payload"] == "not checked"


def test_each_vector_is_refused_for_the_reason_that_its_manifest_gives() -> None:
    if not VECTORS.is_dir():
        pytest.skip("the vectors are not beside this repository")
    manifest = json.loads((VECTORS / "manifest.json").read_text())
    for case in manifest["cases"]:
        expected = case["expect"].get("reject")
        if "dek" in case and expected in ("kms_unwrap", "decrypt"):
            expected = None  # its key service is not asked
        key = case.get("verifyKey")
        policy = Policy(parse_verify_key(manifest["verifyKeys"][key]) if key else None)

        data = (VECTORS / case["file"]).read_bytes()
        examination = examine(data, policy, keyring(manifest["ageKey"]), wall=NOW)

        reason = examination.failure.reason if examination.failure else None
        assert reason == expected, case["name"]
        assert list(results(examination).values()).count("failed") == bool(reason)
