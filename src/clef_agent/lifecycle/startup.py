"""The first load: a few attempts, and a clear end when they are in vain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final

from clef_agent.cache.memory import Memory
from clef_agent.errors import ClefError, SourceError
from clef_agent.log import LOGGER
from clef_agent.refresh import Failed, Refresher

#: Seconds before the second and the third attempt.
RETRY_DELAYS_S: Final = (2.0, 4.0)
#: A Retry-After up to here replaces the delay; for longer ones nobody holds a start.
MAX_RETRY_AFTER_S: Final = 10.0


async def first_load(
    refresher: Refresher, memory: Memory, sleep: Callable[[float], Awaitable[None]]
) -> ClefError | None:
    """None as soon as secrets can be served, from the source or from the copy on disk.

    Otherwise the failure that ended the attempts: the first that waiting cannot mend, or the last
    of three.
    """
    for delay_s in (*RETRY_DELAYS_S, None):
        outcome = await refresher.refresh()
        if not isinstance(outcome, Failed) or memory.held is not None:
            return None
        error = outcome.error
        if delay_s is None or not error.transient:
            return error
        wait_s = _delay_s(error, delay_s)
        LOGGER.info("trying again in %g s", wait_s)
        await sleep(wait_s)
    raise AssertionError("the last attempt has no delay")  # pragma: no cover


def _delay_s(error: ClefError, delay_s: float) -> float:
    asked_s = error.retry_after_s if isinstance(error, SourceError) else None
    return asked_s if asked_s is not None and asked_s <= MAX_RETRY_AFTER_S else delay_s
