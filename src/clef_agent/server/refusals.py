"""Errors as replies: what a client is told when there is nothing to serve."""

from __future__ import annotations

import math
from typing import Final

from clef_agent import errors
from clef_agent.decrypt.secrets import NamesCollide
from clef_agent.server.replies import Header, Reply, json_reply


class BadRequest(ValueError):
    """A query parameter is out of its bounds; the text says which."""


#: The errors that have a reply of their own. Any other is a fault of ours, and a 500.
EXPECTED: Final = (errors.Unavailable, errors.RefreshTooSoon, NamesCollide, BadRequest)


def refusal(error: Exception) -> Reply:
    """The reply to one of ``EXPECTED``."""
    match error:
        case errors.Unavailable():
            content = {"error": str(error), "reason": error.reason}
            if error.detail:
                content["detail"] = error.detail
            return json_reply(503, content, headers=_retry_after(error.retry_after_s))
        case errors.RefreshTooSoon():
            content = {"error": str(error), "reason": error.reason}
            return json_reply(429, content, headers=_retry_after(error.retry_after_s))
        case NamesCollide():
            return json_reply(409, {"error": str(error), "candidates": error.candidates})
        case BadRequest():
            return json_reply(400, {"error": str(error)})
    raise error


def _retry_after(seconds: float | None) -> tuple[Header, ...]:
    # In whole seconds, and never 0, which clients take for "now".
    return () if seconds is None else ((b"retry-after", b"%d" % max(math.ceil(seconds), 1)),)
