"""What every key service promises."""

from __future__ import annotations

from typing import Protocol


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
