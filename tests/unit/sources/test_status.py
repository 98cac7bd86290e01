import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.errors import SourceBusy, SourceDenied, SourceError, SourceMissing, SourceUnusable
from clef_agent.sources.status import http_date, refusal, retry_after_s
from fakes import NOW  # 2027-01-15T08:00:00Z


def refused(status: int, **headers: str) -> SourceError:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return refusal(status, named, where="https://host/a", wall=NOW)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(401, SourceDenied), (403, SourceDenied), (404, SourceMissing), (410, SourceMissing)]
    + [(status, SourceBusy) for status in (408, 425, 429, 500, 502, 503, 504, 599)]
    + [(status, SourceUnusable) for status in (201, 203, 204, 206, 300, 305, 400, 405, 418, 600)],
)
def test_a_status_means_one_kind_of_failure(status: int, kind: type[SourceError]) -> None:
    failure = refused(status)
    assert type(failure) is kind
    assert str(status) in str(failure)
    assert "https://host/a" in str(failure)
    assert failure.retry_after_s is None


@pytest.mark.parametrize("status", [403, 429, 503])
def test_patience_that_is_asked_for_is_passed_on(status: int) -> None:
    failure = refused(status, retry_after="7")
    assert type(failure) is SourceBusy
    assert failure.retry_after_s == 7


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("0", 0),
        ("120", 120),
        (" 120 ", 120),
        ("-5", 0),
        ("Fri, 15 Jan 2027 08:01:30 GMT", 90),
        ("Friday, 15-Jan-27 08:01:30 GMT", 90),
        ("Fri Jan 15 08:01:30 2027", 90),
        ("Fri, 15 Jan 2027 07:00:00 GMT", 0),
        ("", None),
        ("soon", None),
        ("1.5", None),
        ("\u0661\u0662", None),
        ("9" * 5000, None),
        ("Fri, 99 Jan 2027 08:01:30 GMT", None),
        ("Fri, 15 Jan 99999999999 08:01:30 GMT", None),
        (None, None),
    ],
)
def test_retry_after_is_seconds_or_a_date_and_never_negative(
    value: str | None, seconds: float | None
) -> None:
    assert retry_after_s(value, wall=NOW) == seconds


@given(st.text())
def test_no_text_makes_retry_after_fail(value: str) -> None:
    seconds = retry_after_s(value, wall=NOW)
    assert seconds is None or seconds >= 0


def test_an_http_date_is_utc() -> None:
    assert http_date("Fri, 15 Jan 2027 08:00:00 GMT") == NOW
