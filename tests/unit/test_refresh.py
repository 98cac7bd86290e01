from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace

import pytest

from clef_agent import errors
from clef_agent.artifact.model import RollbackMark
from clef_agent.artifact.signing import Signer
from clef_agent.cache.keeper import NoCopy
from clef_agent.clock import Instant
from clef_agent.decrypt.secrets import Secrets
from clef_agent.refresh import Refreshed
from clef_agent.sources.base import Fetched, NotModified, Validator
from clef_agent.telemetry import events
from fakes import (
    ED25519_KEY,
    ED25519_SIGNER,
    NOW,
    OTHER_AGE_RECIPIENT,
    OTHER_ED25519_SIGNER,
    FakeKeyService,
    changed,
    encrypted,
    packed,
)
from refresh_fakes import (
    FakeKeeper,
    FakeSource,
    Rig,
    Setup,
    broken_disk,
    digest,
    etag,
    in_virtual_time,
    revoked,
    unreachable,
)

TTL_S = 300
A = packed({"app": {"KEY": "a"}})
B = packed({"app": {"KEY": "b"}}, packed_at=NOW + 1)
PLAIN_A, PLAIN_B = b'{"app":{"KEY":"a"}}', b'{"app":{"KEY":"b"}}'


@pytest.fixture(params=[TTL_S, 0], ids=["cached", "jit"])
def setup(request: pytest.FixtureRequest) -> Setup:
    """Both modes trust an age artifact for 300 s, so what is true of one is true of both."""
    ttl_s: int = request.param
    return Setup(ttl_s=ttl_s, source=FakeSource(A))


def keeper_of(rig: Rig) -> FakeKeeper:
    assert isinstance(rig.keeper, FakeKeeper)
    return rig.keeper


# --- success ----------------------------------------------------------------------------------


@in_virtual_time
async def test_first_refresh_serves_the_artifact(setup: Setup) -> None:
    rig = setup.rig()
    outcome = await rig.refresh()
    assert isinstance(outcome, Refreshed)
    assert outcome.changed
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_new_artifact_takes_the_place_of_the_old(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = B
    outcome = await rig.refresh()
    assert isinstance(outcome, Refreshed)
    assert outcome.changed
    assert await rig.served() == PLAIN_B


@in_virtual_time
async def test_first_load_and_rotation_are_told_as_refreshed(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = B
    await rig.refresh()
    told = rig.recorder.of(events.ArtifactRefreshed)
    assert [(event.key_count, event.from_disk, event.kms_envelope) for event in told] == [
        (1, False, False)
    ] * 2


@in_virtual_time
async def test_not_modified_counts_as_success(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S - 1)
    outcome = await rig.refresh()
    assert isinstance(outcome, Refreshed)
    assert not outcome.changed
    rig.clock.advance(TTL_S - 1)
    assert await rig.served() == PLAIN_A
    assert len(rig.recorder.of(events.ArtifactConfirmed)) == 1


@in_virtual_time
async def test_same_bytes_count_as_success_and_as_unchanged(setup: Setup) -> None:
    setup.source.knows_validators = False
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S - 1)
    outcome = await rig.refresh()
    assert isinstance(outcome, Refreshed)
    assert not outcome.changed
    rig.clock.advance(TTL_S - 1)
    assert await rig.served() == PLAIN_A
    assert len(rig.recorder.of(events.ArtifactRefreshed)) == 1


@in_virtual_time
async def test_same_bytes_under_a_new_validator_are_asked_for_by_the_new_one(setup: Setup) -> None:
    setup.source.knows_validators = False
    rig = setup.rig()
    await rig.refresh()
    setup.source.knows_validators = True
    await rig.refresh()
    await rig.refresh()
    assert rig.source.requests == [None, None, etag(A)]


@in_virtual_time
async def test_matching_revision_with_other_bytes_is_judged_anew(setup: Setup) -> None:  # case 1
    verify_key = ED25519_KEY.public_key()
    good = packed({"app": {"KEY": "a"}}, signer=ED25519_SIGNER)
    setup = replace(setup, source=FakeSource(good), verify_key=verify_key)
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = changed(good, ciphertextHash="0" * 64, signature=None)
    error = await rig.failure()
    assert isinstance(error, errors.HashMismatch)
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_large_artifact_is_proven_beside_the_loop_and_served() -> None:
    big = packed({"app": {"KEY": "x" * 200_000}})
    rig = Setup(source=FakeSource(big)).rig()
    # Timers would overtake the threads in virtual time; none are set here but the deadline.
    rig.refresher.fetch_deadline_s = 1e9
    await rig.refresh()
    await rig.refresh()
    assert len(await rig.served()) > 200_000


@in_virtual_time
async def test_plaintext_is_not_held_in_just_in_time_mode() -> None:
    rig = Setup(ttl_s=0, source=FakeSource(A)).rig()
    await rig.refresh()
    assert rig.memory.held is not None
    assert rig.memory.held.secrets is None


# --- validators -------------------------------------------------------------------------------


@in_virtual_time
async def test_first_fetch_is_unconditional_and_the_next_conditional(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    await rig.refresh()
    assert rig.source.requests == [None, etag(A)]


@in_virtual_time
async def test_validator_stays_that_of_the_last_accepted_artifact(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = b"garbage"
    await rig.refresh()
    await rig.refresh()
    assert rig.source.requests == [None, etag(A), etag(A)]


@in_virtual_time
async def test_fetch_after_a_wipe_is_unconditional(setup: Setup) -> None:  # case 10
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.refresher.enforce()
    outcome = await rig.refresh()
    assert rig.source.requests == [None, None]
    assert isinstance(outcome, Refreshed)
    assert outcome.changed
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_not_modified_that_arrives_after_a_wipe_is_followed_by_an_unconditional_fetch(
    setup: Setup,
) -> None:  # case 10
    rig = setup.rig()
    await rig.refresh()
    rig.source.gate = asyncio.Event()
    flight = asyncio.create_task(rig.refresh())
    await asyncio.sleep(1)
    rig.clock.advance(TTL_S)
    rig.refresher.enforce()
    rig.source.gate.set()
    assert isinstance(await flight, Refreshed)
    assert rig.source.requests == [None, etag(A), None]
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_not_modified_to_an_unconditional_request_is_a_failure(setup: Setup) -> None:
    class Liar(FakeSource):
        async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
            return NotModified()

    assert isinstance(await replace(setup, source=Liar()).rig().failure(), errors.SourceUnusable)


# --- rejected artifacts -----------------------------------------------------------------------

REJECTED: dict[str, tuple[bytes, str]] = {
    "garbage": (b"<html>", "json_parse"),
    "hash": (changed(B, ciphertextHash="0" * 64), "integrity"),
    "identity": (packed(identity="another", packed_at=NOW + 1), "identity_mismatch"),
    "environment": (packed(environment="another"), "identity_mismatch"),
    "recipient": (packed(recipient=OTHER_AGE_RECIPIENT), "decrypt"),
    "payload": (encrypted(b"[]"), "payload_parse"),
    "key service": (packed(service=FakeKeyService()), "kms_unwrap"),
    "revocation of another": (revoked(A, identity="another"), "revoked"),
}


@pytest.mark.parametrize("name", REJECTED)
@in_virtual_time
async def test_rejected_artifact_replaces_neither_what_is_served_nor_what_is_on_disk(
    setup: Setup, name: str
) -> None:  # case 4, case 12
    rig = setup.rig()
    await rig.refresh()
    rig.source.data, reason = REJECTED[name]
    error = await rig.failure()
    assert error.reason == reason
    assert await rig.served() == PLAIN_A
    assert keeper_of(rig).data == A
    assert [event.reason for event in rig.recorder.of(events.ArtifactInvalid)] == [reason]


@pytest.mark.parametrize("name", REJECTED)
@in_virtual_time
async def test_rejected_artifact_is_no_success(setup: Setup, name: str) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data, _ = REJECTED[name]
    rig.clock.advance(TTL_S - 1)
    await rig.refresh()
    rig.clock.advance(1)
    assert rig.memory.why_not(rig.clock.now()) is errors.CacheExpired


@pytest.mark.parametrize("signer", [None, OTHER_ED25519_SIGNER], ids=["missing", "invalid"])
@in_virtual_time
async def test_artifact_without_a_good_signature_is_refused(
    setup: Setup, signer: Signer | None
) -> None:  # case 1, case 4
    good = packed({"app": {"KEY": "a"}}, signer=ED25519_SIGNER)
    setup = replace(setup, source=FakeSource(good), verify_key=ED25519_KEY.public_key())
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = packed({"app": {"KEY": "b"}}, signer=signer)
    error = await rig.failure()
    assert error.reason == ("signature_missing" if signer is None else "signature_invalid")
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_good_artifact_after_a_rejected_one_is_served(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.data = b"garbage"
    await rig.refresh()
    rig.source.data = B
    await rig.refresh()
    assert await rig.served() == PLAIN_B


@in_virtual_time
async def test_exception_that_nobody_foresaw_is_a_failure_whose_text_stays_secret(
    setup: Setup,
) -> None:
    rig = setup.rig()
    rig.source.failure = ValueError("https://user:password@host/")
    error = await rig.failure()
    assert isinstance(error, errors.SourceError)
    assert "password" not in str(error)
    rig.source.failure = None
    assert isinstance(await rig.refresh(), Refreshed)


@in_virtual_time
async def test_source_that_never_answers_fails_at_the_deadline(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.gate = asyncio.Event()
    error = await rig.failure()
    assert isinstance(error, errors.SourceUnreachable)
    assert asyncio.get_running_loop().time() == pytest.approx(15)


@in_virtual_time
async def test_key_service_that_never_answers_fails_at_the_deadline(setup: Setup) -> None:
    class Silent(FakeKeyService):
        async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
            await asyncio.Event().wait()
            raise AssertionError

    service = Silent()
    source = FakeSource(packed(service=service))
    error = await replace(setup, service=service, source=source).rig().failure()
    assert isinstance(error, errors.UnwrapUnavailable)
    assert error.reason == "kms_unwrap"
    assert asyncio.get_running_loop().time() == pytest.approx(15)


# --- expiry -----------------------------------------------------------------------------------


def expiring(rig_setup: Setup, after_s: float = 100) -> Rig:
    rig_setup.source.data = packed({"app": {"KEY": "a"}}, expires_at=NOW + after_s)
    return rig_setup.rig()


@in_virtual_time
async def test_expired_artifact_is_refused_even_when_not_modified(setup: Setup) -> None:  # case 2
    rig = expiring(setup)
    await rig.refresh()
    rig.clock.advance(100)
    error = await rig.failure()
    assert isinstance(error, errors.Expired)
    assert rig.source.requests[-1] is not None
    assert rig.memory.held is None
    assert keeper_of(rig).data is None
    with pytest.raises(errors.ArtifactExpired):
        await rig.served()


@in_virtual_time
async def test_expiry_is_checked_on_each_request_and_not_only_at_the_fetch(
    setup: Setup,
) -> None:  # case 2
    rig = expiring(setup)
    await rig.refresh()
    rig.clock.advance(99.9)
    assert await rig.served() == PLAIN_A
    rig.clock.advance(0.1)
    with pytest.raises(errors.ArtifactExpired) as caught:
        await rig.served()
    assert caught.value.reason == "artifact_expired"
    assert rig.memory.held is None
    assert len(rig.recorder.of(events.ArtifactExpired)) >= 1


@in_virtual_time
async def test_successor_with_an_earlier_expiry_is_not_served_beyond_it(
    setup: Setup,
) -> None:  # case 2
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = packed({"app": {"KEY": "b"}}, expires_at=NOW + 20)
    await rig.refresh()
    assert await rig.served() == PLAIN_B
    rig.clock.advance(20)
    with pytest.raises(errors.ArtifactExpired):
        await rig.served()


@in_virtual_time
async def test_expired_artifact_from_the_source_wipes_what_was_held(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = packed(expires_at=NOW - 1)
    assert isinstance(await rig.failure(), errors.Expired)
    assert rig.memory.why_not(rig.clock.now()) is errors.ArtifactExpired
    assert keeper_of(rig).data is None


@in_virtual_time
async def test_expired_artifact_with_a_bad_signature_wipes_nothing(setup: Setup) -> None:
    good = packed({"app": {"KEY": "a"}}, signer=ED25519_SIGNER)
    rig = replace(setup, source=FakeSource(good), verify_key=ED25519_KEY.public_key()).rig()
    await rig.refresh()
    rig.source.data = packed(expires_at=NOW - 1, signer=OTHER_ED25519_SIGNER)
    assert isinstance(await rig.failure(), errors.SignatureInvalid)
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_successor_of_an_expired_artifact_is_served_by_the_request_that_asks(
    setup: Setup,
) -> None:
    rig = expiring(setup)
    await rig.refresh()
    rig.source.data = B
    rig.clock.advance(100)
    assert await rig.served() == PLAIN_B


@in_virtual_time
async def test_expiry_while_the_key_service_answers_counts(setup: Setup) -> None:
    class Slow(FakeKeyService):
        async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
            setup.clock.advance(100)
            return await super().unwrap(key_id, wrapped_key, algorithm)

    service = Slow()
    source = FakeSource(packed(service=service, expires_at=NOW + 100))
    rig = replace(setup, service=service, source=source).rig()
    await rig.refresh()
    assert rig.memory.why_not(rig.clock.now()) is errors.ArtifactExpired
    assert rig.memory.held is None


# --- the TTL ----------------------------------------------------------------------------------


@in_virtual_time
async def test_ttl_without_success_wipes_memory_and_disk_and_says_so_once(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.failure = unreachable()
    rig.clock.advance(TTL_S - 0.1)
    assert await rig.served() == PLAIN_A
    rig.clock.advance(0.1)
    for _ in range(3):
        with pytest.raises(errors.CacheExpired):
            await rig.served()
        await rig.refresh()
    assert rig.memory.held is None
    assert keeper_of(rig).data is None
    assert rig.recorder.of(events.CacheExpired) == [
        events.CacheExpired(cache_ttl_s=TTL_S, disk_copy_purged=True)
    ]


@in_virtual_time
async def test_ttl_that_passes_between_refreshes_wipes_memory_and_disk(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.refresher.enforce()
    rig.refresher.enforce()
    assert rig.memory.held is None
    assert keeper_of(rig).data is None
    assert len(rig.recorder.of(events.CacheExpired)) == 1


@in_virtual_time
async def test_request_during_the_backoff_wipes_what_has_passed_its_time(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S - 0.5)
    rig.source.failure = unreachable(3600)
    await rig.refresh()
    rig.clock.advance(0.5)
    with pytest.raises(errors.CacheExpired):
        await rig.served()
    assert rig.memory.held is None
    assert keeper_of(rig).data is None


@in_virtual_time
async def test_one_failure_after_a_long_stable_time_wipes_nothing(setup: Setup) -> None:  # case 11
    rig = setup.rig()
    await rig.refresh()
    for _ in range(100):
        rig.clock.advance(30)
        await rig.refresh()
    rig.source.failure = errors.SourceBusy("502")
    rig.clock.advance(30)
    await rig.refresh()
    assert await rig.served() == PLAIN_A
    assert keeper_of(rig).data == A


@in_virtual_time
async def test_same_bytes_are_served_again_after_an_outage_longer_than_the_ttl(
    setup: Setup,
) -> None:  # case 10
    rig = setup.rig()
    await rig.refresh()
    rig.source.failure = unreachable()
    rig.clock.advance(TTL_S)
    with pytest.raises(errors.CacheExpired):
        await rig.served()
    rig.source.failure = None
    await rig.pass_backoff()
    assert await rig.served() == PLAIN_A
    assert keeper_of(rig).data == A


@pytest.mark.parametrize(
    ("wall", "boot"),
    [(TTL_S, 0.0), (0.0, TTL_S), (-86_400.0, TTL_S), (TTL_S, -1.0)],
    ids=["frozen boot clock", "frozen wall clock", "wall clock set back", "both astray"],
)
@in_virtual_time
async def test_age_is_the_larger_of_what_both_clocks_say(
    setup: Setup, wall: float, boot: float
) -> None:  # case 17, case 19
    rig = setup.rig()
    await rig.refresh()
    rig.source.failure = unreachable()
    rig.clock.advance(wall=wall, boot=boot)
    with pytest.raises(errors.CacheExpired):
        await rig.served()


@in_virtual_time
async def test_clock_that_jumps_forward_is_recovered_from_without_a_restart(
    setup: Setup,
) -> None:  # case 19
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(wall=10 * 365 * 86_400)
    assert await rig.served() == PLAIN_A
    rig.clock.advance(wall=-10 * 365 * 86_400)
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_suspended_machine_asks_the_source_before_it_serves_again(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(8 * 3600)
    rig.source.data = B
    assert await rig.served() == PLAIN_B


@in_virtual_time
async def test_key_service_envelope_is_served_until_its_expiry_in_just_in_time_mode() -> None:
    service = FakeKeyService()
    source = FakeSource(packed(service=service, expires_at=NOW + 86_400))
    rig = Setup(ttl_s=0, source=source, service=service).rig()
    await rig.refresh()
    rig.source.failure = unreachable()
    rig.clock.advance(86_399)
    await rig.refresh()
    assert await rig.served()
    rig.clock.advance(1)
    with pytest.raises(errors.ArtifactExpired):
        await rig.served()


@in_virtual_time
async def test_key_service_envelope_is_held_to_the_ttl_in_cached_mode() -> None:
    service = FakeKeyService()
    rig = Setup(source=FakeSource(packed(service=service)), service=service).rig()
    await rig.refresh()
    rig.source.failure = unreachable()
    rig.clock.advance(TTL_S)
    with pytest.raises(errors.CacheExpired):
        await rig.served()


# --- revocation -------------------------------------------------------------------------------


@in_virtual_time
async def test_revocation_wipes_memory_and_disk(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = revoked(A)
    assert isinstance(await rig.failure(), errors.Revoked)
    with pytest.raises(errors.ArtifactRevoked) as caught:
        await rig.served()
    assert caught.value.reason == "revoked"
    assert rig.memory.held is None
    assert keeper_of(rig).data is None
    assert rig.recorder.of(events.ArtifactRevoked) == [
        events.ArtifactRevoked("2027-01-15T08:00:00Z")
    ]
    assert rig.recorder.of(events.ArtifactInvalid) == []


@in_virtual_time
async def test_request_after_a_revocation_is_refused_without_asking_the_source(
    setup: Setup,
) -> None:
    rig = setup.rig()
    rig.source.data = revoked(A)
    await rig.refresh()
    rig.clock.advance(3600)
    with pytest.raises(errors.ArtifactRevoked):
        await rig.served()
    assert len(rig.source.requests) == 1


@pytest.mark.parametrize("field", ["identity", "environment"])
@in_virtual_time
async def test_revocation_of_another_identity_or_environment_wipes_nothing(
    setup: Setup, field: str
) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = revoked(A, **{field: "another"})
    assert isinstance(await rig.failure(), errors.Revoked)
    assert await rig.served() == PLAIN_A
    assert keeper_of(rig).data == A


@pytest.mark.parametrize("successor", [A, B], ids=["the same bytes", "a newer artifact"])
@in_virtual_time
async def test_artifact_after_a_revocation_is_served(setup: Setup, successor: bytes) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = revoked(A)
    await rig.refresh()
    rig.source.data = successor
    outcome = await rig.refresh()
    assert isinstance(outcome, Refreshed)
    assert outcome.changed
    assert rig.source.requests[-1] is None
    assert await rig.served()


@in_virtual_time
async def test_wipe_of_the_disk_is_asked_for_again_while_the_wipe_lasts(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = revoked(A)
    await rig.refresh()
    keeper_of(rig).data = A  # a disk that hung at the wipe
    rig.source.failure = unreachable()
    await rig.refresh()
    assert keeper_of(rig).data is None


# --- rollback ---------------------------------------------------------------------------------


def protected(setup: Setup, data: bytes = A) -> Rig:
    setup.source.data = data
    setup.rollback_protection = True
    return setup.rig()


OLDER = packed({"app": {"KEY": "old"}}, packed_at=NOW - 1)
EQUAL = packed({"app": {"KEY": "equal"}}, packed_at=NOW)


@in_virtual_time
async def test_older_artifact_is_refused(setup: Setup) -> None:  # case 4
    rig = protected(setup)
    await rig.refresh()
    rig.source.data = OLDER
    assert isinstance(await rig.failure(), errors.RolledBack)
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_older_artifact_is_accepted_without_rollback_protection(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = OLDER
    assert isinstance(await rig.refresh(), Refreshed)


@in_virtual_time
async def test_equally_old_artifact_is_accepted(setup: Setup) -> None:
    rig = protected(setup)
    await rig.refresh()
    rig.source.data = EQUAL
    assert isinstance(await rig.refresh(), Refreshed)


@pytest.mark.parametrize(("ahead_s", "is_accepted"), [(300, True), (301, False)])
@in_virtual_time
async def test_artifact_from_more_than_five_minutes_ahead_is_refused(
    setup: Setup, ahead_s: float, is_accepted: bool
) -> None:
    rig = protected(setup, packed(packed_at=NOW + ahead_s))
    assert isinstance(await rig.refresh(), Refreshed) == is_accepted


@in_virtual_time
async def test_only_a_strictly_newer_artifact_follows_a_revocation(setup: Setup) -> None:
    rig = protected(setup)
    await rig.refresh()
    rig.source.data = revoked(A)
    await rig.refresh()
    for data in (A, EQUAL):
        rig.source.data = data
        assert isinstance(await rig.failure(), errors.RolledBack)
    rig.source.data = B
    assert isinstance(await rig.refresh(), Refreshed)
    assert await rig.served() == PLAIN_B
    rig.source.data = packed(packed_at=NOW + 1)
    assert isinstance(await rig.refresh(), Refreshed)


@in_virtual_time
async def test_mark_does_not_move_by_an_artifact_that_cannot_be_decrypted(setup: Setup) -> None:
    rig = protected(setup, OLDER)
    await rig.refresh()
    rig.source.data = packed(packed_at=NOW + 60, recipient=OTHER_AGE_RECIPIENT)
    assert isinstance(await rig.failure(), errors.DecryptFailed)
    assert keeper_of(rig).mark == RollbackMark(NOW - 1)
    rig.source.data = A
    assert isinstance(await rig.refresh(), Refreshed)


@in_virtual_time
async def test_mark_survives_a_restart(setup: Setup) -> None:
    rig = protected(setup)
    await rig.refresh()
    setup.source.data = OLDER
    rig = setup.rig()
    error = await rig.failure()
    assert isinstance(error, errors.RolledBack)
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_mark_survives_a_wipe(setup: Setup) -> None:
    rig = protected(setup)
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.refresher.enforce()
    rig.source.data = OLDER
    for agent in (rig, setup.rig()):
        assert isinstance(await agent.failure(), errors.RolledBack)


@in_virtual_time
async def test_revocation_survives_a_restart(setup: Setup) -> None:
    rig = protected(setup)
    await rig.refresh()
    rig.source.data = revoked(A)
    await rig.refresh()
    rig.source.data = A
    rig = setup.rig()
    assert isinstance(await rig.failure(), errors.RolledBack)
    rig.source.data = B
    assert isinstance(await rig.refresh(), Refreshed)


@in_virtual_time
async def test_mark_that_cannot_be_read_is_told_and_read_again_later(setup: Setup) -> None:
    keeper = FakeKeeper()
    keeper.mark, keeper.failure = RollbackMark(NOW), broken_disk()
    setup.keeper = keeper
    rig = protected(setup, OLDER)
    assert isinstance(await rig.refresh(), Refreshed)
    await rig.refresh()
    assert len(rig.recorder.of(events.DiskCopyFailed)) == 1
    keeper.mark, keeper.failure = RollbackMark(NOW), None
    rig.source.data = packed(packed_at=NOW - 0.5)
    assert isinstance(await rig.failure(), errors.RolledBack)


# --- the copy on disk -------------------------------------------------------------------------


async def restarted(setup: Setup, *, after_s: float, source: Callable[[FakeSource], None]) -> Rig:
    """An agent that took A, ended, and after ``after_s`` started again with ``source`` changed."""
    await setup.rig().refresh()
    setup.clock.advance(after_s)
    source(setup.source)
    rig = setup.rig()
    await rig.refresh()
    return rig


def away(source: FakeSource) -> None:
    source.failure = unreachable()


def ruined(source: FakeSource) -> None:
    source.data = b"garbage"


@pytest.mark.parametrize("source", [away, ruined])
@in_virtual_time
async def test_disk_copy_is_served_after_a_failed_first_attempt(
    setup: Setup, source: Callable[[FakeSource], None]
) -> None:  # case 12
    rig = await restarted(setup, after_s=200, source=source)
    assert await rig.served() == PLAIN_A
    assert [event.from_disk for event in rig.recorder.of(events.ArtifactRefreshed)] == [True]
    assert keeper_of(rig).adopted == digest(A)


@in_virtual_time
async def test_disk_copy_does_not_refresh_the_ttl(setup: Setup) -> None:  # case 13
    rig = await restarted(setup, after_s=200, source=away)
    rig.clock.advance(99)
    assert await rig.served() == PLAIN_A
    rig.clock.advance(1)
    with pytest.raises(errors.CacheExpired):
        await rig.served()
    assert keeper_of(rig).data is None


@in_virtual_time
async def test_start_from_disk_is_a_failed_refresh_and_polling_goes_on(setup: Setup) -> None:
    rig = await restarted(setup, after_s=200, source=away)
    assert 0 < rig.refresher.delay_s() <= 1.1
    rig.source.failure = None
    rig.source.data = B
    await rig.refresh()
    assert rig.source.requests[-1] is None
    assert await rig.served() == PLAIN_B


@in_virtual_time
async def test_source_that_confirms_the_disk_copy_refreshes_the_ttl(setup: Setup) -> None:
    rig = await restarted(setup, after_s=200, source=away)
    rig.source.failure = None
    outcome = await rig.refresh()
    assert isinstance(outcome, Refreshed)
    assert not outcome.changed
    rig.clock.advance(299)
    assert await rig.served() == PLAIN_A
    assert keeper_of(rig).confirmed == Instant(NOW + 200, 1_200)


@in_virtual_time
async def test_disk_copy_beyond_the_ttl_is_not_used_and_removed(setup: Setup) -> None:  # case 13
    rig = await restarted(setup, after_s=TTL_S, source=away)
    with pytest.raises(errors.NotLoaded):
        await rig.served()
    assert keeper_of(rig).data is None


@in_virtual_time
async def test_disk_copy_of_a_key_service_envelope_is_served_until_it_expires_just_in_time() -> (
    None
):
    service = FakeKeyService()
    source = FakeSource(packed(service=service, expires_at=NOW + 86_400))
    setup = Setup(ttl_s=0, source=source, service=service)
    rig = await restarted(setup, after_s=80_000, source=away)
    assert await rig.served()


@in_virtual_time
async def test_expired_disk_copy_is_not_used_and_removed(setup: Setup) -> None:
    setup.source.data = packed(expires_at=NOW + 100)
    rig = await restarted(setup, after_s=100, source=away)
    assert rig.memory.never_loaded
    assert keeper_of(rig).data is None


def taken_back(source: FakeSource) -> None:
    source.data = revoked(A)


def outlived(source: FakeSource) -> None:
    source.data = packed(expires_at=NOW - 1)


@pytest.mark.parametrize("source", [taken_back, outlived])
@in_virtual_time
async def test_disk_copy_is_wiped_when_the_source_has_a_revoked_or_expired_artifact(
    setup: Setup, source: Callable[[FakeSource], None]
) -> None:
    rig = await restarted(setup, after_s=10, source=source)
    assert rig.memory.held is None
    assert keeper_of(rig).data is None


@in_virtual_time
async def test_disk_copy_passes_every_check_again(setup: Setup) -> None:
    setup.verify_key = ED25519_KEY.public_key()
    keeper = FakeKeeper()
    keeper.data, keeper.confirmed = A, setup.clock.now()
    setup.keeper = keeper
    away(setup.source)
    rig = setup.rig()
    await rig.refresh()
    assert rig.memory.held is None
    assert "not signed" in rig.recorder.of(events.DiskCopyFailed)[0].error


@pytest.mark.parametrize("failure", [broken_disk(), ValueError("what nobody foresaw")])
@in_virtual_time
async def test_disk_copy_that_cannot_be_read_does_not_stop_the_polling(
    setup: Setup, failure: Exception
) -> None:  # case 12
    keeper = FakeKeeper()
    keeper.failure = failure
    setup.keeper = keeper
    away(setup.source)
    rig = setup.rig()
    assert isinstance(await rig.failure(), errors.SourceUnreachable)
    assert len(rig.recorder.of(events.DiskCopyFailed)) == 1
    rig.source.failure = None
    await rig.refresh()
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_disk_copy_is_not_read_once_something_was_wiped(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.data = revoked(A)
    await rig.refresh()
    keeper_of(rig).data, keeper_of(rig).confirmed = A, rig.clock.now()
    away(rig.source)
    await rig.refresh()
    assert rig.memory.held is None
    assert "load" not in keeper_of(rig).calls


@in_virtual_time
async def test_agent_without_a_disk_runs_all_the_same(setup: Setup) -> None:
    setup.keeper = NoCopy()
    setup.rollback_protection = True
    rig = setup.rig()
    away(rig.source)
    await rig.refresh()
    rig.source.failure = None
    await rig.refresh()
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.refresher.enforce()
    assert rig.recorder.of(events.FetchFailed)[0].disk_copy_available is False
    assert rig.recorder.of(events.CacheExpired)[0].disk_copy_purged is False
    assert await rig.served() == PLAIN_A
    await rig.keeper.settle(1)


# --- backoff, Retry-After, single flight ------------------------------------------------------


@in_virtual_time
async def test_delay_after_success_is_the_interval_with_jitter(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    assert 27 <= rig.refresher.delay_s() <= 33
    assert 0 <= rig.refresher.delay_s(first=True) <= 30


@in_virtual_time
async def test_delay_shrinks_before_an_expiry_the_first_one_too(setup: Setup) -> None:  # case 14
    rig = expiring(setup, after_s=10)
    await rig.refresh()
    assert rig.refresher.delay_s() == pytest.approx(8)
    assert max(rig.refresher.delay_s(first=True) for _ in range(100)) <= 8


@in_virtual_time
async def test_expiry_sixty_days_away_leaves_the_polling_as_it_is(setup: Setup) -> None:  # case 14
    rig = expiring(setup, after_s=60 * 86_400)
    await rig.refresh()
    assert 27 <= rig.refresher.delay_s() <= 33


@in_virtual_time
async def test_delays_after_failures_double_up_to_the_interval_and_start_anew_after_a_success(
    setup: Setup,
) -> None:
    rig = setup.rig()
    away(rig.source)
    delays = []
    for _ in range(7):
        await rig.refresh()
        delays.append(rig.refresher.delay_s(first=True))
    for delay_s, base_s in zip(delays, [1, 2, 4, 8, 16, 30, 30], strict=True):
        assert base_s * 0.9 <= delay_s <= base_s * 1.1
    rig.source.failure = None
    await rig.refresh()
    assert rig.refresher.backoff_left_s() <= 0
    away(rig.source)
    await rig.refresh()
    assert 0.9 <= rig.refresher.delay_s() <= 1.1


@in_virtual_time
async def test_delay_is_reckoned_from_now_and_never_negative(setup: Setup) -> None:
    rig = setup.rig()
    away(rig.source)
    await rig.refresh()
    rig.clock.advance(0.5)
    assert rig.refresher.delay_s() <= 0.6
    rig.clock.advance(100)
    assert rig.refresher.delay_s() == 0


@in_virtual_time
async def test_requests_during_an_outage_reach_the_source_once_per_backoff(
    setup: Setup,
) -> None:  # case 18
    rig = setup.rig()
    await rig.refresh()
    away(rig.source)
    rig.clock.advance(TTL_S)
    for _ in range(50):
        with pytest.raises(errors.CacheExpired) as caught:
            await rig.served()
        assert caught.value.detail == "no route"
        assert caught.value.retry_after_s is not None
        assert caught.value.retry_after_s >= 1
    assert len(rig.source.requests) == 2
    await rig.pass_backoff()
    for _ in range(50):
        with pytest.raises(errors.CacheExpired):
            await rig.served()
    assert len(rig.source.requests) == 3


@in_virtual_time
async def test_retry_after_is_obeyed_by_polls_and_by_requests(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.source.failure = unreachable(120)
    with pytest.raises(errors.CacheExpired):
        await rig.served()
    assert 120 <= rig.refresher.delay_s() <= 132
    rig.clock.advance(119)
    rig.source.failure = None
    with pytest.raises(errors.CacheExpired):
        await rig.served()
    assert len(rig.source.requests) == 2
    await rig.pass_backoff()
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_retry_after_is_obeyed_by_a_refresh_on_demand(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.failure = unreachable(120)
    await rig.refresh()
    rig.clock.advance(20)
    with pytest.raises(errors.RefreshTooSoon) as caught:
        await rig.refresher.refresh_on_demand()
    assert caught.value.retry_after_s == pytest.approx(100)
    rig.clock.advance(100)
    rig.source.failure = None
    assert (await rig.refresher.refresh_on_demand()).changed


@in_virtual_time
async def test_refresh_on_demand_ignores_the_backoff_beyond_the_retry_after(setup: Setup) -> None:
    rig = setup.rig()
    away(rig.source)
    for _ in range(8):
        await rig.refresh()
    rig.source.failure = unreachable(2)
    await rig.refresh()
    assert rig.refresher.backoff_left_s() > 20
    rig.clock.advance(2)
    rig.source.failure = None
    assert (await rig.refresher.refresh_on_demand()).changed


@in_virtual_time
async def test_retry_after_outlives_another_failure_before_its_time(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.failure = unreachable(120)
    await rig.refresh()
    away(rig.source)
    await rig.refresh()
    assert rig.refresher.backoff_left_s() >= 120
    with pytest.raises(errors.RefreshTooSoon):
        await rig.refresher.refresh_on_demand()


@in_virtual_time
async def test_newer_retry_after_replaces_the_older(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.failure = unreachable(3600)
    await rig.refresh()
    rig.source.failure = unreachable(2)
    await rig.refresh()
    assert rig.refresher.backoff_left_s() < 3


@in_virtual_time
async def test_success_ends_the_retry_after(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.failure = unreachable(3600)
    await rig.refresh()
    rig.source.failure = None
    await rig.refresh()
    away(rig.source)
    await rig.refresh()
    assert rig.refresher.backoff_left_s() <= 1.1


@in_virtual_time
async def test_refresh_on_demand_is_allowed_once_a_second(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresher.refresh_on_demand()
    rig.clock.advance(0.75)
    with pytest.raises(errors.RefreshTooSoon) as caught:
        await rig.refresher.refresh_on_demand()
    assert caught.value.retry_after_s == pytest.approx(0.25)
    rig.clock.advance(0.25)
    await rig.refresher.refresh_on_demand()
    assert len(rig.source.requests) == 2


@pytest.mark.parametrize("name", REJECTED)
@in_virtual_time
async def test_refresh_on_demand_fails_with_the_reason_of_the_artifact(
    setup: Setup, name: str
) -> None:
    rig = setup.rig()
    rig.source.data, reason = REJECTED[name]
    with pytest.raises(errors.AttemptFailed) as caught:
        await rig.refresher.refresh_on_demand()
    assert caught.value.reason == reason
    assert caught.value.retry_after_s is not None
    assert 0.9 <= caught.value.retry_after_s <= 1.1


@in_virtual_time
async def test_refresh_on_demand_without_a_source_fails_as_fetch_failed(setup: Setup) -> None:
    rig = setup.rig()
    away(rig.source)
    with pytest.raises(errors.AttemptFailed) as caught:
        await rig.provider.refresh_on_demand()
    assert (caught.value.reason, caught.value.detail) == ("fetch_failed", "no route")


@in_virtual_time
async def test_twenty_callers_share_one_fetch(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.gate = asyncio.Event()
    callers = [asyncio.create_task(rig.refresh()) for _ in range(10)]
    callers += [asyncio.create_task(rig.refresher.refresh_on_demand()) for _ in range(10)]
    await asyncio.sleep(1)
    rig.source.gate.set()
    outcomes = await asyncio.gather(*callers)
    assert len(rig.source.requests) == 1
    assert len(set(map(id, outcomes))) == 1


@in_virtual_time
async def test_requests_that_find_the_cache_expired_share_one_fetch(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.source.gate = asyncio.Event()
    requests = [asyncio.create_task(rig.served()) for _ in range(20)]
    await asyncio.sleep(1)
    rig.source.gate.set()
    assert await asyncio.gather(*requests) == [PLAIN_A] * 20
    assert len(rig.source.requests) == 2


@in_virtual_time
async def test_cancelled_caller_does_not_cancel_the_others(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.gate = asyncio.Event()
    first, second = (asyncio.create_task(rig.refresh()) for _ in range(2))
    await asyncio.sleep(1)
    first.cancel()
    await asyncio.wait([first])
    rig.source.gate.set()
    assert first.cancelled()
    assert isinstance(await second, Refreshed)
    assert len(rig.source.requests) == 1


@in_virtual_time
async def test_request_waits_five_seconds_for_a_refresh_and_the_refresh_goes_on(
    setup: Setup,
) -> None:  # case 16
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.source.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    started = loop.time()
    with pytest.raises(errors.CacheExpired):
        await rig.served()
    assert loop.time() - started == pytest.approx(5)
    rig.source.gate.set()
    await rig.refresh()
    assert len(rig.source.requests) == 2
    assert await rig.served() == PLAIN_A


@in_virtual_time
async def test_request_joins_a_refresh_that_is_under_way_during_the_backoff(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    away(rig.source)
    await rig.refresh()
    rig.clock.advance(TTL_S)
    rig.source.failure = None
    rig.clock.boot -= TTL_S  # the backoff is not over; the wall clock alone says that the TTL is
    rig.source.gate = asyncio.Event()
    poll = asyncio.create_task(rig.refresh())
    await asyncio.sleep(1)
    request = asyncio.create_task(rig.served())
    await asyncio.sleep(1)
    rig.source.gate.set()
    assert await request == PLAIN_A
    await poll


@in_virtual_time
async def test_listener_that_breaks_changes_nothing(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: events.Event) -> None:
        raise RuntimeError("telemetry")

    rig = setup.rig()
    rig.refresher._parts = replace(rig.refresher._parts, emit=broken)
    assert isinstance(await rig.refresh(), Refreshed)
    assert await rig.served() == PLAIN_A
    assert "a listener failed at ArtifactRefreshed: RuntimeError" in caplog.text
    away(rig.source)
    assert isinstance(await rig.failure(), errors.SourceUnreachable)
    rig.source.data, rig.source.failure = revoked(A), None
    assert isinstance(await rig.failure(), errors.Revoked)
    assert rig.memory.held is None


@pytest.mark.parametrize("ttl_s", [TTL_S, 0], ids=["cached", "just-in-time"])
@in_virtual_time
async def test_what_is_the_agents_own_is_taken_from_each_new_artifact_before_it_is_told_of(
    ttl_s: int,
) -> None:
    taken: list[tuple[str | None, int]] = []
    rig = Setup(ttl_s=ttl_s, source=FakeSource(packed({"app": {"OWN": "first"}}))).rig()

    def take(secrets: Secrets) -> None:
        taken.append((secrets.value("OWN"), len(rig.recorder.events)))

    rig.refresher._parts = replace(rig.refresher._parts, take_own=take)
    await rig.refresh()
    await rig.refresh()  # not modified
    rig.source.data = packed({"app": {"OWN": "second"}})
    await rig.refresh()
    rig.source.data = packed({"app": {"OWN": "refused"}}, recipient=OTHER_AGE_RECIPIENT)
    await rig.failure()
    assert taken == [("first", 0), ("second", 2)]


@in_virtual_time
async def test_what_the_agent_makes_of_its_own_secrets_cannot_fail_a_refresh(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(_: Secrets) -> None:
        raise RuntimeError("very-secret")

    rig = setup.rig()
    rig.refresher._parts = replace(rig.refresher._parts, take_own=broken)
    assert isinstance(await rig.refresh(), Refreshed)
    assert await rig.served() == PLAIN_A
    assert "cannot be used: RuntimeError" in caplog.text
    assert "very-secret" not in caplog.text


@in_virtual_time
async def test_fault_of_our_own_is_logged_and_leaves_room_for_the_next_refresh(
    setup: Setup, caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty(FakeKeeper):
        def purge(self, mark: RollbackMark | None) -> None:
            raise RuntimeError("a fault")

    setup.keeper, setup.source.data = Faulty(), revoked(A)
    rig = setup.rig()
    with pytest.raises(RuntimeError):
        await rig.refresh()
    assert "ended in a way it should not" in caplog.text
    rig.source.data = A
    assert isinstance(await rig.refresh(), Refreshed)


@in_virtual_time
async def test_refresh_that_is_cancelled_itself_leaves_room_for_the_next(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.gate = asyncio.Event()
    caller = asyncio.create_task(rig.refresh())
    await asyncio.sleep(1)
    flight = rig.refresher._flight
    assert flight is not None
    flight.cancel()
    await asyncio.wait([caller])
    assert caller.cancelled()
    rig.source.gate.set()
    assert isinstance(await rig.refresh(), Refreshed)


@in_virtual_time
async def test_recorded_failures_hold_no_payload(setup: Setup) -> None:
    rig = setup.rig()
    rig.source.data = encrypted(b'{"app": {"KEY": 5, "OTHER": "very-secret"}}')
    error = await rig.failure()
    assert "very-secret" not in f"{error!r} {rig.recorder.events!r}"


# --- freezes, and looks without a timer -------------------------------------------------------

HOUR_S = 3600.0


@in_virtual_time
async def test_backoff_is_over_after_a_freeze_that_only_the_wall_clock_saw(setup: Setup) -> None:
    rig = setup.rig()  # case 17
    rig.source.failure = unreachable(120)
    await rig.refresh()
    assert rig.refresher.is_unwelcome()
    rig.clock.advance(wall=HOUR_S, boot=1)
    assert rig.refresher.backoff_left_s() <= 0
    assert not rig.refresher.is_unwelcome()


@in_virtual_time
async def test_fetch_that_a_freeze_outlived_begins_anew_when_somebody_asks(setup: Setup) -> None:
    rig = setup.rig()  # case 17
    rig.source.gate = asyncio.Event()
    frozen = asyncio.create_task(rig.refresh())
    await asyncio.sleep(1)
    rig.clock.advance(wall=HOUR_S, boot=1)  # the loop's timers have not moved
    rig.source.gate = None
    assert isinstance(await rig.refresh(), Refreshed)
    assert isinstance(await frozen, Refreshed)
    assert len(rig.source.requests) == 2
    assert rig.recorder.of(events.FetchFailed) == []


@in_virtual_time
async def test_who_comes_after_a_freeze_waits_for_the_fetch_that_begins_anew(setup: Setup) -> None:
    rig = setup.rig()  # case 17
    rig.source.gate = asyncio.Event()
    frozen = asyncio.create_task(rig.refresh())
    await asyncio.sleep(1)
    rig.clock.advance(wall=HOUR_S, boot=1)
    rig.source.gate = None
    await rig.refresher.refresh_within(2)
    assert await rig.served() == PLAIN_A
    await frozen


@in_virtual_time
async def test_fetch_whose_deadline_passed_in_a_freeze_begins_anew_by_itself(setup: Setup) -> None:
    rig = setup.rig()  # case 17
    rig.source.gate = asyncio.Event()
    frozen = asyncio.create_task(rig.refresh())
    await asyncio.sleep(1)
    rig.clock.advance(HOUR_S)
    rig.source.gate = None
    await asyncio.sleep(rig.refresher.fetch_deadline_s)
    assert isinstance(await frozen, Refreshed)
    assert rig.recorder.of(events.FetchFailed) == []


@in_virtual_time
async def test_fetch_that_merely_hangs_fails_once(setup: Setup) -> None:
    rig = setup.rig()  # case 16
    rig.source.gate = asyncio.Event()
    assert isinstance(await rig.failure(), errors.SourceUnreachable)
    assert len(rig.source.requests) == 1


@in_virtual_time
async def test_look_is_due_once_the_interval_has_passed_by_either_clock(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(29.9)
    assert not rig.refresher.is_due()
    rig.clock.advance(wall=0.1)
    assert rig.refresher.is_due()
    await rig.refresh()
    rig.clock.advance(boot=30)
    assert rig.refresher.is_due()


@in_virtual_time
async def test_look_is_due_before_what_is_held_expires(setup: Setup) -> None:  # case 14
    rig = expiring(setup, after_s=10)
    await rig.refresh()
    rig.clock.advance(7.9)
    assert not rig.refresher.is_due()
    rig.clock.advance(0.1)
    assert rig.refresher.is_due()


@in_virtual_time
async def test_look_is_not_due_within_the_backoff(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(30)
    away(rig.source)
    await rig.refresh()
    assert not rig.refresher.is_due()
    await rig.pass_backoff()
    assert rig.refresher.is_due()


@in_virtual_time
async def test_request_that_finds_a_look_due_gets_what_the_source_has_now(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.source.data = B
    await rig.refresher.refresh_if_due(2)
    assert await rig.served() == PLAIN_A
    rig.clock.advance(30)
    await rig.refresher.refresh_if_due(2)
    assert await rig.served() == PLAIN_B
    assert len(rig.source.requests) == 2


@in_virtual_time
async def test_a_source_that_hangs_is_waited_for_once_and_not_by_each_request(
    setup: Setup,
) -> None:  # case 16
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(30)
    rig.source.gate = asyncio.Event()
    loop = asyncio.get_running_loop()
    began = loop.time()
    await rig.refresher.refresh_if_due(2)
    assert loop.time() - began == pytest.approx(2)
    rig.clock.advance(2)
    for _ in range(10):
        await rig.refresher.refresh_if_due(2)
        assert await rig.served() == PLAIN_A
    assert loop.time() - began == pytest.approx(2)
    assert len(rig.source.requests) == 2


@in_virtual_time
async def test_what_has_passed_its_time_is_left_to_recovery(setup: Setup) -> None:
    rig = setup.rig()
    await rig.refresh()
    rig.clock.advance(TTL_S)
    await rig.refresher.refresh_if_due(2)
    assert len(rig.source.requests) == 1
