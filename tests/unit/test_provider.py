from __future__ import annotations

import asyncio
import json

import pytest

from clef_agent import errors
from clef_agent.cache.memory import JUST_IN_TIME_TRUST_S
from clef_agent.decrypt import INLINE_MAX_CHARS
from clef_agent.provider import (
    MAX_WAITERS,
    CachedSecrets,
    JustInTimeSecrets,
    RefreshedOnRequest,
    Status,
)
from clef_agent.refresh import Refreshed
from fakes import (
    ED25519_KEY,
    ED25519_SIGNER,
    NOW,
    FakeKeyService,
    changed,
    packed,
)
from refresh_fakes import FakeSource, Rig, Setup, digest, in_virtual_time, revoked, unreachable

TTL_S = 300
A = packed({"app": {"KEY": "a"}})
B = packed({"app": {"KEY": "b"}}, packed_at=NOW + 1)
PLAIN_A, PLAIN_B = b'{"app":{"KEY":"a"}}', b'{"app":{"KEY":"b"}}'


@pytest.fixture(params=[TTL_S, 0], ids=["cached", "jit"])
def setup(request: pytest.FixtureRequest) -> Setup:
    ttl_s: int = request.param
    return Setup(ttl_s=ttl_s, source=FakeSource(A))


@pytest.fixture
def rig(setup: Setup) -> Rig:
    return setup.rig()


class GatedService(FakeKeyService):
    """A key service that answers when ``gate`` opens, and counts who waits for it at once."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = asyncio.Event()
        self.gate.set()
        self.waiting = 0
        self.most_waiting = 0

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        self.waiting += 1
        self.most_waiting = max(self.waiting, self.most_waiting)
        try:
            await self.gate.wait()
        finally:
            self.waiting -= 1
        return await super().unwrap(key_id, wrapped_key, algorithm)


def with_key_service(ttl_s: int = 0) -> tuple[Rig, GatedService]:
    service = GatedService()
    source = FakeSource(packed({"app": {"KEY": "a"}}, service=service))
    return Setup(ttl_s=ttl_s, source=source, service=service).rig(), service


# --- open -------------------------------------------------------------------------------------


@in_virtual_time
async def test_nothing_is_served_before_the_first_load(rig: Rig) -> None:
    with pytest.raises(errors.NotLoaded) as caught:
        await rig.provider.open()
    assert caught.value.reason == "not_loaded"
    assert rig.source.requests == []


@in_virtual_time
async def test_opened_secrets_name_the_artifact_by_its_bytes(rig: Rig) -> None:
    await rig.refresh()
    opened = await rig.provider.open()
    assert opened.digest == digest(A)


@in_virtual_time
async def test_cached_mode_hands_out_the_same_secrets_each_time() -> None:
    rig = Setup(source=FakeSource(A)).rig()
    await rig.refresh()
    first, second = await rig.provider.open(), await rig.provider.open()
    assert first.secrets is second.secrets


@in_virtual_time
async def test_cached_mode_asks_the_key_service_once_per_artifact() -> None:
    rig, service = with_key_service(TTL_S)
    await rig.refresh()
    for _ in range(3):
        await rig.provider.open()
    assert len(service.calls) == 1


@in_virtual_time
async def test_just_in_time_mode_decrypts_anew_for_each_request() -> None:
    rig, service = with_key_service()
    await rig.refresh()
    first, second = await rig.provider.open(), await rig.provider.open()
    assert first.secrets is not second.secrets
    assert len(service.calls) == 3


@in_virtual_time
async def test_unsigned_artifact_of_the_same_revision_is_not_served(setup: Setup) -> None:  # case 1
    good = packed({"app": {"KEY": "a"}}, signer=ED25519_SIGNER)
    setup.source.data, setup.verify_key = good, ED25519_KEY.public_key()
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = changed(B, revision=json.loads(good)["revision"])
    await rig.refresh()
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_just_in_time_request_that_cannot_decrypt_is_refused_with_the_reason() -> None:
    rig, service = with_key_service()
    await rig.refresh()
    service.failure = errors.UnwrapFailed("access denied")
    with pytest.raises(errors.AttemptFailed) as caught:
        await rig.provider.open()
    assert caught.value.reason == "kms_unwrap"
    assert rig.provider.status().why_not is None
    service.failure = None
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_key_service_that_does_not_answer_holds_a_request_for_five_seconds() -> None:
    rig, service = with_key_service()
    await rig.refresh()
    service.gate.clear()
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(errors.AttemptFailed) as caught:
        await rig.provider.open()
    assert loop.time() - started == pytest.approx(5)
    assert isinstance(caught.value.failure, errors.UnwrapUnavailable)
    assert caught.value.failure.transient


@in_virtual_time
async def test_calls_to_a_key_service_at_once_are_bounded() -> None:
    rig, service = with_key_service()
    await rig.refresh()
    service.gate.clear()
    requests = [asyncio.create_task(rig.served()) for _ in range(30)]
    await asyncio.sleep(1)
    service.gate.set()
    assert await asyncio.gather(*requests) == [PLAIN_A] * 30
    assert service.most_waiting == 8


@in_virtual_time
async def test_how_long_each_decryption_took_is_told_and_a_failed_one_is_not() -> None:
    rig, service = with_key_service()
    await rig.refresh()
    observed: list[float] = []
    assert isinstance(rig.provider, JustInTimeSecrets)
    rig.provider._observe = observed.append
    service.gate.clear()
    request = asyncio.create_task(rig.served())
    await asyncio.sleep(1)
    rig.clock.advance(1.5)
    service.gate.set()
    assert await request == PLAIN_A
    service.failure = errors.UnwrapFailed("denied")
    with pytest.raises(errors.AttemptFailed):
        await rig.provider.open()
    assert observed == [1.5]


@in_virtual_time
async def test_revocation_while_the_key_service_answers_counts() -> None:
    rig, service = with_key_service()
    await rig.refresh()
    service.gate.clear()
    request = asyncio.create_task(rig.provider.open())
    await asyncio.sleep(1)
    rig.source.data = revoked(rig.source.data)
    await rig.refresh()
    service.gate.set()
    with pytest.raises(errors.ArtifactRevoked):
        await request


@in_virtual_time
async def test_expiry_while_the_key_service_answers_counts() -> None:
    rig, service = with_key_service()
    rig.source.data = packed(service=service, expires_at=NOW + 100)
    await rig.refresh()
    service.gate.clear()
    request = asyncio.create_task(rig.provider.open())
    await asyncio.sleep(1)
    rig.clock.advance(100)
    service.gate.set()
    with pytest.raises(errors.ArtifactExpired):
        await request


@in_virtual_time
async def test_successor_that_arrives_while_the_key_service_answers_is_served() -> None:
    rig, service = with_key_service()
    await rig.refresh()
    service.gate.clear()
    request = asyncio.create_task(rig.served())
    await asyncio.sleep(1)
    rig.source.data = B  # age: it needs no key service
    assert isinstance(await rig.refresh(), Refreshed)
    service.gate.set()
    assert await request == PLAIN_B


# --- waiting ----------------------------------------------------------------------------------


async def waiting(rig: Rig, known: bytes = A, timeout_s: float = 60) -> asyncio.Task[None]:
    task = asyncio.create_task(rig.provider.wait_for_change(digest(known), timeout_s))
    await asyncio.sleep(1)
    return task


@in_virtual_time
async def test_waiter_returns_at_once_when_another_artifact_is_held(rig: Rig) -> None:
    await rig.refresh()
    loop = asyncio.get_running_loop()
    started = loop.time()
    await rig.provider.wait_for_change(digest(B), 60)
    assert loop.time() == started


@in_virtual_time
async def test_waiter_wakes_on_a_change(rig: Rig) -> None:
    await rig.refresh()
    waiter = await waiting(rig)
    rig.source.data = B
    await rig.refresh()
    rig.provider.changed()
    await waiter
    assert asyncio.get_running_loop().time() < 2


@in_virtual_time
async def test_waiter_goes_on_waiting_when_nothing_changed(rig: Rig) -> None:
    await rig.refresh()
    waiter = await waiting(rig, timeout_s=10)
    for _ in range(3):
        await rig.refresh()
        rig.provider.changed()
        await asyncio.sleep(1)
    assert not waiter.done()
    await waiter
    assert asyncio.get_running_loop().time() == pytest.approx(10)


@in_virtual_time
async def test_waiter_is_sent_home_by_a_wipe(rig: Rig) -> None:
    await rig.refresh()
    waiter = await waiting(rig)
    rig.source.data = revoked(A)
    await rig.refresh()
    rig.provider.changed()
    with pytest.raises(errors.ArtifactRevoked):
        await waiter
    assert asyncio.get_running_loop().time() < 2


@in_virtual_time
async def test_waiter_is_refused_while_nothing_may_be_served(rig: Rig) -> None:
    with pytest.raises(errors.NotLoaded):
        await rig.provider.wait_for_change(digest(A), 60)
    await rig.refresh()
    rig.clock.advance(TTL_S)
    with pytest.raises(errors.CacheExpired):
        await rig.provider.wait_for_change(digest(A), 60)


@in_virtual_time
async def test_waiters_are_sent_home_by_a_drain_and_none_may_come(rig: Rig) -> None:
    await rig.refresh()
    waiters = [await waiting(rig) for _ in range(3)]
    rig.provider.drain()
    for waiter in waiters:
        with pytest.raises(errors.ShuttingDown):
            await waiter
    with pytest.raises(errors.ShuttingDown):
        await rig.provider.wait_for_change(digest(A), 60)


@in_virtual_time
async def test_the_257th_waiter_is_refused_at_once(rig: Rig) -> None:
    await rig.refresh()
    provider = rig.provider
    waiters = [
        asyncio.create_task(provider.wait_for_change(digest(A), 60)) for _ in range(MAX_WAITERS)
    ]
    await asyncio.sleep(1)
    assert MAX_WAITERS == 256
    with pytest.raises(errors.TooManyWaiters) as caught:
        await provider.wait_for_change(digest(A), 60)
    assert caught.value.retry_after_s is not None
    # Nobody needs to wait for a change that has been.
    await provider.wait_for_change(digest(B), 60)
    waiters[0].cancel()
    await asyncio.wait([waiters[0]])
    replacement = await waiting(rig)
    assert not replacement.done()
    provider.drain()
    await asyncio.gather(*waiters, replacement, return_exceptions=True)


@in_virtual_time
async def test_waiters_who_are_woken_for_nothing_keep_their_places(rig: Rig) -> None:
    await rig.refresh()
    provider = rig.provider
    waiters = [
        asyncio.create_task(provider.wait_for_change(digest(A), 10)) for _ in range(MAX_WAITERS)
    ]
    await asyncio.sleep(1)
    provider.changed()
    latecomer = asyncio.create_task(provider.wait_for_change(digest(A), 10))
    await asyncio.wait([latecomer])
    assert isinstance(latecomer.exception(), errors.TooManyWaiters)
    assert await asyncio.gather(*waiters) == [None] * MAX_WAITERS


@in_virtual_time
async def test_waiters_who_left_leave_nothing_behind(rig: Rig) -> None:
    await rig.refresh()
    waiter = await waiting(rig)
    waiter.cancel()
    await asyncio.wait([waiter])
    await rig.provider.wait_for_change(digest(A), 1)
    assert rig.provider._waiters == set()


# --- status -----------------------------------------------------------------------------------


@in_virtual_time
async def test_status_tells_what_is_held_without_asking_the_source(rig: Rig) -> None:
    mode = rig.provider.mode
    assert rig.provider.status() == Status(mode, None, None, errors.NotLoaded)
    outcome = await rig.refresh()
    assert isinstance(outcome, Refreshed)
    milliseconds = round(NOW * 1000)
    assert rig.provider.status() == Status(mode, outcome.revision, milliseconds, None)
    rig.clock.advance(TTL_S)
    assert rig.provider.status().why_not is errors.CacheExpired
    assert len(rig.source.requests) == 1


@in_virtual_time
async def test_status_after_a_wipe_tells_the_last_success(rig: Rig) -> None:
    await rig.refresh()
    rig.source.data = revoked(A)
    await rig.refresh()
    milliseconds = round(NOW * 1000)
    assert rig.provider.status() == Status(
        rig.provider.mode, None, milliseconds, errors.ArtifactRevoked
    )


def test_modes_have_the_names_that_health_tells() -> None:
    assert (CachedSecrets.mode, JustInTimeSecrets.mode) == ("cached", "jit")


# --- refresh on demand ------------------------------------------------------------------------


@in_virtual_time
async def test_refresh_on_demand_tells_revision_and_change(rig: Rig) -> None:
    first = await rig.provider.refresh_on_demand()
    assert first.changed
    rig.clock.advance(1)
    second = await rig.provider.refresh_on_demand()
    assert second == Refreshed(first.revision, changed=False)


@in_virtual_time
async def test_refresh_on_demand_recovers_an_expired_cache_during_the_backoff(rig: Rig) -> None:
    await rig.refresh()
    rig.source.failure = unreachable()
    rig.clock.advance(TTL_S)
    with pytest.raises(errors.CacheExpired):
        await rig.served()
    rig.source.failure = None
    assert rig.refresher.backoff_left_s() > 0
    assert (await rig.provider.refresh_on_demand()).changed
    assert await rig.served() == PLAIN_A


# --- at hand ----------------------------------------------------------------------------------


@in_virtual_time
async def test_cached_secrets_are_at_hand_for_as_long_as_they_may_be_served() -> None:
    rig = Setup(ttl_s=TTL_S, source=FakeSource(A)).rig()
    assert rig.provider.at_hand() is None
    await rig.refresh()
    assert rig.provider.at_hand() == await rig.provider.open()
    rig.clock.advance(TTL_S)
    assert rig.provider.at_hand() is None
    await rig.refresh()
    assert rig.provider.at_hand() is not None
    rig.source.data = revoked(A)
    await rig.refresh()
    assert rig.provider.at_hand() is None


@in_virtual_time
async def test_what_an_age_key_opens_is_decrypted_at_once_for_each_request() -> None:
    rig = Setup(ttl_s=0, source=FakeSource(A)).rig()
    assert rig.provider.at_hand() is None
    await rig.refresh()
    first, second = rig.provider.at_hand(), rig.provider.at_hand()
    assert first is not None
    assert second is not None
    assert first.secrets is not second.secrets
    assert bytes(first.secrets.json) == bytes(second.secrets.json) == PLAIN_A
    assert first.digest == second.digest == (await rig.provider.open()).digest
    rig.clock.advance(JUST_IN_TIME_TRUST_S)
    assert rig.provider.at_hand() is None
    await rig.refresh()
    assert rig.provider.at_hand() is not None
    rig.source.data = revoked(A)
    await rig.refresh()
    assert rig.provider.at_hand() is None


@in_virtual_time
async def test_what_a_key_service_opens_or_is_large_is_not_at_hand() -> None:
    service = FakeKeyService()
    large = packed({"app": {"KEY": "x" * INLINE_MAX_CHARS}})
    for data in (packed(service=service), large):
        rig = Setup(ttl_s=0, source=FakeSource(data), service=service).rig()
        await rig.refresh()
        calls = len(service.calls)
        assert rig.provider.at_hand() is None
        assert len(service.calls) == calls
        await rig.provider.open()


@in_virtual_time
async def test_each_decryption_is_observed_whichever_way_it_goes() -> None:
    rig = Setup(ttl_s=0, source=FakeSource(A)).rig()
    await rig.refresh()
    observed: list[float] = []
    provider = JustInTimeSecrets(
        rig.memory, rig.refresher, rig.clock, rig.decryptor, observe=observed.append
    )
    await provider.open()
    provider.at_hand()
    assert len(observed) == 2


# --- where no timer polls ---------------------------------------------------------------------


@in_virtual_time
async def test_request_that_finds_a_look_due_is_answered_with_what_the_source_has_now(
    rig: Rig,
) -> None:
    provider = RefreshedOnRequest(rig.provider, rig.refresher, patience_s=2)
    await rig.refresh()
    rig.source.data = B
    assert bytes((await provider.open()).secrets.json) == PLAIN_A
    rig.clock.advance(30)
    assert provider.at_hand() is None
    assert bytes((await provider.open()).secrets.json) == PLAIN_B


@in_virtual_time
async def test_request_goes_on_with_what_is_held_when_the_source_hangs_or_fails(rig: Rig) -> None:
    provider = RefreshedOnRequest(rig.provider, rig.refresher, patience_s=2)
    await rig.refresh()
    rig.clock.advance(30)
    rig.source.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    asked = loop.time()
    assert bytes((await provider.open()).secrets.json) == PLAIN_A
    assert loop.time() - asked == pytest.approx(2)
    rig.source.failure = unreachable()
    rig.source.gate.set()
    assert bytes((await provider.open()).secrets.json) == PLAIN_A


@in_virtual_time
async def test_request_leaves_the_looking_to_a_timer_where_there_is_one(rig: Rig) -> None:
    provider = RefreshedOnRequest(rig.provider, rig.refresher, patience_s=2)
    await rig.refresh()
    provider.leave_to_timer()
    rig.clock.advance(30)
    await provider.open()
    at_hand = provider.at_hand()
    assert at_hand is not None
    assert bytes(at_hand.secrets.json) == PLAIN_A
    assert len(rig.source.requests) == 1


@in_virtual_time
async def test_cached_mode_wants_a_refresh_when_one_is_due_and_the_other_mode_always() -> None:
    cached, just_in_time = (Setup(ttl_s=ttl_s, source=FakeSource(A)).rig() for ttl_s in (TTL_S, 0))
    for rig in (cached, just_in_time):
        await rig.refresh()
    wants = [(cached.provider.wants_refresh(), just_in_time.provider.wants_refresh())]
    cached.clock.advance(30)
    wants.append((cached.provider.wants_refresh(), just_in_time.provider.wants_refresh()))
    assert wants == [(False, True), (True, True)]


@in_virtual_time
async def test_no_mode_wants_a_refresh_while_the_source_asks_to_be_left_in_peace(rig: Rig) -> None:
    await rig.refresh()
    rig.clock.advance(30)
    rig.source.failure = unreachable(120)
    await rig.refresh()
    wants = [rig.provider.wants_refresh()]
    rig.clock.advance(140)
    wants.append(rig.provider.wants_refresh())
    assert wants == [False, True]
