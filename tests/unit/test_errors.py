from __future__ import annotations

import gc
import inspect
import weakref

import pytest

from clef_agent import errors
from clef_agent.errors import (
    ArtifactError,
    AttemptFailed,
    ClefError,
    ConfigInvalid,
    Expired,
    HashMismatch,
    RefreshTooSoon,
    Revoked,
    SourceBusy,
    SourceError,
    SourceUnusable,
    Unavailable,
    UnwrapUnavailable,
    without_frames,
)

CLASSES = [
    value
    for _, value in inspect.getmembers(errors, inspect.isclass)
    if issubclass(value, Exception) and value.__module__ == errors.__name__
]

#: The words of design section 4, in the order of the checks.
ARTIFACT_REASONS = {
    "json_parse",
    "invalid_shape",
    "revoked",
    "unsupported_version",
    "missing_fields",
    "incomplete_envelope",
    "integrity",
    "signature_missing",
    "signature_invalid",
    "identity_mismatch",
    "rollback",
    "expired",
    "kms_unwrap",
    "decrypt",
    "payload_parse",
}


def test_every_error_is_in_one_tree() -> None:
    assert all(issubclass(error, ClefError) for error in CLASSES)


def test_every_refusal_of_an_artifact_has_its_own_word() -> None:
    leaves = [e for e in CLASSES if issubclass(e, ArtifactError) and e is not ArtifactError]
    assert {error.reason for error in leaves} == ARTIFACT_REASONS
    assert len(leaves) == len(ARTIFACT_REASONS) + 1  # kms_unwrap: for good, and for now
    assert UnwrapUnavailable.transient


def test_every_failure_to_fetch_is_fetch_failed() -> None:
    assert {e.reason for e in CLASSES if issubclass(e, SourceError)} == {"fetch_failed"}


def test_readiness_reasons_are_those_of_the_api() -> None:
    reasons = {e.reason for e in CLASSES if issubclass(e, Unavailable)}
    assert {"not_loaded", "cache_expired", "artifact_expired", "revoked"} <= reasons


@pytest.mark.parametrize("error", CLASSES, ids=lambda error: error.__name__)
def test_every_error_tells_a_program_its_reason_and_promises_something(
    error: type[ClefError],
) -> None:
    assert error.reason
    assert error.__doc__
    if error is not SourceError and issubclass(error, (ConfigInvalid, ArtifactError, SourceError)):
        assert error.hint


def test_errors_carry_what_their_handlers_decide_on() -> None:
    assert ConfigInvalid(["a", "b"]).problems == ("a", "b")
    assert str(ConfigInvalid(["a", "b"])) == "a; b"
    assert SourceBusy("busy", retry_after_s=3.0).retry_after_s == 3.0
    assert SourceBusy("busy").retry_after_s is None
    assert Revoked("2026-01-01").applies
    assert "another identity" in str(Revoked("2026-01-01", applies=False))
    assert Expired("2026-01-01").expires_at == "2026-01-01"
    assert RefreshTooSoon(2.5).retry_after_s == 2.5
    failed = AttemptFailed(HashMismatch("no"), retry_after_s=1.0)
    assert (failed.reason, failed.detail, failed.retry_after_s) == ("integrity", "no", 1.0)
    assert AttemptFailed.reason == "unavailable"


def test_an_error_that_is_kept_lets_go_of_the_frames_that_it_and_its_causes_came_through() -> None:
    class Held:
        pass

    def fail() -> None:
        held = Held()
        freed.append(weakref.ref(held))
        try:
            int("no number")
        except ValueError as exc:
            raise SourceUnusable("second") from exc

    freed: list[weakref.ref[Held]] = []
    try:
        fail()
    except SourceUnusable as exc:
        kept = without_frames(exc)
    gc.collect()
    assert kept.__traceback__ is None
    assert isinstance(kept.__cause__, ValueError)
    assert freed[0]() is None
