"""Decrypts one artifact again and again: the limit of what just-in-time mode can do.

``python decrypt_loop.py ARTIFACT KEY_FILE SECONDS`` prints how often a second it did.
"""

from __future__ import annotations

import base64
import json
import sys
import time
from pathlib import Path

import pyrage

_ROUNDS_BETWEEN_LOOKS_AT_THE_CLOCK = 50


def main() -> None:
    """Prints the rate."""
    artifact = json.loads(Path(sys.argv[1]).read_bytes())
    ciphertext = base64.b64decode(artifact["ciphertext"])
    identities = [pyrage.x25519.Identity.from_str(Path(sys.argv[2]).read_text().strip())]
    duration_s = float(sys.argv[3])
    rounds = 0
    started = now = time.perf_counter()
    while now - started < duration_s:
        for _ in range(_ROUNDS_BETWEEN_LOOKS_AT_THE_CLOCK):
            json.loads(pyrage.decrypt(ciphertext, identities))
        rounds += _ROUNDS_BETWEEN_LOOKS_AT_THE_CLOCK
        now = time.perf_counter()
    sys.stdout.write(f"{rounds / (now - started)}\n")


if __name__ == "__main__":
    main()
