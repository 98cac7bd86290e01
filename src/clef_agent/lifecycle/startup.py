"""The first load: a few attempts, and a clear end when they are in vain."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

from clef_agent.cache.memory import Memory
from clef_agent.errors import ClefError, SourceError
from clef_agent.log import LOGGER
from clef_agent.refresh import Failed, Refresher


@dataclass(frozen=True, slots=True)
class Retries:
    """When a first load is tried again.

    ``delays_s`` are the seconds before each further attempt. A Retry-After of up to
    ``max_retry_after_s`` replaces the delay; for a longer one nobody holds a start.
    """

    delays_s: tuple[float, ...] = (2.0, 4.0)
    max_retry_after_s: float = 10.0


_USUAL: Final = Retries()


async def first_load(
    refresher: Refresher,
    memory: Memory,
    sleep: Callable[[float], Awaitable[None]],
    retries: Retries = _USUAL,
) -> ClefError | None:
    """None as soon as secrets can be served, from the source or from the copy on disk.

    Otherwise the failure that ended the attempts: the first that waiting cannot mend, or the last
    one.
    """
    for delay_s in (*retries.delays_s, None):
        outcome = await refresher.refresh()
        if not isinstance(outcome, Failed) or memory.held is not None:
            return None
        error = outcome.error
        if delay_s is None or not error.transient:
            return error
        wait_s = _delay_s(error, delay_s, retries.max_retry_after_s)
        LOGGER.info("trying again in %g s", wait_s)
        await sleep(wait_s)
    raise AssertionError("the last attempt has no delay")  # pragma: no cover


def _delay_s(error: ClefError, delay_s: float, max_retry_after_s: float) -> float:
    asked_s = error.retry_after_s if isinstance(error, SourceError) else None
    return asked_s if asked_s is not None and asked_s <= max_retry_after_s else delay_s
