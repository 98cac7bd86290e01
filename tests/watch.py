"""A client that goes on asking while things go wrong, and remembers every answer."""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any, Self

from agent_process import AgentProcess

#: How long an answer may take at the worst, in seconds.
_PATIENCE_S = 20.0
_PAUSE_S = 0.02


class Watch:
    """Asks ``agent`` for all secrets again and again until the end of the block.

    The end asserts that nothing was served but one of the payloads that were allowed. ``lost``
    holds every answer that was no 200, and every question that got none.
    """

    def __init__(self, agent: AgentProcess, *allowed: Any) -> None:
        self._agent = agent
        self._allowed = [*allowed]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.served = 0
        self.wrong: list[Any] = []
        self.lost: list[str] = []

    def allow(self, payload: Any) -> None:
        """From now on ``payload`` may be served, too."""
        self._allowed.append(payload)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        exc: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._thread.join(2 * _PATIENCE_S)
        assert self.wrong == [], "something wrong was served"
        if exc is None:
            assert self.served, "nothing was served while it was watched"

    def _ask(self) -> None:
        while not self._over.is_set():
            try:
                answer = self._agent.request("/v1/secrets", timeout_s=_PATIENCE_S)
            except OSError as exc:
                self.lost.append(type(exc).__name__)
            else:
                if answer.status != 200:
                    self.lost.append(answer.body.decode())
                elif answer.json not in self._allowed:
                    self.wrong.append(answer.json)
                else:
                    self.served += 1
            self._over.wait(_PAUSE_S)
