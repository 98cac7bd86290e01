"""Blocking calls beside the event loop, a few at a time, that may hang without hanging the rest."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

T = TypeVar("T")


class LaneBlocked(TimeoutError):
    """The call, or one before it, did not come back in time, or no thread could be had."""


class Lane:
    """Runs blocking calls, ``width`` at a time, each in a daemon thread of its own.

    The loop's thread pool will not do: a call that hangs in the kernel (a dead NFS server) would
    hold one of its few threads for ever, and the interpreter would wait for it at exit. Here a
    hung call blocks its own lane only, further calls fail at once, and nobody waits at exit.
    """

    def __init__(self, name: str, *, width: int = 1) -> None:
        self._name = name
        self._width = width
        self._under_way = 0

    async def run(self, call: Callable[[], T], *, deadline_s: float | None) -> T:
        """What ``call`` returns or raises; None as ``deadline_s`` waits for as long as it takes.

        Raises:
            LaneBlocked: the call took longer than ``deadline_s`` (it goes on, and its result is
                dropped), or ``width`` earlier ones are still at it.
        """
        if self._under_way >= self._width:
            raise LaneBlocked(f"an earlier {self._name} operation still hangs")
        self._under_way += 1
        loop = asyncio.get_running_loop()
        done: asyncio.Future[T] = loop.create_future()

        def finish(settle: Callable[[], None]) -> None:
            self._under_way -= 1
            if not done.done():
                settle()

        def work() -> None:
            settle: Callable[[], None]
            try:
                settle = partial(done.set_result, call())
            except BaseException as exc:  # noqa: BLE001  # it is raised where it was asked for
                settle = partial(done.set_exception, exc)
            try:
                loop.call_soon_threadsafe(finish, settle)
            except RuntimeError:  # the loop is closed: nobody waits any more
                self._under_way -= 1

        try:
            threading.Thread(target=work, name=f"clef-{self._name}", daemon=True).start()
        except RuntimeError:  # as many threads as the system allows; later there may be room
            self._under_way -= 1
            raise LaneBlocked(f"no thread can be had for the {self._name} operation") from None
        try:
            await asyncio.wait([done], timeout=deadline_s)
            if not done.done():
                raise LaneBlocked(f"the {self._name} operation took over {deadline_s:g} s")
            return done.result()
        finally:
            done.cancel()  # nobody waits for it any more
