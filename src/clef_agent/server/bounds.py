"""How much a client may hold, and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Bounds:
    """The bounds of each connection; ``max_connections`` is over all listeners together.

    ``head_bytes`` also bounds what follows a chunked body (trailers). ``request_s`` is from a
    request's first byte to its last, ``idle_s`` without a request under way, or without a byte
    taken of a response; both in seconds.
    """

    max_connections: int = 10_000
    head_bytes: int = 32 * 1024
    #: Requests that wait on one connection for the one before them.
    pipelined: int = 64
    request_s: float = 10.0
    idle_s: float = 60.0
