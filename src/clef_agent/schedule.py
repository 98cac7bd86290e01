"""When to look next. Pure: delays and moments in, delays out, randomness as an argument."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random
from typing import Final

from clef_agent.clock import Instant, Pause

MIN_DELAY_S = 5.0
MAX_DELAY_S = 60.0
#: A stat costs next to nothing, and an operator who replaced a file is watching.
FILE_INTERVAL_S = 1.0
JUST_IN_TIME_INTERVAL_S = 5.0

_JITTER = 0.10
#: Of the time left until expiresAt: late enough to be of use, early enough to try again.
_EXPIRY_SHARE = 0.8
_FIRST_BACKOFF_S = 1.0
#: A Retry-After is obeyed up to here. GitHub's rate limit, the longest in use, resets each hour.
MAX_RETRY_AFTER_S = 3600.0


def patience_s(retry_after_s: float | None) -> float:
    """How long a source that asked for ``retry_after_s`` is left in peace, in seconds."""
    return min(max(retry_after_s or 0.0, 0.0), MAX_RETRY_AFTER_S)


def interval_s(*, ttl_s: int, configured_s: int | None, source_is_file: bool) -> float:
    """How often to look when all is well, in seconds, before jitter."""
    if source_is_file:
        return FILE_INTERVAL_S
    if configured_s is not None:
        return float(configured_s)
    if ttl_s == 0:
        return JUST_IN_TIME_INTERVAL_S
    return min(max(ttl_s / 10, MIN_DELAY_S), MAX_DELAY_S)


@dataclass(frozen=True, slots=True)
class Schedule:
    """Delays between refreshes around one interval. ``random`` spreads agents apart."""

    interval_s: float
    random: Random

    def first_delay_s(self, until_expiry_s: float | None) -> float:
        """From the first load to the first poll: anywhere in an interval, but before the expiry.

        A thousand agents that a deployment started together would otherwise ask together for ever.
        """
        return self._before_expiry(self.random.uniform(0, self.interval_s), until_expiry_s)

    def delay_after_success_s(self, until_expiry_s: float | None) -> float:
        """To the next poll. ``until_expiry_s`` is the time left of the artifact held, if any.

        Expiry only ever shortens the delay, and never below ``MIN_DELAY_S``: an artifact that
        expires in sixty days is polled as often as one that never does.
        """
        delay_s = max(self._jittered(self.interval_s), self._shortest_s)
        return self._before_expiry(delay_s, until_expiry_s)

    def delay_after_failure_s(self, failures: int, retry_after_s: float | None = None) -> float:
        """To the next attempt after ``failures`` (1 or more) in a row.

        1 s, 2 s, 4 s and so on up to the interval, with jitter; never sooner than the source
        asked for with ``retry_after_s``.
        """
        # The exponent is bounded because 2.0 ** 1024 overflows, after a long night.
        backoff_s = min(_FIRST_BACKOFF_S * 2.0 ** min(failures - 1, 16), self.interval_s)
        asked_s = patience_s(retry_after_s)
        # Jitter after a Retry-After runs one way only, and keeps a fleet from returning at once.
        return max(self._jittered(backoff_s), asked_s * self.random.uniform(1.0, 1.0 + _JITTER))

    def is_due(self, age_s: float, until_expiry_s: float | None) -> bool:
        """Whether a success ``age_s`` ago calls for a look, where no timer does.

        Without jitter: what gives the occasion spreads the looks.
        """
        lifetime_s = None if until_expiry_s is None else age_s + until_expiry_s
        return age_s >= self._before_expiry(self.interval_s, lifetime_s)

    @property
    def _shortest_s(self) -> float:
        return min(MIN_DELAY_S, self.interval_s)

    def _before_expiry(self, delay_s: float, until_expiry_s: float | None) -> float:
        if until_expiry_s is None:
            return delay_s
        return min(delay_s, max(until_expiry_s * _EXPIRY_SHARE, self._shortest_s))

    def _jittered(self, delay_s: float) -> float:
        return delay_s * self.random.uniform(1 - _JITTER, 1 + _JITTER)


#: What began at the dawn of time is over.
_OVER: Final = Pause(Instant(wall=0.0, boot=0.0), 0.0)


class Backoff:
    """How long a source is left in peace after failures in a row, and when it asked for it."""

    def __init__(self, schedule: Schedule) -> None:
        self._schedule = schedule
        self._pause = self._asked = _OVER
        self.failures = 0

    def fail(self, now: Instant, retry_after_s: float | None) -> None:
        """One more failure; ``retry_after_s`` is what the source asked for with it."""
        self.failures += 1
        if retry_after_s is not None:
            self._asked = Pause(now, patience_s(retry_after_s))
        # What the source asked for earlier still stands, where a refresh came before its time.
        asked_s = self.asked_s(now)
        self._pause = Pause(now, self._schedule.delay_after_failure_s(self.failures, asked_s))

    def end(self) -> None:
        """A success: nothing stands any more."""
        self._pause = self._asked = _OVER
        self.failures = 0

    def left_s(self, now: Instant) -> float:
        """Seconds until the next attempt; 0 or less when there is none to wait."""
        return self._pause.left_s(now)

    def asked_s(self, now: Instant) -> float:
        """Seconds for which the source asked to be left in peace; 0 or less when it did not."""
        return self._asked.left_s(now)
