"""Errors as replies: what a client is told when there is nothing to serve."""

from __future__ import annotations

import math
import traceback
from pathlib import Path

from clef_agent import errors
from clef_agent.decrypt.secrets import NamesCollide
from clef_agent.log import LOGGER
from clef_agent.server.replies import Header, Reply, json_reply


class BadRequest(ValueError):
    """A query parameter is out of its bounds; the text says which."""


def refusal(error: Exception) -> Reply:
    """The reply to what kept a request from being answered; 500 where that is a fault of ours."""
    match error:
        case errors.Unavailable():
            content = {"error": str(error), "reason": error.reason}
            if error.detail:
                content["detail"] = error.detail
            return json_reply(503, content, headers=retry_after(error.retry_after_s))
        case errors.RefreshTooSoon():
            content = {"error": str(error), "reason": error.reason}
            return json_reply(429, content, headers=retry_after(error.retry_after_s))
        case NamesCollide():
            return json_reply(409, {"error": str(error), "candidates": error.candidates})
        case BadRequest():
            return json_reply(400, {"error": str(error)})
    # The text of an unforeseen exception may hold anything, a value too; type and place do not.
    at = traceback.extract_tb(error.__traceback__)[-1:]
    place = f" at {Path(at[0].filename).name}:{at[0].lineno}" if at else ""
    LOGGER.error("a request ended in a way it should not: %s%s", type(error).__name__, place)
    return json_reply(500, {"error": "Internal error"})


def retry_after(seconds: float | None) -> tuple[Header, ...]:
    """When it may be worth asking again: in whole seconds, and at least one."""
    return ((b"retry-after", b"%d" % max(math.ceil(seconds or 0), 1)),)
