"""Records on their way out: a bounded queue, and one thread that sends them in batches.

Whoever puts a record in never waits, whatever becomes of it. The thread is the only one that
talks to the collector, and a daemon: a collector that hangs holds nothing but its own queue.
"""

from __future__ import annotations

import threading
from collections import Counter, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple, TypeAlias

from clef_agent.log import LOGGER
from clef_agent.telemetry.base import DROP_REASONS, Counts
from clef_agent.telemetry.records import Origin, Record

#: As many as the SDK's own queue and batch have.
#: Source: https://opentelemetry.io/docs/specs/otel/logs/sdk/#batching-processor
MAX_QUEUED: Final = 2048
MAX_BATCH: Final = 512
#: How long a batch waits for company, in seconds.
_LINGER_S: Final = 1.0


class Outgoing(NamedTuple):
    """A record of an event that happened at ``at_s``, in seconds since 1970."""

    record: Record
    at_s: float
    origin: Origin


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a batch. ``rejected`` counts those that the collector did not want.

    ``trouble`` says why the batch, or a part of it, was not taken, in words that are safe to log.
    """

    rejected: int = 0
    trouble: str | None = None
    is_lost: bool = False


Export: TypeAlias = Callable[[Sequence[Outgoing]], Outcome]


class Outbox:
    """Takes records at any time, and sends them from :meth:`begin` on.

    ``export`` is called in the outbox's own thread, and may take as long as it likes. ``where``
    names the collector in log lines.
    """

    def __init__(
        self,
        export: Export,
        where: str,
        *,
        max_queued: int = MAX_QUEUED,
        linger_s: float = _LINGER_S,
    ) -> None:
        self._export = export
        self._where = where
        self._max_queued = max_queued
        self._linger_s = linger_s
        self._stirred = threading.Condition()
        self._thread: threading.Thread | None = None
        self._queue: deque[Outgoing] = deque()
        # How many were ever put in, how many of them are settled, and how many of them somebody
        # is waiting for.
        self._put = self._settled = self._urgent = 0
        self._is_closed = False
        self._exported = 0
        self._dropped = Counter(dict.fromkeys(DROP_REASONS, 0))
        self._trouble: str | None = None

    # --- for the event loop: never waits, but for drain -----------------------------------------

    def put(self, outgoing: Outgoing) -> None:
        """Adds one record; where there is no room, the oldest goes."""
        with self._stirred:
            if len(self._queue) >= self._max_queued:
                self._queue.popleft()
                self._dropped["queue_full"] += 1
                self._settled += 1
            self._queue.append(outgoing)
            self._put += 1
            self._stirred.notify_all()

    def begin(self) -> None:
        """From now on records are sent."""
        with self._stirred:
            if self._thread is not None:
                return
            thread = threading.Thread(target=self._work, name="clef-telemetry", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # as many as the system allows; later there may be room
                return
            self._thread = thread

    def hurry(self) -> None:
        """What is in by now is sent without waiting for company."""
        self.begin()
        with self._stirred:
            self._urgent = self._put
            self._stirred.notify_all()

    def drain(self, timeout_s: float) -> bool:
        """Whether all that is in by now is sent, or given up, within ``timeout_s``. Blocks."""
        self.hurry()
        with self._stirred:
            awaited = self._put
            return self._stirred.wait_for(lambda: self._settled >= awaited, timeout_s)

    def close(self) -> None:
        """Nothing more is sent."""
        with self._stirred:
            self._is_closed = True
            self._stirred.notify_all()

    @property
    def is_empty(self) -> bool:
        """Whether all that was put in has been sent or given up."""
        with self._stirred:
            return self._settled >= self._put

    @property
    def counts(self) -> Counts:
        """The state of the counters."""
        with self._stirred:
            return Counts(self._exported, dict(self._dropped))

    # --- the thread -----------------------------------------------------------------------------

    def _work(self) -> None:
        while batch := self._next_batch():
            try:
                outcome = self._export(batch)
            except Exception as exc:  # noqa: BLE001  # its text may hold anything; its type does not
                outcome = Outcome(trouble=f"unexpected {type(exc).__name__}", is_lost=True)
            self._settle(len(batch), outcome)

    def _next_batch(self) -> list[Outgoing]:
        """The oldest records, as soon as there are some; none at all after the end."""
        with self._stirred:
            self._stirred.wait_for(lambda: self._queue or self._is_closed)
            self._stirred.wait_for(self._is_due, self._linger_s)
            if self._is_closed:
                return []
            return [self._queue.popleft() for _ in range(min(len(self._queue), MAX_BATCH))]

    def _is_due(self) -> bool:
        return self._is_closed or self._settled < self._urgent or len(self._queue) >= MAX_BATCH

    def _settle(self, size: int, outcome: Outcome) -> None:
        lost = size if outcome.is_lost else 0
        rejected = 0 if outcome.is_lost else min(max(outcome.rejected, 0), size)
        self._tell(outcome.trouble)
        with self._stirred:
            self._exported += size - lost - rejected
            self._dropped["undelivered"] += lost
            self._dropped["rejected"] += rejected
            self._settled += size
            self._stirred.notify_all()

    def _tell(self, trouble: str | None) -> None:
        """One line when it begins to fail, and one when it is well again."""
        if trouble is not None and self._trouble is None:
            LOGGER.warning(
                "telemetry does not get through to %s: %s. Events are dropped until it does",
                self._where,
                trouble,
            )
        elif trouble is None and self._trouble is not None:
            LOGGER.info("telemetry gets through to %s again", self._where)
        self._trouble = trouble
