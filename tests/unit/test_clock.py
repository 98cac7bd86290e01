from __future__ import annotations

import time

import pytest

from clef_agent.clock import Instant, Pause, SystemClock, boot_id
from fakes import FakeClock

THEN = Instant(wall=1_000.0, boot=50.0)


@pytest.mark.parametrize(
    ("wall", "boot", "age_s"),
    [
        (1_000.0, 50.0, 0.0),
        (1_010.0, 60.0, 10.0),
        (900.0, 60.0, 10.0),  # the wall clock was set back
        (4_600.0, 51.0, 3_600.0),  # a freeze that the boot clock did not count
        (1_010.0, 5.0, 10.0),  # a new boot
        (990.0, 40.0, -10.0),
    ],
)
def test_age_is_the_larger_of_what_both_clocks_say(wall: float, boot: float, age_s: float) -> None:
    # case 17, case 19
    assert THEN.age_s(Instant(wall, boot)) == age_s


def test_the_system_clock_tells_both_times() -> None:
    clock = SystemClock()
    before, first, second = time.time(), clock.now(), clock.now()
    assert before <= first.wall <= time.time()
    assert 0 < first.boot <= second.boot


def test_boot_id_is_the_same_until_the_next_boot() -> None:
    assert boot_id() == boot_id()
    assert "\n" not in boot_id()


def test_a_fake_clock_moves_as_it_is_told() -> None:
    clock = FakeClock(wall=10.0, boot=1.0)
    clock.advance(5.0, wall=-20.0)
    assert clock.now() == Instant(wall=-5.0, boot=6.0)


@pytest.mark.parametrize(
    ("wall", "boot", "left_s"),
    [
        (1_000.0, 50.0, 60.0),
        (1_059.0, 109.0, 1.0),
        (4_600.0, 51.0, -3_540.0),  # a freeze that the boot clock did not count
        (900.0, 110.0, 0.0),  # the wall clock was set back
    ],
)
def test_pause_is_over_as_soon_as_either_clock_says_so(
    wall: float, boot: float, left_s: float
) -> None:
    assert Pause(THEN, 60.0).left_s(Instant(wall, boot)) == left_s
