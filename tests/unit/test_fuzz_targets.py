"""What the fuzzer is fed with keeps its promises; so does all that it has found so far."""

from __future__ import annotations

import pytest

from fuzz.targets import FOUND, TARGETS

INPUTS = [
    *((name, seed) for name, target in TARGETS.items() for seed in (b"", *target.seeds())),
    *((path.parent.name, path.read_bytes()) for path in sorted(FOUND.glob("*/*"))),
]


@pytest.mark.parametrize(
    ("name", "data"), INPUTS, ids=[f"{name}-{at}" for at, (name, _) in enumerate(INPUTS)]
)
def test_each_seed_and_each_finding_keeps_the_promise(name: str, data: bytes) -> None:
    assert TARGETS[name].feed(data)
