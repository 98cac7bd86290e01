"""The key services, each made, and its module loaded, when it is first asked for.

Most agents need one of them, or none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TypeAlias

from clef_agent.kms.base import KeyService

Makers: TypeAlias = Mapping[str, Callable[[], KeyService]]


class KeyServices(Mapping[str, KeyService]):
    """Key services by the provider's name that an envelope has."""

    def __init__(self, makers: Makers) -> None:
        self._makers = makers
        self._made: dict[str, KeyService] = {}

    def __getitem__(self, provider: str) -> KeyService:
        if provider not in self._made:
            self._made[provider] = self._makers[provider]()
        return self._made[provider]

    def __iter__(self) -> Iterator[str]:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)

    async def aclose(self) -> None:
        """Closes the connections of those that were made."""
        for service in self._made.values():
            await service.aclose()
