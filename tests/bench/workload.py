"""Payloads of a given size and shape, and artifacts that hold them."""

from __future__ import annotations

import random
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeAlias

import pyrage

from clef_agent.artifact.pack import Packing, Payload, ToRecipients, pack

#: Many values of 100 bytes, or four that share the whole size.
Shape: TypeAlias = Literal["many keys", "large values"]

_SMALL_VALUE_BYTES = 100
_LARGE_VALUES = 4
_LINE_CHARS = 64


@dataclass(frozen=True, slots=True)
class KeyPair:
    """A throw-away age key: ``recipient`` to encrypt for, and the file with the other half."""

    recipient: str
    file: Path

    @classmethod
    def generate(cls, directory: Path) -> KeyPair:
        """A new pair, with its file in ``directory``."""
        identity = pyrage.x25519.Identity.generate()
        file = directory / "age.key"
        file.write_text(f"{identity}\n")
        return cls(str(identity.to_public()), file)

    def pack(self, payload: Payload) -> bytes:
        """An artifact that this pair opens."""
        encryption = ToRecipients([self.recipient])
        packing = Packing(
            identity="bench", environment="bench", encryption=encryption, packed_at=time.time()
        )
        return pack(payload, packing)


def fifty_keys() -> Payload:
    """What an ordinary application has: 50 values of 40 bytes."""
    return {"app": {f"KEY_{number}": f"{number:040d}" for number in range(50)}}


def numbered(count: int, seed: int) -> Payload:
    """``count`` values of 40 bytes; another ``seed`` gives other values."""
    return {"app": {f"KEY_{number}": f"{seed:08d}{number:032d}" for number in range(count)}}


def sized(megabytes: int, shape: Shape, *, seed: int) -> Payload:
    """A payload of about so many times 1,000,000 bytes as JSON; the seed decides its values.

    The large values have lines as PEM has them: each break is an escape in JSON.
    """
    randomness = random.Random(seed)
    total = megabytes * 1_000_000
    if shape == "many keys":
        line = len('"KEY_000000":"",') + _SMALL_VALUE_BYTES
        return {
            "app": {
                f"KEY_{number:06d}": randomness.randbytes(_SMALL_VALUE_BYTES // 2).hex()
                for number in range(total // line)
            }
        }
    value_bytes = total // _LARGE_VALUES
    lines = value_bytes // (_LINE_CHARS + len("\\n"))
    return {
        "app": {
            f"KEY_{number:06d}": "\n".join(
                randomness.randbytes(_LINE_CHARS // 2).hex() for _ in range(lines)
            )
            for number in range(_LARGE_VALUES)
        }
    }
