from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest

from clef_agent import errors
from clef_agent.artifact.pack import Payload
from clef_agent.decrypt.secrets import Secrets
from clef_agent.provider import MAX_WAITERS, Opened
from clef_agent.server.replies import Reply
from fakes import PAYLOAD, FakeKeyService, packed
from refresh_fakes import FakeSource, Rig, Setup, in_virtual_time, revoked
from server_fakes import BEARER, Answer, Face, FakeProvider, opened, run, scope, until

A: Payload = {"app": {"KEY": "a"}}
B: Payload = {"app": {"KEY": "b"}}


def known(*tags: bytes) -> tuple[bytes, bytes]:
    return (b"if-none-match", b", ".join(tags))


@pytest.fixture
def face() -> Face:
    return Face(FakeProvider(A))


def etag_of(face: Face, target: str = "/v1/secrets") -> bytes:
    etag = face.read(target).header(b"etag")
    assert etag is not None
    return etag


# --- ETag -------------------------------------------------------------------------------------


def test_the_etag_is_a_hash_of_the_artifact_and_the_format(face: Face) -> None:
    nested, flat = etag_of(face), etag_of(face, "/v1/secrets?format=flat")
    assert nested == b'"%s"' % opened(A).digest[:40].encode()
    assert nested != flat
    assert etag_of(face, "/v1/secrets?format=nested") == nested
    assert etag_of(Face(FakeProvider(B))) != nested


@pytest.mark.parametrize("target", ["/v1/secrets", "/v1/secrets?format=flat"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_what_the_client_has_is_not_sent_again(face: Face, target: str, method: str) -> None:
    etag = etag_of(face, target)
    for tags in (
        (etag,),
        (b"W/" + etag,),
        (b'"other"', etag),
        (etag, b'"other"'),
        (b'W/"other"', b"W/" + etag),
        (b"*",),
        (b'"x",' + etag + b',"y"',),
    ):
        answer = face.read(target, known(*tags), method=method)
        assert (answer.status, answer.body, answer.header(b"etag")) == (304, b"", etag)
        assert answer.header(b"cache-control") == b"no-store"
    two = face.read(target, known(b'"other"'), known(etag), method=method)
    assert two.status == 304


@pytest.mark.parametrize("tag", [b"", b'"other"', b'W/"other"', b"w/", b"garbage", b"\xff", b",,"])
def test_what_the_client_does_not_have_is_sent(face: Face, tag: bytes) -> None:
    assert face.read("/v1/secrets", known(tag)).status == 200
    assert face.read("/v1/secrets", known(etag_of(face).strip(b'"'))).status == 200


def test_the_tag_of_one_format_is_not_the_others(face: Face) -> None:
    assert face.read("/v1/secrets?format=flat", known(etag_of(face))).status == 200
    flat = etag_of(face, "/v1/secrets?format=flat")
    assert face.read("/v1/secrets", known(flat)).status == 200


# --- the query --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        "wait=0",
        "wait=61",
        "wait=-1",
        "wait=",
        "wait=1.5",
        "wait=1s",
        "wait=%20",
        "wait=" + "9" * 5_000,
        "wait=%D9%A3",  # a digit to Python, not to a client
        "wait=1&wait=0",
        "format=",
        "format=yaml",
        "format=FLAT",
        "format=%FF",
        "format=flat&format=x",
    ],
)
def test_a_query_out_of_its_bounds_is_400(face: Face, query: str) -> None:
    for headers in ((), (known(etag_of(face)),)):
        answer = face.read(f"/v1/secrets?{query}", *headers)
        assert answer.status == 400
        assert "must be" in answer.json["error"]
        assert answer.header(b"cache-control") == b"no-store"


@pytest.mark.parametrize("query", ["", "x=1", "wait=1", "wait=60", "format=nested", "&&=&", "%"])
def test_other_queries_do_not_keep_the_answer_back(face: Face, query: str) -> None:
    assert face.read(f"/v1/secrets?{query}").json == A


# --- waiting ----------------------------------------------------------------------------------


def test_a_wait_is_over_at_once_when_the_client_has_something_else(face: Face) -> None:
    assert face.read("/v1/secrets?wait=60", known(b'"other"')).json == A
    flat = etag_of(face, "/v1/secrets?format=flat")
    assert face.read("/v1/secrets?wait=60", known(flat)).json == A


@pytest.mark.parametrize(
    ("query", "served"), [("wait=60", B), ("wait=60&format=flat", {"app__KEY": "b"})]
)
def test_a_wait_is_over_when_the_secrets_change(query: str, served: Any) -> None:
    async def test() -> None:
        provider = FakeProvider(A)
        face = Face(provider)
        etag = (await face.ask(f"/v1/secrets?{query}", BEARER)).header(b"etag") or b""
        asking = asyncio.ensure_future(face.ask(f"/v1/secrets?{query}", BEARER, known(etag)))
        await until(lambda: provider.waiting)
        provider.swap(B)
        assert (await asking).json == served
        assert provider.waits == [60]

    run(test())


def rig_of(setup: Setup) -> tuple[Rig, Face]:
    rig = setup.rig()
    return rig, Face(rig.provider)


@pytest.fixture(params=[300, 0], ids=["cached", "jit"])
def setup(request: pytest.FixtureRequest) -> Setup:
    ttl_s: int = request.param
    return Setup(ttl_s=ttl_s, source=FakeSource(packed(A)))


async def wait_s(face: Face, etag: bytes, seconds: int, **how: Any) -> Answer:
    return await face.ask(f"/v1/secrets?wait={seconds}", BEARER, known(etag), **how)


async def loaded(rig: Rig, face: Face) -> bytes:
    await rig.refresh()
    return (await face.ask("/v1/secrets", BEARER)).header(b"etag") or b""


@in_virtual_time
async def test_a_wait_in_vain_is_304_after_its_seconds(setup: Setup) -> None:
    rig, face = rig_of(setup)
    etag = await loaded(rig, face)
    loop = asyncio.get_running_loop()
    for seconds in (1, 60):
        began = loop.time()
        assert (await wait_s(face, etag, seconds)).status == 304
        assert loop.time() - began == pytest.approx(seconds)


@in_virtual_time
async def test_a_wipe_and_a_drain_send_home_who_waits(setup: Setup) -> None:
    rig, face = rig_of(setup)
    etag = await loaded(rig, face)
    asking = asyncio.ensure_future(wait_s(face, etag, 60))
    await asyncio.sleep(1)
    rig.source.data = revoked(rig.source.data)
    await rig.refresh()
    rig.provider.changed()
    answer = await asking
    assert (answer.status, answer.json["reason"]) == (503, "revoked")

    rig.source.data = packed(B)
    etag = await loaded(rig, face)
    asking = asyncio.ensure_future(wait_s(face, etag, 60))
    await asyncio.sleep(1)
    rig.provider.drain()
    answer = await asking
    assert (answer.status, answer.json["reason"]) == (503, "shutting_down")


@in_virtual_time
async def test_one_waiter_too_many_is_sent_home_until_another_hangs_up(setup: Setup) -> None:
    rig, face = rig_of(setup)
    etag = await loaded(rig, face)
    gone = asyncio.Event()
    first = asyncio.ensure_future(wait_s(face, etag, 60, gone=gone))
    others = [asyncio.ensure_future(wait_s(face, etag, 60)) for _ in range(MAX_WAITERS - 1)]
    await asyncio.sleep(1)
    answer = await wait_s(face, etag, 60)
    assert (answer.status, answer.json["reason"]) == (503, "too_many_waiters")
    assert answer.header(b"retry-after") == b"1"
    gone.set()
    await first
    last = asyncio.ensure_future(wait_s(face, etag, 60))
    await asyncio.sleep(1)
    assert not last.done()
    rig.source.data = packed(B)
    await rig.refresh()
    rig.provider.changed()
    assert {(await asking).status for asking in (*others, last)} == {200}


@in_virtual_time
async def test_a_cancelled_request_gives_its_place_free(setup: Setup) -> None:
    rig, face = rig_of(setup)
    etag = await loaded(rig, face)
    asking = asyncio.ensure_future(wait_s(face, etag, 60))
    await asyncio.sleep(1)
    assert len(rig.provider._waiters) == 1
    asking.cancel()
    await asyncio.wait([asking])
    await asyncio.sleep(1)
    assert not rig.provider._waiters


@in_virtual_time
async def test_just_in_time_not_even_a_304_is_given_without_an_unwrap() -> None:
    service = FakeKeyService()
    source = FakeSource(packed(A, service=service))
    rig, face = rig_of(Setup(ttl_s=0, source=source, service=service))
    etag = await loaded(rig, face)
    asked = len(service.calls)
    assert (await face.ask("/v1/secrets", BEARER, known(etag))).status == 304
    assert len(service.calls) == asked + 1
    service.failure = errors.UnwrapFailed("the key is disabled")
    for headers in ((), (known(etag),), (known(b"*"),)):
        answer = await face.ask("/v1/secrets", BEARER, *headers)
        assert (answer.status, answer.json["reason"]) == (503, "kms_unwrap")
    answer = await face.ask("/v1/secrets?wait=60", BEARER, known(etag))
    assert (answer.status, answer.json["reason"]) == (503, "kms_unwrap")
    assert (await face.ask("/v1/ready")).status == 200


# --- plaintext --------------------------------------------------------------------------------


class Handover:
    """A provider that lets go of what it hands out, as a wipe does."""

    def __init__(self, given: Opened) -> None:
        self.given: Opened | None = given

    async def open(self) -> Opened:
        assert self.given is not None
        return self.given


def reply(face: Face) -> Reply:
    async def receive() -> Any:
        raise AssertionError("nothing is read")

    return asyncio.run(face.endpoint.reply(scope("/v1/secrets"), receive))


def test_the_reply_of_a_revision_is_made_once() -> None:
    provider = FakeProvider(A)
    face = Face(provider)
    first = reply(face)
    assert reply(face) is first
    provider.swap(B)
    second = reply(face)
    assert second is not first
    assert bytes(second.body) == bytes(opened(B).secrets.json)


def test_the_kept_reply_does_not_outlive_the_secrets() -> None:
    provider = FakeProvider(PAYLOAD)
    face = Face(provider)
    secrets = weakref.ref[Secrets]((asyncio.run(provider.open())).secrets)
    answer = reply(face)
    assert isinstance(answer.body, memoryview)
    buffer: Any = weakref.ref(answer.body)
    gc.disable()  # at the last reference, not whenever somebody collects
    try:
        provider.wipe(errors.ArtifactRevoked("revoked"))
        assert secrets() is None
        assert face.endpoint._made is None
        assert b"app-key" in bytes(answer.body)  # a response on its way keeps what it promised
        del answer
        assert buffer() is None
    finally:
        gc.enable()


def test_a_successor_is_not_forgotten_with_its_predecessor() -> None:
    provider = FakeProvider(A)
    face = Face(provider)
    held = asyncio.run(provider.open())
    reply(face)
    provider.swap(B)
    second = reply(face)
    del held
    gc.collect()
    assert reply(face) is second
