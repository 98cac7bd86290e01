"""A thousand agents must not knock at one source in the same second, for ever."""

from __future__ import annotations

from pathlib import Path
from statistics import mean

import pytest

from fleet import AGENTS, SEED, after_first_interval, requests_per_second

README = (Path(__file__).parents[2] / "README.md").read_text("utf-8")


@pytest.mark.parametrize("seed", [SEED, 1, 2, 3])
def test_no_second_sees_more_than_twice_the_mean_of_a_fleet_started_at_once(seed: int) -> None:
    later = after_first_interval(requests_per_second(seed=seed))
    assert max(later) <= 2 * mean(later)


def test_the_fleet_polls_as_often_as_its_interval_says() -> None:
    later = after_first_interval(requests_per_second())
    assert mean(later) == pytest.approx(AGENTS / 30, rel=0.02)


def test_the_readme_has_the_figures_of_the_fleet() -> None:
    later = after_first_interval(requests_per_second())
    assert f"{mean(later):.1f} requests a second on average, {max(later)} in the busiest" in README
