"""A key service is made when it is first asked for, and only those that were made are closed."""

from __future__ import annotations

import asyncio

import pytest

from clef_agent.kms.base import Wrapped
from clef_agent.kms.services import KeyServices


class Closing:
    """A key service that counts how often it was closed."""

    closed = 0

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        return bytearray(wrapped_key)

    async def wrap(self, key_id: str, data_key: bytes) -> Wrapped:
        return Wrapped(key_id, data_key, "none")

    def warm_up(self) -> None:
        pass

    async def aclose(self) -> None:
        self.closed += 1


def test_one_is_made_when_it_is_first_asked_for_and_once() -> None:
    made: list[Closing] = []

    def make() -> Closing:
        made.append(Closing())
        return made[-1]

    services = KeyServices({"aws": make, "gcp": make})
    assert (sorted(services), len(services), made) == (["aws", "gcp"], 2, [])
    assert services["aws"] is services["aws"]
    assert len(made) == 1
    assert services.get("azure") is None
    with pytest.raises(KeyError):
        services["azure"]


def test_those_that_were_made_are_closed_and_no_other_is_made_for_that() -> None:
    made: list[Closing] = []

    def make() -> Closing:
        made.append(Closing())
        return made[-1]

    services = KeyServices({"aws": make, "gcp": make})
    assert services["gcp"] is made[0]
    asyncio.run(services.aclose())
    assert [service.closed for service in made] == [1]
