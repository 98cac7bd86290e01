"""Each kind of event loop, for tests that talk to a server on it."""

from __future__ import annotations

import logging
from collections.abc import Coroutine
from typing import Any

import pytest

from server_fakes import LOOPS, LoopFactory, Run, run


@pytest.fixture(params=LOOPS, ids=["uvloop", "asyncio"])
def loop_factory(request: pytest.FixtureRequest) -> LoopFactory:
    factory: LoopFactory = request.param
    return factory


@pytest.fixture
def on_loop(loop_factory: LoopFactory, caplog: pytest.LogCaptureFixture) -> Run:
    """Runs a test on each kind of loop; no test may leave an error in the log."""

    def run_and_listen(test: Coroutine[Any, Any, None]) -> None:
        run(test, loop_factory)
        assert [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR] == []

    return run_and_listen
