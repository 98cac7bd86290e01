"""Work on large payloads, beside the event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

from clef_agent.decrypt import Secrets

T = TypeVar("T")


async def beside_loop(secrets: Secrets, look: Callable[[], T]) -> T:
    """What ``look`` makes of ``secrets``; in a thread where it takes long enough to be felt."""
    return await asyncio.to_thread(look) if secrets.is_large else look()
