"""Which failures of a key service another attempt may mend, by code and by status."""

from __future__ import annotations

import pytest

from clef_agent.aws import AwsFailure
from clef_agent.errors import UnwrapFailed, UnwrapUnavailable
from clef_agent.kms.aws import _error
from clef_agent.kms.gcp import _unaltered
from clef_agent.kms.rest import Reply, accepted


@pytest.mark.parametrize(
    ("code", "status", "transient"),
    [
        ("AccessDeniedException", 400, False),
        ("DisabledException", 400, False),
        ("KMSInvalidStateException", 400, False),
        ("NotFoundException", 400, False),
        ("IncorrectKeyException", 400, False),
        ("InvalidCiphertextException", 400, False),
        ("InvalidKeyUsageException", 400, False),
        ("ThrottlingException", 400, True),
        ("KMSInternalException", 500, True),
        ("DependencyTimeoutException", 500, True),
        ("KeyUnavailableException", 500, True),
        ("ExpiredTokenException", 400, True),
        ("", 429, True),
        ("", 503, True),
    ],
)
def test_failures_of_aws_are_told_apart_by_their_code(
    code: str, status: int, transient: bool
) -> None:
    error = _error(AwsFailure("answered", code=code, status=status))
    assert error.transient is transient
    assert code in str(error)


@pytest.mark.parametrize(
    ("failure", "transient"),
    [
        (AwsFailure("unreachable", "no answer in time"), True),
        (AwsFailure("no_credentials", "none"), True),
        (AwsFailure("misconfigured", "no region"), False),
    ],
)
def test_failures_without_an_answer_are_told_apart_by_their_kind(
    failure: AwsFailure, transient: bool
) -> None:
    assert _error(failure).transient is transient


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, UnwrapFailed),
        (401, UnwrapFailed),
        (403, UnwrapFailed),
        (404, UnwrapFailed),
        (307, UnwrapFailed),
        (408, UnwrapUnavailable),
        (429, UnwrapUnavailable),
        (500, UnwrapUnavailable),
        (503, UnwrapUnavailable),
    ],
)
def test_answers_over_http_are_told_apart_by_their_status(
    status: int, kind: type[UnwrapFailed]
) -> None:
    with pytest.raises(UnwrapFailed) as caught:
        accepted(Reply(status, {}), "The service", "WORD")
    assert type(caught.value) is kind
    assert str(caught.value) == f"The service answered {status} (WORD)"


def test_a_200_is_its_document() -> None:
    assert accepted(Reply(200, {"a": 1}), "x", "") == {"a": 1}


def test_an_answer_of_google_that_is_no_key_is_not_even_summed_up() -> None:
    import base64
    import time

    answer = {"plaintext": base64.b64encode(bytes(1_000_000)).decode(), "plaintextCrc32c": "0"}
    began = time.monotonic()
    assert _unaltered(answer, "plaintext") is None
    assert time.monotonic() - began < 0.2
