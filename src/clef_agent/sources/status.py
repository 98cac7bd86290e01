"""What an HTTP status means for a source; pure functions of the status and the headers.

``headers`` have lower-case names.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime

from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnusable,
)

_FORBIDDEN = 403
DENIED = frozenset({401, _FORBIDDEN})
MISSING = frozenset({404, 410})
#: 408 and 425 ask for the same request again, as 429 does.
#: Source: https://www.rfc-editor.org/rfc/rfc9110#section-15.5.9
#: and https://www.rfc-editor.org/rfc/rfc8470#section-5.2
_PATIENCE = frozenset({408, 425, 429})
_SERVER_ERRORS = range(500, 600)

_SECONDS = re.compile(r"-?[0-9]{1,9}")


def refusal(status: int, headers: Mapping[str, str], *, where: str, wall: float) -> SourceError:
    """The error that an answer without an artifact amounts to.

    ``where`` names the source in the message and must be safe to log; ``wall`` is the present
    time, in seconds since 1970.
    """
    message = f"{where} answered {status}"
    patience_s = retry_after_s(headers.get("retry-after"), wall=wall)
    # A 403 that says when to come back is a rate limit by another name.
    # Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    if asks_for_patience(status) or (status == _FORBIDDEN and patience_s is not None):
        return SourceBusy(message, retry_after_s=patience_s)
    if status in DENIED:
        return SourceDenied(message)
    if status in MISSING:
        return SourceMissing(message)
    return SourceUnusable(f"{message}, which is no artifact")


def asks_for_patience(status: int) -> bool:
    """Whether the same request may succeed later."""
    return status in _PATIENCE or status in _SERVER_ERRORS


def retry_after_s(value: str | None, *, wall: float) -> float | None:
    """The seconds to wait that a ``Retry-After`` header asks for; never negative.

    ``value`` is a number of seconds or an HTTP date, compared with ``wall``, the present time in
    seconds since 1970. None without the header, or when it says neither.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
    """
    if value is None:
        return None
    text = value.strip()
    if _SECONDS.fullmatch(text):
        return max(0.0, float(text))
    instant = http_date(text)
    return None if instant is None else max(0.0, instant - wall)


def http_date(value: str) -> float | None:
    """The instant of an HTTP date in seconds since 1970, or None where ``value`` is no date.

    Source: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.7
    """
    try:
        moment = parsedate_to_datetime(value)
        if moment.tzinfo is None:  # the asctime form has no zone, and means UTC
            moment = moment.replace(tzinfo=UTC)
        return moment.timestamp()
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
