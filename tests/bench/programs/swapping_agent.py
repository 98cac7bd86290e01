"""An agent that swaps between two artifacts, with a ticker on its event loop.

``python swapping_agent.py FIRST SECOND SWAPS`` takes its configuration from the environment, as
the agent does; its source is a file that does not need to exist yet. It prints ``ready`` once it
serves FIRST, waits for a line, swaps, and prints one line of JSON: a list of ``{"quiet_s",
"stall_s", "swap_s"}``, one for each swap; and serves on until its input ends.

Everything is what the agent itself is made of; only the moments of refreshing are ours.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import uvloop

from clef_agent import config as configuration
from clef_agent.lifecycle.agent import Agent
from clef_agent.refresh import Refreshed
from clef_agent.regular_file import read_regular_file
from clef_agent.wiring import assemble

_TICK_S = 0.001
#: Before a swap, for the stalls that others cause; after it, for what it leaves behind: the first
#: lookup builds an index, the last response lets go of the old buffer, the collector runs.
_AROUND_S = 0.3
#: All of it; whoever waits for our line has no deadline of their own.
_DEADLINE_S = 120


@dataclass(frozen=True, slots=True)
class Swap:
    """One swap: the longest stall before it and around it, and how long it took, in seconds."""

    quiet_s: float
    stall_s: float
    swap_s: float


class Ticker:
    """Wakes each millisecond; keeps by how much it was late at worst, in seconds."""

    def __init__(self) -> None:
        self._longest_s = 0.0
        self._due = 0.0

    async def run(self) -> None:
        """Ticks until cancelled."""
        while True:
            self._due = time.perf_counter() + _TICK_S
            await asyncio.sleep(_TICK_S)
            self._longest_s = max(self._longest_s, time.perf_counter() - self._due)

    def take_longest_s(self) -> float:
        """The longest stall since it was last asked for."""
        # A stall that ended in this very turn of the loop has not been seen by the ticker yet.
        longest_s = max(self._longest_s, time.perf_counter() - self._due)
        self._longest_s = 0.0
        return longest_s


async def _swap(agent: Agent, ticker: Ticker, artifact: Path, source: Path) -> Swap:
    _replace(source, artifact)
    await asyncio.sleep(_AROUND_S)
    ticker.take_longest_s()
    await asyncio.sleep(_AROUND_S)
    quiet_s = ticker.take_longest_s()
    started = time.perf_counter()
    outcome = await agent.core.refresher.refresh()
    swap_s = time.perf_counter() - started
    assert isinstance(outcome, Refreshed)
    assert outcome.changed
    await asyncio.sleep(_AROUND_S)
    return Swap(quiet_s, ticker.take_longest_s(), swap_s)


def _replace(source: Path, artifact: Path) -> None:
    passing = source.with_name(f".{source.name}.new")
    shutil.copyfile(artifact, passing)
    passing.replace(source)


async def _run(artifacts: tuple[Path, Path], swaps: int) -> None:
    env = dict(os.environ)
    source = Path(env["CLEF_AGENT_SOURCE"])
    _replace(source, artifacts[0])
    agent = assemble(configuration.load(env, read_regular_file), env)
    await agent.listen()
    await agent.core.refresher.refresh()
    _say("ready")
    await asyncio.to_thread(sys.stdin.readline)
    ticker = Ticker()
    ticking = asyncio.get_running_loop().create_task(ticker.run())
    async with asyncio.timeout(_DEADLINE_S):
        done = [
            await _swap(agent, ticker, artifacts[(number + 1) % 2], source)
            for number in range(swaps)
        ]
    ticking.cancel()
    _say(json.dumps([asdict(swap) for swap in done]))
    await asyncio.to_thread(sys.stdin.readline)  # who asks would count our end as a failure
    await agent.listener.drain(0)
    await agent.close()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main() -> None:
    """Serves, swaps, and prints what it saw."""
    artifacts = Path(sys.argv[1]), Path(sys.argv[2])
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run(artifacts, int(sys.argv[3])))


if __name__ == "__main__":
    main()
