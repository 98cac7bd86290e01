"""Stand-ins for what a refresh works with: source, keeper, events, and a loop without waiting."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import selectors
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from random import Random
from typing import Any, ParamSpec, TypeVar

from clef_agent.artifact.model import Expectation, RollbackMark
from clef_agent.artifact.verify import Policy
from clef_agent.cache.disk import DiskCopy
from clef_agent.cache.keeper import CopyKeeper
from clef_agent.cache.memory import Memory
from clef_agent.clock import Instant
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.errors import (
    ClefError,
    DiskCopyUnusable,
    SourceBusy,
    SourceError,
    SourceUnreachable,
)
from clef_agent.provider import CachedSecrets, JustInTimeSecrets
from clef_agent.refresh import Failed, Outcome, Parts, Refresher
from clef_agent.schedule import Schedule
from clef_agent.sources.base import Fetched, NotModified, SourceType, Validator
from clef_agent.telemetry import events
from fakes import AGE_KEY, ENVIRONMENT, IDENTITY, FakeClock, FakeFiles, FakeKeyService, changed

T = TypeVar("T")
EventT = TypeVar("EventT")
ParamsT = ParamSpec("ParamsT")


class FakeSource:
    """A source that has ``data``, unless ``failure`` is set; it honours validators.

    ``claims_unmodified`` makes it say so to every conditional request. While ``gate`` is set, it
    answers only when the gate opens. ``requests`` holds the validator of each request.
    """

    type: SourceType = "http"
    is_remote = True

    def __init__(self, data: bytes = b"") -> None:
        self.data = data
        self.failure: Exception | None = None
        self.claims_unmodified = False
        self.knows_validators = True
        self.gate: asyncio.Event | None = None
        self.requests: list[Validator | None] = []

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        self.requests.append(previous)
        if self.gate is not None:
            await self.gate.wait()
        if self.failure is not None:
            raise self.failure
        if previous is not None and (self.claims_unmodified or previous == etag(self.data)):
            return NotModified()
        return Fetched(self.data, etag(self.data) if self.knows_validators else None)

    def describe(self) -> str:
        return "https://store.example/artifact.json"

    def warm_up(self) -> None:
        pass

    async def aclose(self) -> None:
        """Nothing."""


def etag(data: bytes) -> Validator:
    """What :class:`FakeSource` recognises ``data`` by."""
    return Validator(f'"{digest(data)}"')


def digest(data: bytes) -> str:
    """Hex SHA-256."""
    return hashlib.sha256(data).hexdigest()


class FakeKeeper:
    """A keeper whose disk is an attribute, written at once. ``failure`` is raised by reads."""

    enabled = True

    def __init__(self) -> None:
        self.data: bytes | None = None
        self.confirmed: Instant | None = None
        self.mark: RollbackMark | None = None
        self.adopted: str | None = None
        self.failure: Exception | None = None
        self.calls: list[str] = []

    def keep(self, data: bytes, digest: str, at: Instant, mark: RollbackMark | None) -> None:
        self.calls.append("keep")
        self.data, self.confirmed, self.mark = data, at, mark

    def adopt(self, digest: str) -> None:
        self.calls.append("adopt")
        self.adopted = digest

    def confirm(self, at: Instant, mark: RollbackMark | None) -> None:
        self.calls.append("confirm")
        self.confirmed, self.mark = at, mark

    def purge(self, mark: RollbackMark | None) -> None:
        self.calls.append("purge")
        self.data, self.confirmed, self.mark = None, None, mark or self.mark

    async def load(self, now: Instant) -> DiskCopy | None:
        self.calls.append("load")
        if self.failure is not None:
            raise self.failure
        if self.data is None or self.confirmed is None:
            return None
        return DiskCopy(self.data, self.confirmed.age_s(now))

    async def load_mark(self) -> RollbackMark | None:
        if self.failure is not None:
            raise self.failure
        return self.mark

    async def settle(self, deadline_s: float) -> None:
        """It always is."""


class Recorder:
    """An ``emit`` that remembers."""

    def __init__(self) -> None:
        self.events: list[events.Event] = []

    def __call__(self, event: events.Event) -> None:
        self.events.append(event)

    def of(self, kind: type[EventT]) -> list[EventT]:
        """Those of one type, oldest first."""
        return [event for event in self.events if isinstance(event, kind)]


@dataclass
class Rig:
    """An agent without server and lifecycle, around fakes that a test may turn."""

    refresher: Refresher
    provider: CachedSecrets | JustInTimeSecrets
    memory: Memory
    source: FakeSource
    keeper: CopyKeeper
    clock: FakeClock
    service: FakeKeyService
    recorder: Recorder
    decryptor: Decryptor = field(repr=False)

    async def refresh(self) -> Outcome:
        """A poll."""
        return await self.refresher.refresh()

    async def failure(self) -> ClefError:
        """What a poll fails with."""
        outcome = await self.refresher.refresh()
        assert isinstance(outcome, Failed)
        return outcome.error

    async def served(self) -> bytes:
        """What a request is answered with, at once or not."""
        at_hand = self.provider.at_hand()
        opened = await self.provider.open()
        served = bytes(opened.secrets.json)
        if at_hand is not None:
            assert at_hand.digest == opened.digest
            assert bytes(at_hand.secrets.json) == served
        return served

    async def pass_backoff(self) -> None:
        """Moves both clocks to where the next attempt may be made."""
        self.clock.advance(max(self.refresher.backoff_left_s(), 0.0))


@dataclass(kw_only=True)
class Setup:
    """What a test wants different from the usual; :meth:`rig` makes an agent of it.

    Several agents made of one set-up share source, keeper and clock, as restarts do.
    """

    ttl_s: int = 300
    interval_s: float = 30.0
    verify_key: Any = None
    rollback_protection: bool = False
    source: FakeSource = field(default_factory=FakeSource)
    keeper: CopyKeeper = field(default_factory=FakeKeeper)
    clock: FakeClock = field(default_factory=FakeClock)
    service: FakeKeyService = field(default_factory=FakeKeyService)
    seed: int = 7
    fetch_deadline_s: float = 15.0

    def rig(self) -> Rig:
        recorder, memory = Recorder(), Memory(self.ttl_s)
        decryptor = Decryptor(
            AgeKeyring(AGE_KEY, None, FakeFiles()),
            EnvelopeOpener({self.service.provider: self.service}),
        )
        refresher = Refresher(
            Parts(
                source=self.source,
                decryptor=decryptor,
                memory=memory,
                keeper=self.keeper,
                policy=Policy(
                    verify_key=self.verify_key,
                    expected=Expectation(IDENTITY, ENVIRONMENT),
                    rollback_protection=self.rollback_protection,
                ),
                clock=self.clock,
                schedule=Schedule(self.interval_s, Random(self.seed)),
                emit=recorder,
            ),
            keeps_plaintext=self.ttl_s > 0,
            fetch_deadline_s=self.fetch_deadline_s,
        )
        provider = (
            CachedSecrets(memory, refresher, self.clock)
            if self.ttl_s > 0
            else JustInTimeSecrets(memory, refresher, self.clock, decryptor)
        )
        return Rig(
            refresher,
            provider,
            memory,
            self.source,
            self.keeper,
            self.clock,
            self.service,
            recorder,
            decryptor,
        )


def revoked(data: bytes, **fields: Any) -> bytes:
    """The artifact ``data`` with a revocation in it."""
    return changed(data, revokedAt="2027-01-15T08:00:00Z", **fields)


def broken_disk() -> DiskCopyUnusable:
    """What a keeper raises when the copy cannot be read."""
    return DiskCopyUnusable("it cannot be read")


#: Where no timer is set, only a thread can wake the loop.
_LONGEST_THREAD_S = 10


class _JumpingSelector(selectors.DefaultSelector):
    """Where others wait for a timer, this one tells ``loop`` that its time has come."""

    loop: VirtualTimeLoop

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            ready = super().select(_LONGEST_THREAD_S)
            assert ready, "nothing is left that this test could be waiting for"
            return ready
        self.loop.elapsed_s += max(timeout, 0)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop in which timers take no time. For code without threads and sockets."""

    def __init__(self) -> None:
        self.elapsed_s = 0.0
        selector = _JumpingSelector()
        selector.loop = self
        super().__init__(selector)

    def time(self) -> float:
        return self.elapsed_s


def in_virtual_time(
    test: Callable[ParamsT, Coroutine[Any, Any, None]],
) -> Callable[ParamsT, None]:
    """The coroutine function ``test`` as a function that runs it on a :class:`VirtualTimeLoop`."""

    @functools.wraps(test)
    def run(*args: ParamsT.args, **kwargs: ParamsT.kwargs) -> None:
        with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
            runner.run(test(*args, **kwargs))

    return run


def unreachable(retry_after_s: float | None = None) -> SourceError:
    """A failure of the source that may pass."""
    if retry_after_s is None:
        return SourceUnreachable("no route")
    return SourceBusy("asks for patience", retry_after_s=retry_after_s)
