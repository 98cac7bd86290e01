"""What every key service promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

#: How long one unwrapping may take, retries included, in seconds.
DEADLINE_S: Final = 10.0
#: Calls of one service under way at once, those that hang included. What asks bounds itself below.
LANE_WIDTH: Final = 16


@dataclass(frozen=True, slots=True)
class Wrapped:
    """A data key as a service wrapped it.

    ``key_id`` is the resolved one, not an alias; ``algorithm`` is what the envelope says.
    """

    key_id: str
    wrapped_key: bytes = field(repr=False)
    algorithm: str


class KeyUnwrapper(Protocol):
    """Unwraps data keys with a key that never leaves its service."""

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        """The data key behind ``wrapped_key``, in a buffer that the caller zeroes.

        ``key_id`` and ``algorithm`` are as the envelope has them. An implementation checks
        ``key_id`` before it sends any credential: whoever writes the store chooses it.

        Raises:
            UnwrapFailed: refused for good: access, key state, wrong key, broken ciphertext.
            UnwrapUnavailable: not answered, or throttled.
        """
        ...


class KeyService(KeyUnwrapper, Protocol):
    """The whole of it: what agents ask for, and what packing does."""

    async def wrap(self, key_id: str, data_key: bytes) -> Wrapped:
        """``data_key`` (32 bytes), wrapped with the key that ``key_id`` names.

        Raises:
            UnwrapFailed, UnwrapUnavailable: as for unwrapping.
        """
        ...

    def warm_up(self) -> None:
        """Loads what an unwrapping needs, and asks nobody, where that is known beforehand.

        Called beside the event loop; may block.
        """
        ...

    async def aclose(self) -> None:
        """Closes all connections."""
        ...
