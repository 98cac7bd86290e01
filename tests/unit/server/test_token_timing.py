"""How long the check of a wrong token takes says nothing about how much of it is right.

100,000 wrong tokens of classes that differ in how long a prefix is right are shown in rounds: one
of each class, in random order, within microseconds of each other, each timed by itself. What slows
the machine slows a whole round, so that each class is compared with the one of its length without a
right byte round by round, by the sign test: in how many rounds did it take longer? Were there no
difference, in half of them, give or take; z says how many standard deviations it is away from that.
An outlier counts no more than any other round, and no distribution is assumed. |z| of 4.5 and more
means a difference. It grows with the root of the count, so that nanoseconds show. Where bytes come
to lie in memory may make one too: each run has other bytes, and the least of three runs counts.

The token has 4,096 characters, so that a comparison that ends early ends early by much; the control
does, and is found. Lengths are no secret of a token's: a check may take longer for a longer one.
"""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Callable
from itertools import permutations
from math import sqrt
from typing import Final

import pytest

from clef_agent.server.guards import BearerToken

_TOKENS: Final = 100_000
_LENGTH: Final = 4096
_DIFFERENT: Final = 4.5
_RUNS: Final = 3
#: Tokens of each class.
_VARIANTS: Final = 8

#: Characters that a token has, and as many that it has not: each byte is right or wrong for sure.
_RIGHT: Final = b"0123456789abcdef"
_WRONG: Final = b"GHIJKLMNOPQRSTUV"

#: By name: how many characters are right, and how many there are.
_CLASSES: Final = {
    "none": (0, _LENGTH),
    "one": (1, _LENGTH),
    "half": (_LENGTH // 2, _LENGTH),
    "all but one": (_LENGTH - 1, _LENGTH),
    "none, and longer": (0, _LENGTH + 1),
    "all, and longer": (_LENGTH, _LENGTH + 1),
}
#: Each is compared with the class of its length that has nothing right.
_COMPARED: Final = {
    "one": "none",
    "half": "none",
    "all but one": "none",
    "all, and longer": "none, and longer",
}

Check = Callable[[bytes], bool]


def measured(check: Check, token: bytes, seed: int) -> dict[str, list[int]]:
    """Nanoseconds that ``check`` took for each wrong token, by class: one of each round."""
    chance = random.Random(seed)
    shown = {
        name: [token[:right] + _wrong(chance, length - right) for _ in range(_VARIANTS)]
        for name, (right, length) in _CLASSES.items()
    }
    orders = [*permutations(_CLASSES)]
    times: dict[str, list[int]] = {name: [] for name in _CLASSES}
    clock = time.perf_counter_ns
    gc.disable()
    try:
        for _ in range(_TOKENS // len(_CLASSES) + 1):
            for name in chance.choice(orders):
                header = b"".join((b"Bearer ", shown[name][chance.randrange(_VARIANTS)]))
                check(header)  # making it has left its marks in the caches; now all are alike
                started = clock()
                is_right = check(header)
                took_ns = clock() - started
                times[name].append(took_ns)
                assert not is_right
    finally:
        gc.enable()
    return times


def _wrong(chance: random.Random, length: int) -> bytes:
    return bytes(chance.choices(_WRONG, k=length))


def sign_z(some: list[int], others: list[int]) -> float:
    """The sign test's z of both, round by round; one that took both equally long is left out."""
    slower = sum(one > other for one, other in zip(some, others, strict=True))
    quicker = sum(one < other for one, other in zip(some, others, strict=True))
    return (slower - quicker) / sqrt(max(slower + quicker, 1))


def difference(check: Check, token: bytes) -> dict[str, float]:
    """The least |z| of each class over as many runs as it takes for all to be small."""
    least = dict.fromkeys(_COMPARED, float("inf"))
    for seed in range(_RUNS):
        times = measured(check, token, seed)
        for name, base in _COMPARED.items():
            least[name] = min(least[name], abs(sign_z(times[name], times[base])))
        if max(least.values()) < _DIFFERENT:
            break
    return least


@pytest.fixture
def token() -> bytes:
    return bytes(random.Random(1).choices(_RIGHT, k=_LENGTH))


def test_the_time_of_a_check_does_not_tell_how_much_of_a_token_is_right(token: bytes) -> None:
    found = difference(BearerToken(token.decode()).is_shown_by, token)
    assert max(found.values()) < _DIFFERENT, found


def test_a_comparison_that_ends_early_is_found_out(token: bytes) -> None:
    right = b"Bearer " + token
    found = difference(lambda shown: shown == right, token)
    assert found["half"] > _DIFFERENT
    assert found["all but one"] > _DIFFERENT
