"""A state machine drives real agents against a model of what may be served.

The model knows nothing of tasks, wipes and files; it knows artifacts, two clocks and rules. After
each step the agent must serve exactly what the model serves, and where all is well again it must
serve again.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias, TypeVar

import pytest
from hypothesis import HealthCheck, event, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    rule,
    run_state_machine_as_test,
)

from clef_agent import errors
from clef_agent.cache.disk import DiskCache
from clef_agent.cache.keeper import BackgroundKeeper, NoCopy
from clef_agent.cache.memory import WhyNot
from clef_agent.clock import Instant
from clef_agent.refresh import Refreshed
from fakes import (
    ED25519_KEY,
    ED25519_SIGNER,
    NOW,
    OTHER_AGE_RECIPIENT,
    OTHER_ED25519_SIGNER,
    FakeClock,
    FakeKeyService,
    packed,
)
from refresh_fakes import FakeSource, Rig, Setup, etag, revoked

T = TypeVar("T")

TTL_S = 300.0
INTERVAL_S = 30.0
MAX_RETRY_AFTER_S = 3600.0
NEVER_ASKED = (Instant(0.0, 0.0), 0.0)
#: Delays are differences of large numbers.
ROUNDING_S = 1e-3
#: Thousands of copies are written; in memory, fsync costs nothing.
FAST_DISK = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

Flaw: TypeAlias = Literal["none", "garbage", "signature", "recipient", "identity"]
Verdict: TypeAlias = Literal["good", "rejected", "expired", "revoked"]


@dataclass(frozen=True)
class Offer:
    """What a source has: ``data``, and what whoever made it knows of it."""

    data: bytes = field(repr=False)
    payload: bytes
    packed_at: float = NOW
    expires_at: float | None = None
    flaw: Flaw = "none"
    revocation: Literal["none", "ours", "another's"] = "none"
    is_envelope: bool = False


@dataclass
class Copy:
    """What the disk should have."""

    offer: Offer
    confirmed: Instant
    boot_id: str


@dataclass(frozen=True)
class Rules:
    """How an agent is configured."""

    just_in_time: bool
    rollback_protection: bool
    verify_key: bool
    disk: bool


class Model:
    """What an agent may serve. Written from the design, not from the code."""

    def __init__(self, rules: Rules, boot_id: str) -> None:
        self.rules = rules
        self.boot_id = boot_id
        self.disk: Copy | None = None
        self.disk_mark: tuple[float, bool] | None = None
        self.restart()

    def restart(self) -> None:
        self.held: Offer | None = None
        self.knows_validator = False
        self.last: Instant | None = None
        self.because: WhyNot = errors.NotLoaded
        self.failures = 0
        self.asked = NEVER_ASKED
        self.mark = self.disk_mark if self.rules.disk else None

    def asked_s(self, now: Instant) -> float:
        """For how long the source still asks to be left in peace."""
        since, length_s = self.asked
        return length_s - max(now.boot - since.boot, now.wall - since.wall)

    def trust_s(self, offer: Offer) -> float | None:
        if not self.rules.just_in_time:
            return TTL_S
        return None if offer.is_envelope else 300.0

    def why_not(self, now: Instant) -> WhyNot | None:
        """None when what is held may be served at ``now``."""
        if self.held is None or self.last is None:
            return self.because
        if self.held.expires_at is not None and now.wall >= self.held.expires_at:
            return errors.ArtifactExpired
        trust_s = self.trust_s(self.held)
        age_s = max(now.boot - self.last.boot, now.wall - self.last.wall)
        if trust_s is not None and age_s >= trust_s:
            return errors.CacheExpired
        return None

    def verdict(self, offer: Offer, now: Instant) -> Verdict:
        if offer.flaw == "garbage":
            return "rejected"
        if offer.revocation != "none":
            return "revoked" if offer.revocation == "ours" else "rejected"
        if offer.flaw == "signature" and self.rules.verify_key:
            return "rejected"
        if offer.flaw == "identity":
            return "rejected"
        if self.rules.rollback_protection:
            if offer.packed_at > now.wall + 300:
                return "rejected"
            if self.mark is not None:
                newest, is_revoked = self.mark
                if offer.packed_at < newest or (is_revoked and offer.packed_at == newest):
                    return "rejected"
        if offer.expires_at is not None and now.wall >= offer.expires_at:
            return "expired"
        return "rejected" if offer.flaw == "recipient" else "good"

    def refresh(self, source: Offer | None, now: Instant, *, claims_unmodified: bool) -> bool:
        """One attempt; ``source`` None is an outage. Returns whether it succeeded."""
        is_confirmed = claims_unmodified and self.held is not None and self.knows_validator
        if source is None:
            self._fail(now)
        elif is_confirmed or source is self.held:
            assert self.held is not None
            if self.held.expires_at is not None and now.wall >= self.held.expires_at:
                self._wipe(errors.ArtifactExpired)
            else:
                self.last, self.knows_validator = now, True
                self._write(self.held)
                return True
        else:
            return self._judge(source, now)
        return False

    def _judge(self, source: Offer, now: Instant) -> bool:
        match self.verdict(source, now):
            case "good":
                self._take(source, now, knows_validator=True)
                self._write(source)
                return True
            case "expired":
                self._wipe(errors.ArtifactExpired)
            case "revoked":
                if self.mark is not None:
                    self.mark = (self.mark[0], True)
                self._wipe(errors.ArtifactRevoked)
            case "rejected":
                self._fail(now)
        return False

    def _take(self, offer: Offer, at: Instant, *, knows_validator: bool) -> None:
        self.held, self.last, self.knows_validator = offer, at, knows_validator
        if self.rules.rollback_protection:
            self.mark = (offer.packed_at, False)

    def _fail(self, now: Instant) -> None:
        is_at_start = self.held is None and self.because is errors.NotLoaded
        if is_at_start and self.disk is not None:
            self._fall_back(self.disk, now)
        self.enforce(now)

    def _fall_back(self, disk: Copy, now: Instant) -> None:
        age_s = max(now.wall - disk.confirmed.wall, 0)
        if disk.boot_id == self.boot_id:
            age_s = max(age_s, now.boot - disk.confirmed.boot)
        if disk.confirmed.wall > now.wall + 60:
            return
        verdict = self.verdict(disk.offer, now)
        trust_s = self.trust_s(disk.offer)
        if verdict == "expired" or (verdict == "good" and trust_s is not None and age_s >= trust_s):
            self.disk = None
        elif verdict == "good":
            confirmed = Instant(now.wall - age_s, now.boot - age_s)
            self._take(disk.offer, confirmed, knows_validator=False)

    def enforce(self, now: Instant) -> None:
        """What has passed its time is wiped when somebody looks."""
        why_not = self.why_not(now)
        if self.held is not None and why_not is not None:
            self._wipe(why_not)

    def _wipe(self, because: WhyNot) -> None:
        self.held, self.because, self.disk = None, because, None
        self._write_mark()

    def _write(self, offer: Offer) -> None:
        assert self.last is not None
        if self.rules.disk:
            self.disk = Copy(offer, self.last, self.boot_id)
            self._write_mark()

    def _write_mark(self) -> None:
        if self.rules.disk and self.mark is not None:
            self.disk_mark = max(self.mark, self.disk_mark or self.mark)


class RefreshMachine(RuleBasedStateMachine):
    """Everything that can happen to an agent, in any order."""

    configured = Rules(just_in_time=False, rollback_protection=False, verify_key=False, disk=False)

    def __init__(self) -> None:
        super().__init__()
        self.runner = asyncio.Runner()
        self.warnings: list[str] = []
        self.directory = tempfile.mkdtemp(prefix="clef-machine-", dir=FAST_DISK)
        self.boots = 1
        self.model = Model(self.configured, self.boot_id)
        self.clock = FakeClock()
        self.service = FakeKeyService()
        self.count = 0
        self.newest_packed_at = NOW
        first = self.make_offer()
        self.offers = [first]
        self.source = FakeSource(first.data)
        self.rig = self.start()

    def teardown(self) -> None:
        self.runner.close()
        shutil.rmtree(self.directory)

    # --- machinery ------------------------------------------------------------------------------

    def start(self) -> Rig:
        keeper: BackgroundKeeper | NoCopy = NoCopy()
        if self.configured.disk:
            disk = DiskCache(self.directory, key="machine", boot_id=self.boot_id)
            keeper = BackgroundKeeper(disk, self.warnings.append)
        return Setup(
            ttl_s=0 if self.configured.just_in_time else int(TTL_S),
            interval_s=INTERVAL_S,
            verify_key=ED25519_KEY.public_key() if self.configured.verify_key else None,
            rollback_protection=self.configured.rollback_protection,
            source=self.source,
            keeper=keeper,
            clock=self.clock,
            service=self.service,
        ).rig()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """What ``work`` returns, with the disk in step afterwards."""

        async def settled() -> T:
            try:
                return await work
            finally:
                await self.rig.keeper.settle(30)

        return self.runner.run(settled())

    def make_offer(
        self,
        *,
        packed_at: float = NOW,
        expires_at: float | None = None,
        flaw: Flaw = "none",
        is_envelope: bool = False,
    ) -> Offer:
        self.count += 1
        value = f"value-{self.count}"
        payload = b'{"app":{"KEY":"%s"}}' % value.encode()
        if flaw == "garbage":
            return Offer(b"<html>" + value.encode(), payload, flaw=flaw)
        data = packed(
            {"app": {"KEY": value}},
            packed_at=packed_at,
            expires_at=expires_at,
            signer=OTHER_ED25519_SIGNER if flaw == "signature" else ED25519_SIGNER,
            service=self.service if is_envelope and flaw != "recipient" else None,
            identity="another" if flaw == "identity" else "api-gateway",
            **({"recipient": OTHER_AGE_RECIPIENT} if flaw == "recipient" else {}),
        )
        is_envelope = is_envelope and flaw != "recipient"
        return Offer(data, payload, packed_at, expires_at, flaw, is_envelope=is_envelope)

    @property
    def offered(self) -> Offer:
        return self.offers[-1]

    def offer(self, offer: Offer) -> None:
        self.offers.append(offer)
        self.source.data = offer.data

    @property
    def boot_id(self) -> str:
        return f"boot {self.boots}"

    @property
    def now(self) -> Instant:
        return self.clock.now()

    def model_refresh(self) -> bool:
        offered = None if self.source.failure is not None else self.offered
        return self.model.refresh(
            offered, self.now, claims_unmodified=self.source.claims_unmodified
        )

    def check_backoff(self, *, succeeded: bool) -> None:
        model, backoff_s = self.model, self.rig.refresher.backoff_left_s()
        if succeeded:
            model.failures, model.asked = 0, NEVER_ASKED
            assert backoff_s <= 0
            return
        model.failures += 1
        asked_s = getattr(self.source.failure, "retry_after_s", None)
        if asked_s is not None:
            model.asked = (self.now, min(asked_s, MAX_RETRY_AFTER_S))
        least_s = max(min(2.0 ** (model.failures - 1), INTERVAL_S) * 0.9, model.asked_s(self.now))
        most_s = max(least_s / 0.9, model.asked_s(self.now)) * 1.1
        assert least_s - ROUNDING_S <= backoff_s <= most_s + ROUNDING_S

    # --- the source -----------------------------------------------------------------------------

    @rule(
        flaw=st.sampled_from(["none"] * 6 + ["garbage", "signature", "recipient", "identity"]),
        newer_s=st.sampled_from([0, 1, 60, 600, -1, -600]),
        lives_s=st.sampled_from([None, None, None, -1, 0, 20, 200, 1000, 1e7]),
        is_envelope=st.booleans(),
        is_polled=st.booleans(),
    )
    def publish(
        self,
        flaw: Flaw,
        newer_s: float,
        lives_s: float | None,
        is_envelope: bool,
        is_polled: bool,
    ) -> None:
        packed_at = self.newest_packed_at + newer_s
        if flaw == "none":
            self.newest_packed_at = max(packed_at, self.newest_packed_at)
        expires_at = None if lives_s is None else round(self.now.wall, 3) + lives_s
        self.offer(
            self.make_offer(
                packed_at=packed_at, expires_at=expires_at, flaw=flaw, is_envelope=is_envelope
            )
        )
        if is_polled:
            self._poll()

    @rule(back=st.integers(1, 5), is_polled=st.booleans())
    def publish_an_earlier_one_again(self, back: int, is_polled: bool) -> None:
        self.offer(self.offers[-min(back, len(self.offers))])
        if is_polled:
            self._poll()

    @rule(is_ours=st.booleans(), is_polled=st.booleans())
    def revoke(self, is_ours: bool, is_polled: bool) -> None:
        if self.offered.flaw == "garbage" or self.offered.revocation != "none":
            return
        data = revoked(self.offered.data, identity="api-gateway" if is_ours else "another")
        self.offer(Offer(data, b"", revocation="ours" if is_ours else "another's"))
        if is_polled:
            self._poll()

    @rule(
        failure=st.sampled_from(
            [
                errors.SourceUnreachable("no route"),
                errors.SourceDenied("403"),
                errors.SourceMissing("404"),
                errors.SourceBusy("502"),
                errors.SourceBusy("429", retry_after_s=2),
                errors.SourceBusy("429", retry_after_s=500),
                errors.SourceBusy("429", retry_after_s=1e9),
                errors.SourceTooLarge("too large"),
                errors.SourceUnusable("a page"),
                OSError("nobody foresaw this"),
            ]
        )
    )
    def outage(self, failure: Exception) -> None:
        self.source.failure = failure

    @rule()
    def end_of_outage(self) -> None:
        self.source.failure = None

    @rule()
    def source_begins_or_ends_to_claim_that_nothing_changes(self) -> None:
        self.source.claims_unmodified = not self.source.claims_unmodified

    # --- time -----------------------------------------------------------------------------------

    @rule(seconds=st.sampled_from([0.5, 1, 5, 30, 100, 250, 299, 300, 1000, 4000]))
    def time_passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule(beyond_s=st.sampled_from([-0.5, 0, 0.5]))
    def time_passes_to_the_end_of_what_is_held(self, beyond_s: float) -> None:
        held = self.model.held
        if held is not None and held.expires_at is not None:
            self.clock.advance(max(held.expires_at + beyond_s - self.now.wall, 0))

    @rule(seconds=st.sampled_from([-1e8, -4000, -400, -50, 50, 400, 4000, 1e8]))
    def wall_clock_is_set(self, seconds: float) -> None:
        self.clock.advance(wall=seconds)

    @rule(seconds=st.sampled_from([200, 300, 86_400]))
    def process_is_frozen(self, seconds: float) -> None:
        """The boot clock of a frozen virtual machine stands still."""
        self.clock.advance(wall=seconds)

    # --- the agent ------------------------------------------------------------------------------

    @rule()
    def poll(self) -> None:
        self._poll()

    def _poll(self) -> None:
        outcome = self.run(self.rig.refresh())
        succeeded = self.model_refresh()
        assert isinstance(outcome, Refreshed) == succeeded, outcome
        self.check_backoff(succeeded=succeeded)
        event(f"poll: {'success' if succeeded else type(outcome).__name__}")

    @rule(steps=st.integers(1, 3))
    def poll_when_due(self, steps: int) -> None:
        for _ in range(steps):
            self.clock.advance(self.rig.refresher.delay_s())
            self._poll()

    @rule()
    def request(self) -> None:
        """A request may bring back what has passed its time, unless a backoff forbids it."""
        before, now = len(self.source.requests), self.now
        why_not = self.model.why_not(now)
        may_ask = self.rig.refresher.backoff_left_s() <= 0
        is_past = why_not in (errors.CacheExpired, errors.ArtifactExpired)
        if is_past:
            self.model.enforce(now)
        if not (is_past and may_ask):
            self.check_served()
            assert len(self.source.requests) == before
            return
        succeeded = self.model_refresh()
        self.check_served()
        self.check_backoff(succeeded=succeeded)
        assert len(self.source.requests) == before + 1

    @rule()
    def refresh_on_demand(self) -> None:
        async def ask() -> Refreshed | errors.ClefError:
            try:
                return await self.rig.provider.refresh_on_demand()
            except errors.ClefError as exc:
                return exc

        outcome = self.run(ask())
        if isinstance(outcome, errors.RefreshTooSoon):
            # Either the source asked for patience, or somebody else did it within this second.
            asked_s = self.model.asked_s(self.now)
            assert outcome.retry_after_s <= max(asked_s, 1.0) + ROUNDING_S
            return
        assert self.model.asked_s(self.now) <= 0
        succeeded = self.model_refresh()
        assert isinstance(outcome, Refreshed) == succeeded
        self.check_backoff(succeeded=succeeded)

    @rule(
        finds=st.sampled_from(["all as it was", "an outage", "an artifact that it rejects"]),
        after_s=st.sampled_from([0, 0, 100, 299, 400]),
        is_reboot=st.booleans(),
    )
    def restart(self, finds: str, after_s: float, is_reboot: bool) -> None:
        self.clock.advance(after_s)
        if is_reboot:
            self.boots += 1
            # The machine may have been up for long again before its agent starts.
            self.clock.boot = 1.0 if self.boots % 2 else 1e6
        self.model.boot_id = self.boot_id
        self.rig = self.start()
        self.model.restart()
        if finds == "an outage":
            self.source.failure = errors.SourceUnreachable("no route")
        elif finds == "an artifact that it rejects":
            self.offer(self.make_offer(flaw="recipient", packed_at=self.newest_packed_at))
        if finds != "all as it was":
            self._poll()

    @rule()
    def timer_enforces(self) -> None:
        async def enforce() -> None:
            self.rig.refresher.enforce()

        self.run(enforce())
        self.model.enforce(self.now)
        assert self.rig.memory.why_not(self.now) is self.model.why_not(self.now)

    @rule()
    def recovery(self) -> None:
        """Where the source has what may be served, the next poll that is due serves it."""
        self.source.failure = None
        self.source.claims_unmodified = False
        self.clock.advance(self.rig.refresher.delay_s())
        verdict = self.model.verdict(self.offered, self.now)
        self._poll()
        if verdict == "good":
            event("recovery")
            assert self.model.why_not(self.now) is None
            assert self.run(self.rig.served()) == self.offered.payload

    # --- what always holds ----------------------------------------------------------------------

    @invariant()
    def agent_serves_what_the_model_serves(self) -> None:
        why_not = self.model.why_not(self.now)
        assert self.rig.provider.status().why_not is why_not
        held, is_kept = self.model.held, self.rig.provider.mode == "cached"
        is_at_hand = why_not is None and held is not None and (is_kept or not held.is_envelope)
        assert (self.rig.provider.at_hand() is not None) is is_at_hand
        if why_not is None or why_not in (errors.NotLoaded, errors.ArtifactRevoked):
            # Without a side effect; what has passed its time is asked for by a rule.
            self.check_served()

    def check_served(self) -> None:
        why_not = self.model.why_not(self.now)
        if why_not is None:
            assert self.model.held is not None
            assert self.run(self.rig.served()) == self.model.held.payload
            event("served")
            return
        with pytest.raises(errors.Unavailable) as caught:
            self.run(self.rig.served())
        assert caught.type is why_not
        assert caught.value.retry_after_s is not None
        assert 1 <= caught.value.retry_after_s <= MAX_RETRY_AFTER_S * 1.1 + ROUNDING_S
        event(f"refused: {why_not.reason}")

    @invariant()
    def next_poll_is_neither_far_away_nor_at_once(self) -> None:
        delay_s, backoff_s = self.rig.refresher.delay_s(), self.rig.refresher.backoff_left_s()
        if backoff_s > 0:
            assert backoff_s <= delay_s <= MAX_RETRY_AFTER_S * 1.1 + ROUNDING_S
        else:
            assert delay_s <= INTERVAL_S * 1.1 + ROUNDING_S

    @invariant()
    def validator_is_that_of_what_was_held(self) -> None:
        known = {etag(offer.data) for offer in self.offers}
        assert all(asked is None or asked in known for asked in self.source.requests)

    @invariant()
    def disk_holds_what_the_model_has_there(self) -> None:
        assert self.warnings == []
        if not self.configured.disk:
            return
        disk = DiskCache(self.directory, key="machine", boot_id=self.boot_id)
        mark = disk.load_mark()
        found = None if mark is None else (mark.packed_at, mark.revoked)
        assert found == self.model.disk_mark
        expected = self.model.disk
        if expected is not None and expected.confirmed.wall > self.now.wall + 60:
            return
        copy = disk.load(self.now)
        assert (copy and copy.data) == (expected and expected.offer.data)


@pytest.mark.parametrize("just_in_time", [False, True], ids=["cached", "jit"])
@pytest.mark.parametrize("is_protected", [False, True], ids=["open", "protected"])
@pytest.mark.parametrize("disk", [False, True], ids=["no disk", "disk"])
def test_no_sequence_serves_what_it_must_not_or_refuses_for_ever_what_it_may(
    just_in_time: bool, is_protected: bool, disk: bool
) -> None:  # case 1, case 2, case 4, case 10, case 11, case 13, case 18, case 19
    class Machine(RefreshMachine):
        configured = Rules(
            just_in_time=just_in_time,
            rollback_protection=is_protected,
            verify_key=is_protected,
            disk=disk,
        )

    run_state_machine_as_test(
        Machine,
        settings=settings(
            max_examples=45,
            stateful_step_count=40,
            deadline=None,
            database=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
