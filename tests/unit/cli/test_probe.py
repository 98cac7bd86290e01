"""``ready --wait``: how long it asks, without any real time passing."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from clef_agent.cli.failure import Failure
from clef_agent.cli.probe import wait_until_ready

NOT_YET = Failure("not ready: not_loaded")


@dataclass
class Asked:
    """Finds each of ``findings``, then the last one for ever; its clock moves only in a sleep."""

    findings: list[Failure | None]
    timeouts_s: list[float] = field(default_factory=list)
    now_s: float = 1000.0

    def unreadiness(self, timeout_s: float) -> Failure | None:
        self.timeouts_s.append(timeout_s)
        return self.findings[min(len(self.timeouts_s), len(self.findings)) - 1]

    def sleep(self, duration_s: float) -> None:
        assert duration_s > 0
        self.now_s += duration_s

    def wait(self, wait_s: float) -> None:
        wait_until_ready(self.unreadiness, wait_s, now=lambda: self.now_s, sleep=self.sleep)


def test_without_waiting_it_asks_once() -> None:
    asked = Asked([NOT_YET, None])

    with pytest.raises(Failure, match="not_loaded"):
        asked.wait(0)
    assert asked.timeouts_s == [5.0]


def test_it_returns_as_soon_as_the_agent_is_ready() -> None:
    asked = Asked([NOT_YET, NOT_YET, None])

    asked.wait(60)

    assert len(asked.timeouts_s) == 3
    assert asked.now_s < 1001


def test_it_gives_up_when_the_time_is_over_and_says_what_was_in_the_way() -> None:
    last = Failure("the last one")
    asked = Asked([NOT_YET, last])

    with pytest.raises(Failure) as raised:
        asked.wait(2.5)

    assert raised.value is last
    assert asked.now_s == pytest.approx(1002.5)
    assert len(asked.timeouts_s) > 10


def test_no_attempt_may_outlast_the_waiting_by_much() -> None:
    asked = Asked([NOT_YET])

    with pytest.raises(Failure):
        asked.wait(7)

    assert asked.timeouts_s[0] == 5
    assert asked.timeouts_s == sorted(asked.timeouts_s, reverse=True)
    assert 0 < asked.timeouts_s[-1] <= 0.2


def test_a_ready_agent_is_asked_once_however_long_it_may_take() -> None:
    asked = Asked([None])

    asked.wait(60)

    assert (len(asked.timeouts_s), asked.now_s) == (1, 1000)
