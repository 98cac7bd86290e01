from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence

import pytest

from clef_agent.telemetry.outbox import MAX_BATCH, Export, Outbox, Outcome, Outgoing
from clef_agent.telemetry.records import Origin, Record
from fakes import NOW

PATIENCE_S = 20.0
ORIGIN = Origin("agent-7", "http")
WHERE = "https://otel.example/v1/logs"


class FakeExport:
    """Remembers what it is given; fails or hangs as long as it is told to."""

    def __init__(self) -> None:
        self.batches: list[list[str]] = []
        self.outcome: Outcome | Exception = Outcome()
        self.asked = threading.Event()
        self.free = threading.Event()
        self.free.set()

    def __call__(self, batch: Sequence[Outgoing]) -> Outcome:
        self.batches.append([outgoing.record.name for outgoing in batch])
        self.asked.set()
        assert self.free.wait(PATIENCE_S)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


@pytest.fixture
def export() -> FakeExport:
    return FakeExport()


@pytest.fixture
def make() -> Iterator[Callable[..., Outbox]]:
    """Makes outboxes that end with the test."""
    made: list[Outbox] = []

    def make(export: Export, *, linger_s: float = PATIENCE_S, **options: int) -> Outbox:
        made.append(Outbox(export, WHERE, linger_s=linger_s, **options))
        return made[-1]

    yield make
    for outbox in made:
        outbox.close()


def put(outbox: Outbox, *names: str) -> None:
    for name in names:
        outbox.put(Outgoing(Record(name, "INFO", {}), NOW, ORIGIN))


def test_what_happened_before_the_beginning_is_sent_after_it_in_one_batch(
    make: Callable[..., Outbox], export: FakeExport
) -> None:
    outbox = make(export)
    put(outbox, "a", "b")
    assert not export.asked.wait(0.05)
    assert outbox.drain(PATIENCE_S)
    assert export.batches == [["a", "b"]]
    assert outbox.is_empty
    assert outbox.counts.exported == 2


def test_a_batch_waits_for_company_until_somebody_is_in_a_hurry(
    make: Callable[..., Outbox], export: FakeExport
) -> None:
    outbox = make(export)
    outbox.begin()
    put(outbox, "a")
    assert not export.asked.wait(0.05)
    outbox.hurry()
    assert export.asked.wait(PATIENCE_S)


def test_a_batch_waits_for_company_no_longer_than_that(
    make: Callable[..., Outbox], export: FakeExport
) -> None:
    outbox = make(export, linger_s=0.01)
    outbox.begin()
    put(outbox, "a")
    assert export.asked.wait(PATIENCE_S)


def test_a_full_batch_waits_for_nobody(make: Callable[..., Outbox], export: FakeExport) -> None:
    outbox = make(export)
    outbox.begin()
    put(outbox, *map(str, range(MAX_BATCH + 1)))
    assert export.asked.wait(PATIENCE_S)
    assert len(export.batches[0]) == MAX_BATCH


# case 16
def test_whoever_waits_for_a_collector_that_hangs_waits_as_long_as_agreed(
    make: Callable[..., Outbox], export: FakeExport
) -> None:
    outbox = make(export)
    export.free.clear()
    put(outbox, "a")
    began = time.monotonic()
    assert not outbox.drain(0.05)
    assert time.monotonic() - began < PATIENCE_S / 2
    put(outbox, "b")  # goes in at once, whatever hangs
    export.free.set()
    assert outbox.drain(PATIENCE_S)
    assert export.batches == [["a"], ["b"]]


def test_where_there_is_no_room_the_oldest_goes_and_is_counted(
    make: Callable[..., Outbox], export: FakeExport
) -> None:
    outbox = make(export, max_queued=3)
    put(outbox, "a", "b", "c", "d", "e")
    assert outbox.drain(PATIENCE_S)
    assert export.batches == [["c", "d", "e"]]
    assert outbox.counts.exported == 3
    assert outbox.counts.dropped == {"queue_full": 2, "undelivered": 0, "rejected": 0}


@pytest.mark.parametrize(
    ("outcome", "exported", "dropped"),
    [
        (Outcome(trouble="no route", is_lost=True), 0, {"undelivered": 2, "rejected": 0}),
        (Outcome(rejected=1, trouble="it rejected 1"), 1, {"undelivered": 0, "rejected": 1}),
        (Outcome(rejected=99, trouble="it rejected 99"), 0, {"undelivered": 0, "rejected": 2}),
        (Outcome(rejected=-1), 2, {"undelivered": 0, "rejected": 0}),
        (RuntimeError("a secret"), 0, {"undelivered": 2, "rejected": 0}),
    ],
)
def test_what_is_not_taken_is_counted_and_not_sent_again(
    make: Callable[..., Outbox],
    export: FakeExport,
    outcome: Outcome | Exception,
    exported: int,
    dropped: dict[str, int],
) -> None:
    outbox = make(export)
    export.outcome = outcome
    put(outbox, "a", "b")
    assert outbox.drain(PATIENCE_S)
    assert outbox.counts.exported == exported
    assert outbox.counts.dropped == {"queue_full": 0, **dropped}
    assert export.batches == [["a", "b"]]


def test_one_line_tells_that_it_begins_to_fail_and_one_that_it_is_well_again(
    make: Callable[..., Outbox], export: FakeExport, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", logger="clef_agent")
    outbox = make(export)

    def send(outcome: Outcome | Exception) -> None:
        export.outcome = outcome
        put(outbox, "a")
        assert outbox.drain(PATIENCE_S)

    send(Outcome())
    assert caplog.messages == []
    for outcome in (Outcome(trouble="no route", is_lost=True), RuntimeError("a secret")):
        send(outcome)
        send(outcome)
    (line,) = caplog.messages
    assert line.startswith(f"telemetry does not get through to {WHERE}: no route.")
    send(Outcome())
    send(Outcome())
    assert caplog.messages[1:] == [f"telemetry gets through to {WHERE} again"]
    send(RuntimeError("a secret"))
    assert "unexpected RuntimeError" in caplog.messages[-1]
    assert "a secret" not in caplog.text


def test_after_the_end_nothing_is_sent(make: Callable[..., Outbox], export: FakeExport) -> None:
    outbox = make(export)
    outbox.begin()
    outbox.close()
    put(outbox, "a")
    assert not outbox.drain(0.05)
    assert export.batches == []
