"""Blocking calls beside the event loop, one at a time, that may hang without hanging the rest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")


class LaneBlocked(TimeoutError):
    """The call, or one before it, did not come back in time."""


class Lane:
    """Runs one blocking call at a time in a daemon thread of its own.

    The loop's thread pool will not do: a call that hangs in the kernel (a dead NFS server) would
    hold one of its few threads for ever, and the interpreter would wait for it at exit. Here a
    hung call blocks its own lane only, further calls fail at once, and nobody waits at exit.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._busy = False

    async def run(self, call: Callable[[], T], *, deadline_s: float) -> T:
        """What ``call`` returns or raises.

        Raises:
            LaneBlocked: the call took longer than ``deadline_s`` (it goes on, and its result is
                dropped), or an earlier one is still at it.
        """
        if self._busy:
            raise LaneBlocked(f"an earlier {self._name} operation still hangs")
        self._busy = True
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(set_outcome: Callable[[], None]) -> None:
            self._busy = False
            if not done.done():
                set_outcome()

        def work() -> None:
            try:
                result = call()
            except BaseException as exc:  # noqa: BLE001  # it is raised again where it was called
                error = exc
                post(lambda: done.set_exception(error))
            else:
                post(lambda: done.set_result(result))

        def post(set_outcome: Callable[[], None]) -> None:
            try:
                loop.call_soon_threadsafe(finish, set_outcome)
            except RuntimeError:
                pass  # the loop is closed: nobody waits any more

        threading.Thread(target=work, name=f"clef-{self._name}", daemon=True).start()
        try:
            async with asyncio.timeout(deadline_s):
                return await done
        except TimeoutError:
            if done.done() and not done.cancelled():
                raise  # the call's own
            raise LaneBlocked(f"the {self._name} operation took over {deadline_s:g} s") from None
