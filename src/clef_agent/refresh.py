"""One refresh at a time, and what each outcome does to what is held.

A refresh fetches, proves and decrypts; only when all of that has succeeded does anything that is
served change. Expiry, revocation and a TTL without success wipe; everything else that goes wrong
leaves the last good artifact in its place. The next success always serves again, whatever was
before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from clef_agent import errors
from clef_agent.artifact.model import RollbackMark, newest
from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, VerifiedArtifact, verify
from clef_agent.cache.keeper import CopyKeeper
from clef_agent.cache.memory import Held, Memory
from clef_agent.clock import Clock, Instant
from clef_agent.decrypt import Decryptor, Secrets
from clef_agent.errors import ArtifactError, ClefError, SourceError, Unavailable
from clef_agent.log import LOGGER
from clef_agent.schedule import Backoff, Schedule
from clef_agent.sources.base import FETCH_DEADLINE_S, Fetched, NotModified, Source, Validator
from clef_agent.telemetry import events

#: Bytes of artifact up to which parsing on the event loop takes well below a millisecond.
_INLINE_MAX_BYTES: Final = 64 * 1024
#: How long a request waits for a refresh that it triggered or joined, in seconds.
REQUEST_PATIENCE_S: Final = 5.0
#: No attempt lasts longer, in seconds: two fetches, an unwrapping, and what a disk may take. One
#: that seems to was frozen in between, together with the process.
LONGEST_ATTEMPT_S: Final = 60.0
#: A caller can ask for one refresh in so many seconds.
_ON_DEMAND_INTERVAL_S: Final = 1.0
#: A refresh that is ended lets go of its connection so fast, in seconds, or is left behind.
_ABANDON_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The source was reached, and what it has is held."""

    revision: str
    changed: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """The refresh failed; what is held was judged accordingly."""

    error: ClefError


Outcome: TypeAlias = Refreshed | Failed


@dataclass(frozen=True, slots=True)
class Parts:
    """What a refresh works with."""

    source: Source
    decryptor: Decryptor
    memory: Memory
    keeper: CopyKeeper
    policy: Policy
    clock: Clock
    schedule: Schedule
    emit: events.Emit
    #: Takes what is the agent's own from secrets just accepted, and keeps nothing else of them.
    take_own: Callable[[Secrets], None] = lambda _: None


class Refresher:
    """Keeps :class:`Memory` in step with a source.

    ``keeps_plaintext`` is false in just-in-time mode: then an artifact is decrypted once to prove
    that it can be, and the plaintext is dropped at once.
    """

    def __init__(
        self, parts: Parts, *, keeps_plaintext: bool, fetch_deadline_s: float = FETCH_DEADLINE_S
    ) -> None:
        self._parts = parts
        self._memory = parts.memory
        self._clock = parts.clock
        self._keeps_plaintext = keeps_plaintext
        #: How long a fetch that begins now may take, in seconds, and an unwrapping.
        self.fetch_deadline_s = fetch_deadline_s
        self._flight: asyncio.Task[Outcome] | None = None
        self._attempt_began = self._awaited_since = parts.clock.now()
        self._deadline: asyncio.Timeout | None = None
        self._tell: list[Callable[[], None]] = []
        self._mark: RollbackMark | None = None
        self._mark_is_known = not parts.policy.rollback_protection
        self._told_of_mark = False
        self._backoff = Backoff(parts.schedule)
        self._last_failure: ClefError | None = None
        self._last_digest = ""
        #: On the boot clock, which no one can set.
        self._on_demand_again_at = 0.0

    # --- asking for a refresh -------------------------------------------------------------------

    async def refresh(self) -> Outcome:
        """The outcome of a refresh: of the one under way, or else of a new one."""
        # Whoever gives up waiting must not take the refresh away from the others.
        return await asyncio.shield(self._joined())

    async def refresh_within(self, patience_s: float) -> None:
        """Waits for a refresh as ``refresh`` does, but only until ``patience_s`` after it began.

        A source that hangs costs that much once, and not each of those who come by.
        """
        flight = self._joined()
        left_s = patience_s - self._awaited_since.age_s(self._clock.now())
        if left_s > 0:
            await asyncio.wait([flight], timeout=left_s)

    async def refresh_if_due(self, patience_s: float) -> None:
        """For a request, where no timer looks: what may be served, but is due, is refreshed first.

        Waits as ``refresh_within`` does; a failure leaves what is held as it is.
        """
        if self._memory.why_not(self._clock.now()) is None and (self.is_under_way or self.is_due()):
            await self.refresh_within(patience_s)

    def is_due(self) -> bool:
        """Whether a poll would have come by now, and no backoff stands against it."""
        now, last_success = self._clock.now(), self._memory.last_success
        if self._backoff.left_s(now) > 0:
            return False
        return last_success is None or self._parts.schedule.is_due(
            last_success.age_s(now), self._memory.until_expiry_s(now)
        )

    def is_unwelcome(self) -> bool:
        """Whether the source has asked to be left in peace for longer than now."""
        return self._backoff.asked_s(self._clock.now()) > 0

    @property
    def last_failure(self) -> ClefError | None:
        """What the latest refresh failed with, or None where it did not."""
        return self._last_failure

    @property
    def is_under_way(self) -> bool:
        """Whether a refresh has begun and not ended."""
        return self._flight is not None

    def when_landed(self, tell: Callable[[], None]) -> None:
        """From now on ``tell`` is called whenever a refresh has ended."""
        self._tell.append(tell)

    async def refresh_on_demand(self) -> Refreshed:
        """A refresh that a caller asked for: past the backoff, but not past the source's wish.

        Raises:
            RefreshTooSoon: the source asked for patience, or the last one was just now.
            AttemptFailed: the refresh failed.
        """
        if self._flight is None:
            now = self._clock.now()
            wait_s = max(self._backoff.asked_s(now), self._on_demand_again_at - now.boot)
            if wait_s > 0:
                raise errors.RefreshTooSoon(wait_s)
            self._on_demand_again_at = now.boot + _ON_DEMAND_INTERVAL_S
        outcome = await self.refresh()
        if isinstance(outcome, Failed):
            raise errors.AttemptFailed(outcome.error, retry_after_s=self.backoff_left_s())
        return outcome

    async def recover(self) -> None:
        """Brings back what has passed its time, for a request that found it so.

        All such requests share one refresh, and wait for it ``REQUEST_PATIENCE_S`` at most. Within
        the backoff after a failure nobody waits, and the source is left in peace.

        Raises:
            Unavailable: nothing may be served yet.
        """
        self.enforce()
        if self._flight is not None or self.backoff_left_s() <= 0:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(REQUEST_PATIENCE_S):
                    await self.refresh()
        why_not = self._memory.why_not(self._clock.now())
        if why_not is not None:
            raise self.unavailable(why_not)

    def backoff_left_s(self) -> float:
        """Seconds until the next attempt after a failure; 0 or less when there is none to wait."""
        return self._backoff.left_s(self._clock.now())

    def delay_s(self, *, first: bool = False) -> float:
        """Seconds until the next poll, reckoned from now; the ``first`` one is spread wider."""
        if self._backoff.failures:
            return max(self.backoff_left_s(), 0.0)
        until_expiry_s = self._memory.until_expiry_s(self._clock.now())
        if first:
            return self._parts.schedule.first_delay_s(until_expiry_s)
        return self._parts.schedule.delay_after_success_s(until_expiry_s)

    def unavailable(self, why_not: type[Unavailable]) -> Unavailable:
        """``why_not`` with what is known of its cause, and when it may be worth asking again."""
        detail = str(self._last_failure) if self._last_failure else None
        retry_after_s = max(self.backoff_left_s(), 1.0)
        return why_not(_UNAVAILABLE[why_not], detail=detail, retry_after_s=retry_after_s)

    async def abandon(self) -> None:
        """Ends the refresh under way: the process is about to end, and takes its means away.

        Whoever waits for it is cancelled, too.
        """
        self._tell.clear()
        if self._flight is not None:
            self._flight.cancel()
            await asyncio.wait([self._flight], timeout=_ABANDON_S)

    # --- judging what is held -------------------------------------------------------------------

    def enforce(self) -> None:
        """Wipes what has passed its time, in memory and on disk."""
        held, now = self._memory.held, self._clock.now()
        if held is None:
            return
        why_not = self._memory.why_not(now)
        if why_not is errors.ArtifactExpired and held.artifact.expires_at is not None:
            self._wipe(why_not)
            self._emit(events.ArtifactExpired(held.artifact.expires_at.text))
        elif why_not is errors.CacheExpired:
            self._wipe(why_not)
            trust_s = self._memory.trust_s(held) or 0.0
            self._emit(events.CacheExpired(trust_s, self._parts.keeper.enabled))

    def _wipe(self, because: type[Unavailable]) -> None:
        self._memory.wipe(because)
        self._parts.keeper.purge(self._mark)

    def _emit(self, event: events.Event) -> None:
        try:
            self._parts.emit(event)
        except Exception as exc:  # noqa: BLE001  # who listens has no say in what is served
            names = type(event).__name__, type(exc).__name__
            LOGGER.error("a listener failed at %s: %s", *names)  # its text may hold anything

    def _hand_out(self, secrets: Secrets) -> None:
        try:
            self._parts.take_own(secrets)
        except Exception as exc:  # noqa: BLE001  # as above
            LOGGER.error("the agent's own secrets cannot be used: %s", type(exc).__name__)

    # --- one refresh ----------------------------------------------------------------------------

    def _joined(self) -> asyncio.Task[Outcome]:
        """The refresh under way, or else a new one."""
        if self._flight is None:
            self._awaited_since = self._clock.now()
            self._flight = asyncio.get_running_loop().create_task(self._run())
            self._flight.add_done_callback(self._landed)
        elif self._was_frozen and self._deadline is not None and not self._deadline.expired():
            # Its connection is dead, and its timers may have stood still: it is to begin anew.
            self._deadline.reschedule(asyncio.get_running_loop().time())
            self._awaited_since = self._clock.now()
        return self._flight

    @property
    def _was_frozen(self) -> bool:
        """Whether the process was frozen since the latest attempt began."""
        return self._attempt_began.age_s(self._clock.now()) > LONGEST_ATTEMPT_S

    def _landed(self, flight: asyncio.Task[Outcome]) -> None:
        self._flight = None
        if not flight.cancelled() and flight.exception() is not None:
            LOGGER.error("a refresh ended in a way it should not", exc_info=flight.exception())
        for tell in self._tell:
            tell()

    async def _run(self) -> Outcome:
        outcome = await self._attempt()
        while isinstance(outcome, Failed) and outcome.error.transient and self._was_frozen:
            # That says nothing about the source: every deadline had passed before it was looked at.
            outcome = await self._attempt()
        if isinstance(outcome, Failed):
            await self._note_failure(outcome.error)
        else:
            self._backoff.end()
            self._last_failure = None
        self.enforce()
        return outcome

    async def _attempt(self) -> Outcome:
        self._attempt_began = self._awaited_since = self._clock.now()
        try:
            await self._learn_mark()
            return await self._fetch_and_accept()
        except ClefError as exc:
            return Failed(errors.without_frames(exc))
        except Exception as exc:  # noqa: BLE001  # a fault of ours must not end the polling
            # The text of an unforeseen exception may hold anything; its type does not.
            return Failed(errors.SourceUnusable(f"unexpected {type(exc).__name__}"))

    async def _learn_mark(self) -> None:
        """Reads the rollback mark before the first artifact is judged by it."""
        if self._mark_is_known:
            return
        try:
            self._mark = newest(self._mark, await self._parts.keeper.load_mark())
            self._mark_is_known = True
        except errors.DiskCopyUnusable as exc:
            if not self._told_of_mark:
                self._told_of_mark = True
                self._emit(events.DiskCopyFailed(f"the rollback mark is not known: {exc}"))

    async def _fetch_and_accept(self) -> Refreshed:
        started = self._clock.now()
        held = self._memory.held
        fetched = await self._fetch(held.validator if held else None)
        if isinstance(fetched, NotModified) and self._memory.held is None:
            # What the source did not send again was wiped while it answered.
            fetched = await self._fetch(None)
        now = self._clock.now()
        fetch_s = now.boot - started.boot
        held = self._memory.held
        if isinstance(fetched, NotModified):
            if held is None:
                raise errors.SourceUnusable(
                    'it answered "not modified" to an unconditional request'
                )
            return self._confirm(held, now, fetch_s)
        digest = self._last_digest = await _digest(fetched.data)
        held = self._memory.held
        if held is not None and held.artifact.digest == digest:
            return self._confirm(replace(held, validator=fetched.validator), now, fetch_s)
        held = await self._prove(fetched.data, fetched.validator, now)
        opened = self._clock.now()
        self._accept(held, now, fetch_s=fetch_s, decrypt_s=opened.boot - now.boot)
        self._parts.keeper.keep(fetched.data, digest, now, self._mark)
        return Refreshed(held.artifact.revision, changed=True)

    async def _fetch(self, previous: Validator | None) -> Fetched | NotModified:
        try:
            async with self._limited() as limit_s:
                return await self._parts.source.fetch(previous)
        except TimeoutError:
            raise errors.SourceUnreachable(f"no complete answer within {limit_s:g} s") from None

    @contextlib.asynccontextmanager
    async def _limited(self) -> AsyncIterator[float]:
        """Whatever is done in it has ``fetch_deadline_s``, which is also what it gives.

        Raises:
            TimeoutError: it took longer.
        """
        limit_s = self.fetch_deadline_s
        try:
            async with asyncio.timeout(limit_s) as self._deadline:
                yield limit_s
        finally:
            self._deadline = None

    def _confirm(self, held: Held, now: Instant, fetch_s: float) -> Refreshed:
        expires_at = held.artifact.expires_at
        if expires_at is not None and held.artifact.has_expired(now.wall):
            raise errors.Expired(expires_at.text)
        self._memory.accept(held, now)
        self._parts.keeper.confirm(now, self._mark)
        self._emit(events.ArtifactConfirmed(held.artifact.revision, fetch_s))
        return Refreshed(held.artifact.revision, changed=False)

    async def _prove(self, data: bytes, validator: Validator | None, now: Instant) -> Held:
        """``data`` through every check, decryption included."""
        if len(data) <= _INLINE_MAX_BYTES:
            verified = self._parse_and_verify(data, now)
        else:
            verified = await asyncio.to_thread(self._parse_and_verify, data, now)
        try:
            # An age file needs nobody; a key service may accept the call and never answer.
            is_asked = verified.artifact.envelope is not None
            async with self._limited() if is_asked else contextlib.nullcontext():
                secrets = await self._parts.decryptor.decrypt(verified)
        except TimeoutError:
            raise errors.UnwrapUnavailable("the key service did not answer in time") from None
        return Held(verified, secrets, validator)

    def _parse_and_verify(self, data: bytes, now: Instant) -> VerifiedArtifact:
        policy = self._parts.policy
        artifact = parse(data, policy.expected)
        return verify(artifact, policy, wall=now.wall, mark=self._mark)

    def _accept(
        self, held: Held, at: Instant, *, fetch_s: float, decrypt_s: float, from_disk: bool = False
    ) -> None:
        artifact, secrets = held.artifact, held.secrets
        if self._parts.policy.rollback_protection:
            self._mark = RollbackMark(artifact.packed_at.wall)
        self._memory.accept(held if self._keeps_plaintext else replace(held, secrets=None), at)
        if secrets is not None:
            self._hand_out(secrets)
        self._emit(
            events.ArtifactRefreshed(
                identity=artifact.identity,
                environment=artifact.environment,
                revision=artifact.revision,
                key_count=len(secrets) if secrets is not None else 0,
                kms_envelope=artifact.envelope is not None,
                from_disk=from_disk,
                fetch_s=fetch_s,
                decrypt_s=decrypt_s,
                expires_at=artifact.expires_at.wall if artifact.expires_at else None,
            )
        )

    # --- failures -------------------------------------------------------------------------------

    async def _note_failure(self, error: ClefError) -> None:
        self._last_failure = error
        retry_after_s = error.retry_after_s if isinstance(error, SourceError) else None
        self._backoff.fail(self._clock.now(), retry_after_s)
        match error:
            case errors.Revoked(applies=True):
                self._revoke(error)
            case errors.Expired():
                self._wipe(errors.ArtifactExpired)
                self._emit(events.ArtifactExpired(error.expires_at))
            case _:
                self._report(error)
                await self._fall_back()
        if self._memory.held is None and not self._memory.never_loaded:
            # Again, because a disk that hung at the wipe may have come back.
            self._parts.keeper.purge(self._mark)

    def _revoke(self, revoked: errors.Revoked) -> None:
        if self._mark is not None:
            self._mark = replace(self._mark, revoked=True)
        self._wipe(errors.ArtifactRevoked)
        self._emit(events.ArtifactRevoked(revoked.revoked_at))

    def _report(self, error: ClefError) -> None:
        if isinstance(error, ArtifactError):
            digest = self._last_digest
            self._emit(events.ArtifactInvalid(error.reason, str(error), error.hint, digest))
        else:
            self._emit(events.FetchFailed(str(error), error.hint, self._parts.keeper.enabled))

    async def _fall_back(self) -> None:
        """Takes the copy on disk, when nothing has been held since the start."""
        if not self._memory.never_loaded:
            return
        now = self._clock.now()
        try:
            copy = await self._parts.keeper.load(now)
            if copy is None:
                return
            held = await self._prove(copy.data, None, now)
        except (errors.Expired, errors.Revoked):
            self._parts.keeper.purge(self._mark)
            return
        except ClefError as exc:
            self._emit(events.DiskCopyFailed(f"the copy on disk cannot be used: {exc}"))
            return
        except Exception as exc:  # noqa: BLE001  # as in _run: no fault may end the polling
            error = f"the copy on disk cannot be used: unexpected {type(exc).__name__}"
            self._emit(events.DiskCopyFailed(error))
            return
        trust_s = self._memory.trust_s(held)
        if trust_s is not None and copy.age_s >= trust_s:
            self._parts.keeper.purge(self._mark)
            return
        confirmed = Instant(now.wall - copy.age_s, now.boot - copy.age_s)
        self._parts.keeper.adopt(held.artifact.digest)
        self._accept(held, confirmed, fetch_s=0.0, decrypt_s=0.0, from_disk=True)


async def _digest(data: bytes) -> str:
    if len(data) <= _INLINE_MAX_BYTES:
        return hashlib.sha256(data).hexdigest()
    return await asyncio.to_thread(lambda: hashlib.sha256(data).hexdigest())


_UNAVAILABLE: Final[dict[type[Unavailable], str]] = {
    errors.NotLoaded: "no artifact has been loaded yet",
    errors.CacheExpired: "the source could not be reached for as long as its secrets are trusted",
    errors.ArtifactExpired: "the artifact has expired",
    errors.ArtifactRevoked: "the artifact has been revoked",
}
