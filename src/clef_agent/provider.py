"""The two ways of having secrets ready: kept decrypted, or decrypted for each request.

A mode is an object. The server, health and the lifecycles know :class:`SecretsProvider` alone.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Literal, NamedTuple, Protocol, TypeAlias

from clef_agent import errors
from clef_agent.cache.memory import Held, Memory, WhyNot
from clef_agent.clock import Clock
from clef_agent.decrypt import Decryptor, Secrets
from clef_agent.refresh import REQUEST_PATIENCE_S, Refreshed, Refresher

Mode: TypeAlias = Literal["cached", "jit"]

#: Requests that may wait for a change at the same time.
MAX_WAITERS: Final = 256


class Opened(NamedTuple):
    """Secrets that may be served now, and the hex SHA-256 of the artifact that they came from."""

    secrets: Secrets
    digest: str


@dataclass(frozen=True, slots=True)
class Status:
    """What health and readiness tell. ``last_success_ms`` is in milliseconds since 1970 UTC."""

    mode: Mode
    revision: str | None
    last_success_ms: int | None
    why_not: WhyNot | None


class SecretsProvider(Protocol):
    """Secrets for the server."""

    mode: Mode

    async def open(self) -> Opened:
        """The secrets.

        Raises:
            Unavailable: none may be served now.
        """
        ...

    def at_hand(self) -> Opened | None:
        """What :meth:`open` returns, where it has to wait for nothing and may be served now.

        Raises:
            ArtifactError: it cannot be decrypted.
        """
        ...

    async def wait_for_change(self, digest: str, timeout_s: float) -> None:
        """Returns when another artifact than ``digest`` is held, or after ``timeout_s``.

        Raises:
            Unavailable: at once, when what was held is wiped, the process drains, or
                ``MAX_WAITERS`` wait already.
        """
        ...

    async def refresh_on_demand(self) -> Refreshed:
        """A refresh for whoever asks. Raises RefreshTooSoon or AttemptFailed."""
        ...

    def wants_refresh(self) -> bool:
        """Whether an invocation of a function, where no timer polls, calls for a refresh."""
        ...

    def status(self) -> Status:
        """The state as it is now, without asking the source."""
        ...

    def changed(self) -> None:
        """To be called after each change of what is held: wakes those who wait for one."""
        ...

    def drain(self) -> None:
        """Sends home those who wait: the process is about to end."""
        ...


class _Provider:
    """What both modes share."""

    mode: Mode

    def __init__(self, memory: Memory, refresher: Refresher, clock: Clock) -> None:
        self._memory = memory
        self._refresher = refresher
        self._clock = clock
        self._waiters: set[asyncio.Event] = set()
        self._draining = False

    async def _regained(self, why_not: WhyNot) -> Held:
        """What is held after all: what has merely passed its time is fetched anew."""
        if why_not not in (errors.CacheExpired, errors.ArtifactExpired):
            raise self._refresher.unavailable(why_not)
        await self._refresher.recover()
        held = self._memory.held
        assert held is not None  # or else there was a reason
        return held

    async def wait_for_change(self, digest: str, timeout_s: float) -> None:
        """See SecretsProvider."""
        if self._has_changed(digest):
            return
        if len(self._waiters) >= MAX_WAITERS:
            raise errors.TooManyWaiters(f"{MAX_WAITERS} requests wait already", retry_after_s=1)
        woken = asyncio.Event()
        self._waiters.add(woken)
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(timeout_s):
                    while not self._has_changed(digest):
                        woken.clear()
                        await woken.wait()
        finally:
            self._waiters.discard(woken)

    def _has_changed(self, digest: str) -> bool:
        if self._draining:
            raise errors.ShuttingDown("the agent is shutting down")
        why_not = self._memory.why_not(self._clock.now())
        if why_not is not None:
            raise self._refresher.unavailable(why_not)
        held = self._memory.held
        return held is not None and held.artifact.digest != digest

    async def refresh_on_demand(self) -> Refreshed:
        """See SecretsProvider."""
        return await self._refresher.refresh_on_demand()

    def status(self) -> Status:
        """See SecretsProvider."""
        held, last_success = self._memory.held, self._memory.last_success
        return Status(
            mode=self.mode,
            revision=held.artifact.revision if held else None,
            last_success_ms=round(last_success.wall * 1000) if last_success else None,
            why_not=self._memory.why_not(self._clock.now()),
        )

    def changed(self) -> None:
        """See SecretsProvider."""
        for woken in self._waiters:
            woken.set()

    def drain(self) -> None:
        """See SecretsProvider."""
        self._draining = True
        self.changed()


class CachedSecrets(_Provider):
    """Decrypted once per artifact, and kept."""

    mode: Mode = "cached"

    async def open(self) -> Opened:
        """See SecretsProvider."""
        why_not = self._memory.why_not(self._clock.now())
        return _kept(self._memory.held if why_not is None else await self._regained(why_not))

    def at_hand(self) -> Opened | None:
        """See SecretsProvider."""
        if self._memory.why_not(self._clock.now()) is not None:
            return None
        return _kept(self._memory.held)

    def wants_refresh(self) -> bool:
        """See SecretsProvider: when a poll would have come by now."""
        return self._refresher.is_due()


def _kept(held: Held | None) -> Opened:
    assert held is not None  # or else there was a reason
    assert held.secrets is not None  # the refresher of this mode keeps them
    return Opened(held.secrets, held.artifact.digest)


class JustInTimeSecrets(_Provider):
    """Decrypted anew for each request; nothing decrypted outlives the response.

    ``max_concurrent`` bounds the calls to a key service under way at once, where one is asked.
    ``observe`` is told how long each decryption took, in seconds.
    """

    mode: Mode = "jit"

    def __init__(
        self,
        memory: Memory,
        refresher: Refresher,
        clock: Clock,
        decryptor: Decryptor,
        *,
        max_concurrent: int = 8,
        observe: Callable[[float], None] = lambda _: None,
    ) -> None:
        super().__init__(memory, refresher, clock)
        self._decryptor = decryptor
        self._observe = observe
        self._slots = asyncio.Semaphore(max_concurrent)

    async def open(self) -> Opened:
        """See SecretsProvider."""
        why_not = self._memory.why_not(self._clock.now())
        held = self._memory.held if why_not is None else await self._regained(why_not)
        assert held is not None  # or else there was a reason
        began = self._clock.now()
        secrets = await self._decrypt(held)
        self._observe(self._clock.now().boot - began.boot)
        # What happened while the key service answered counts: a wipe, an expiry, a successor.
        why_not = self._memory.why_not(self._clock.now())
        if why_not is not None:
            raise self._refresher.unavailable(why_not)
        current = self._memory.held
        if current is not None and current.artifact.digest != held.artifact.digest:
            return await self.open()
        return Opened(secrets, held.artifact.digest)

    def at_hand(self) -> Opened | None:
        """See SecretsProvider: decrypted here and now, where that takes an age key alone."""
        began = self._clock.now()
        if self._memory.why_not(began) is not None:
            return None
        held = self._memory.held
        assert held is not None  # or else there was a reason
        secrets = self._decryptor.decrypt_at_once(held.verified)
        if secrets is None:
            return None
        self._observe(self._clock.now().boot - began.boot)
        return Opened(secrets, held.artifact.digest)

    async def _decrypt(self, held: Held) -> Secrets:
        try:
            if held.artifact.envelope is None:
                return await self._decryptor.decrypt(held.verified)
            async with asyncio.timeout(REQUEST_PATIENCE_S), self._slots:
                return await self._decryptor.decrypt(held.verified)
        except errors.ArtifactError as exc:
            raise errors.AttemptFailed(exc) from exc
        except TimeoutError:
            failure = errors.UnwrapUnavailable("the key service did not answer in time")
            raise errors.AttemptFailed(failure) from None

    def wants_refresh(self) -> bool:
        """See SecretsProvider: always, unless the source has asked to be left in peace."""
        return not self._refresher.is_unwelcome()


class RefreshedOnRequest:
    """Another provider's secrets, looked after by those who ask for them: for where no timer is.

    A request that comes when a look is due is answered with what the source has now; it waits no
    longer for that than until ``patience_s`` after the look began. ``leave_to_timer`` ends that.
    """

    def __init__(
        self, provider: SecretsProvider, refresher: Refresher, *, patience_s: float
    ) -> None:
        self.mode: Mode = provider.mode
        self.wait_for_change = provider.wait_for_change
        self.refresh_on_demand = provider.refresh_on_demand
        self.wants_refresh = provider.wants_refresh
        self.status = provider.status
        self.changed = provider.changed
        self.drain = provider.drain
        self._provider = provider
        self._refresher = refresher
        self._patience_s = patience_s
        self._has_timer = False

    async def open(self) -> Opened:
        """See SecretsProvider."""
        if not self._has_timer:
            await self._refresher.refresh_if_due(self._patience_s)
        return await self._provider.open()

    def at_hand(self) -> Opened | None:
        """See SecretsProvider."""
        return self._provider.at_hand() if self._has_timer else None

    def leave_to_timer(self) -> None:
        """From now on a timer polls, and no request waits for it."""
        self._has_timer = True
