"""A fleet of agents that a deployment starts in the same second, polling by the real schedule."""

from __future__ import annotations

from collections import Counter
from random import Random

from clef_agent.schedule import Schedule, interval_s

AGENTS = 1_000
TTL_S = 300
INTERVALS = 10
SEED = 20_261_124


def requests_per_second(
    *, agents: int = AGENTS, ttl_s: int = TTL_S, intervals: int = INTERVALS, seed: int = SEED
) -> list[int]:
    """How many requests the source sees in each second, from the start on.

    Every agent loads within the first second, then polls an artifact that never changes. Time is
    a number here: what is under test is the schedule, and nothing else.
    """
    random = Random(seed)
    interval = interval_s(ttl_s=ttl_s, configured_s=None, source_is_file=False)
    end_s = intervals * interval
    seen: Counter[int] = Counter()
    for _ in range(agents):
        schedule = Schedule(interval, Random(random.getrandbits(64)))
        now_s = random.uniform(0, 1)
        seen[int(now_s)] += 1
        now_s += schedule.first_delay_s(None)
        while now_s < end_s:
            seen[int(now_s)] += 1
            now_s += schedule.delay_after_success_s(None)
    return [seen[second] for second in range(int(end_s))]


def after_first_interval(per_second: list[int], intervals: int = INTERVALS) -> list[int]:
    """``per_second`` without the interval in which the start itself lies."""
    return per_second[len(per_second) // intervals :]
