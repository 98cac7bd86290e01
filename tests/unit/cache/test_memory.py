from __future__ import annotations

import asyncio

import pytest

from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, verify
from clef_agent.cache.memory import Held, Memory
from clef_agent.clock import Instant
from clef_agent.errors import ArtifactExpired, ArtifactRevoked, CacheExpired, NotLoaded
from fakes import NOW, FakeClock, FakeKeyService, packed

START = Instant(NOW, 1_000)


def held(data: bytes) -> Held:
    return Held(verify(parse(data), Policy(), wall=NOW), None, None)


def memory_with(data: bytes, ttl_s: float = 300) -> Memory:
    memory = Memory(ttl_s)
    memory.accept(held(data), START)
    return memory


def later(both: float = 0, *, wall: float = 0, boot: float = 0) -> Instant:
    clock = FakeClock()
    clock.advance(both, wall=wall, boot=boot)
    return clock.now()


def test_nothing_is_held_at_first() -> None:
    memory = Memory(300)
    assert memory.held is None
    assert memory.last_success is None
    assert memory.never_loaded
    assert memory.why_not(START) is NotLoaded
    assert memory.seconds_left(START) is None
    assert memory.until_expiry_s(START) is None


def test_accepted_artifact_may_be_served() -> None:
    memory = memory_with(packed())
    assert memory.why_not(START) is None
    assert memory.last_success == START
    assert not memory.never_loaded


@pytest.mark.parametrize(
    ("now", "is_served"),
    [
        (later(299.9), True),
        (later(300), False),
        (later(wall=300), False),
        (later(boot=300), False),
        (later(299, wall=-1e9), True),
        (later(300, wall=-1e9), False),
        (later(wall=-1e9), True),
    ],
)
def test_trust_ends_with_the_clock_that_says_more(now: Instant, is_served: bool) -> None:  # case 19
    assert memory_with(packed()).why_not(now) is (None if is_served else CacheExpired)


def test_sum_that_rounds_down_takes_nothing_from_the_ttl() -> None:
    """In binary, 1000.1 + 300 is a little less than 300 after 1000.1."""
    memory = Memory(300)
    memory.accept(held(packed()), Instant(NOW, 1_000.1))
    assert memory.why_not(Instant(NOW, 1_000.1 + 300)) is None


def test_expiry_is_judged_by_the_wall_clock_alone() -> None:
    memory = memory_with(packed(expires_at=NOW + 100))
    assert memory.why_not(later(wall=100)) is ArtifactExpired
    assert memory.why_not(later(boot=200)) is None


def test_expiry_is_named_before_the_ttl() -> None:
    assert memory_with(packed(expires_at=NOW + 100)).why_not(later(400)) is ArtifactExpired


@pytest.mark.parametrize("because", [ArtifactRevoked, CacheExpired, ArtifactExpired, NotLoaded])
def test_wipe_lets_go_and_remembers_why(because: type[NotLoaded]) -> None:
    memory = memory_with(packed())
    memory.wipe(because)
    assert memory.held is None
    assert memory.why_not(START) is because
    assert memory.seconds_left(START) is None
    assert memory.last_success == START
    assert memory.never_loaded == (because is NotLoaded)


def test_successor_is_judged_by_its_own_expiry() -> None:
    memory = memory_with(packed())
    memory.accept(held(packed(expires_at=NOW + 100)), START)
    assert memory.why_not(later(99)) is None
    assert memory.why_not(later(100)) is ArtifactExpired


def test_each_success_begins_the_ttl_anew() -> None:
    memory = memory_with(packed())
    memory.accept(held(packed()), later(200))
    assert memory.why_not(later(499)) is None
    assert memory.why_not(later(500)) is CacheExpired


def test_seconds_left_is_the_sooner_of_trust_and_expiry() -> None:
    assert memory_with(packed()).seconds_left(later(100)) == 200
    assert memory_with(packed(expires_at=NOW + 150)).seconds_left(later(100)) == 50
    assert memory_with(packed(expires_at=NOW + 1e6)).seconds_left(later(100)) == 200


def test_seconds_left_is_never_negative() -> None:
    assert memory_with(packed()).seconds_left(later(1000)) == 0


def test_just_in_time_trusts_an_age_artifact_for_300_seconds() -> None:
    memory = memory_with(packed(), ttl_s=0)
    assert memory.seconds_left(later(100)) == 200
    assert memory.why_not(later(300)) is CacheExpired


def test_just_in_time_trusts_a_key_service_until_the_expiry() -> None:
    memory = memory_with(packed(service=FakeKeyService(), expires_at=NOW + 1e6), ttl_s=0)
    assert memory.why_not(later(1e6 - 1)) is None
    assert memory.why_not(later(1e6)) is ArtifactExpired
    assert memory.seconds_left(later(100)) == 1e6 - 100


def test_just_in_time_trusts_a_key_service_for_ever_without_an_expiry() -> None:
    memory = memory_with(packed(service=FakeKeyService()), ttl_s=0)
    assert memory.why_not(later(1e9)) is None
    assert memory.seconds_left(later(1e9)) is None


def test_memory_does_not_need_a_loop() -> None:
    with pytest.raises(RuntimeError):
        asyncio.get_running_loop()
    memory_with(packed())
