"""What is answered as soon as its head is there, and what goes the usual way; both say the same.

A provider counts how often it is asked to ``open``, which only the usual way does.
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clef_agent import errors
from fakes import PAYLOAD
from server_fakes import (
    BEARER,
    HOST,
    PORT,
    TOKEN,
    Face,
    FakeProvider,
    Run,
    get,
    serving,
    until,
)

SECRETS = get("/v1/secrets")
#: Two ways to ask for the same; the second looks as if it had a body.
USUAL = get("/v1/secrets", "Content-Length: 0")
BIG = {"big": {"BLOB": "x" * 10_000_000}}


def test_the_plain_request_is_answered_at_once_to_the_byte_as_usual(on_loop: Run) -> None:
    async def test() -> None:
        provider, received = FakeProvider(), []
        async with serving(provider) as server:
            for opens, request in ((0, SECRETS), (1, USUAL), (1, SECRETS)):
                wire = await server.connect()
                wire.send(request)
                wire.writer.write_eof()
                received.append(await wire.rest())
                assert provider.opens == opens
            assert server.face.requests == {("/v1/secrets", 200): 3}
        assert received[0] == received[1] == received[2]
        assert received[0].startswith(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n")

    on_loop(test())


@pytest.mark.parametrize(
    ("request_", "status"),
    [
        (get("/v1/secrets", method="HEAD"), 200),
        (get("/v1/secrets", method="POST"), 405),
        (get("/v1/secrets?"), 200),
        (get("/v1/secrets?format=flat"), 200),
        (get("/v1/secrets/"), 404),
        (get("/v1/%73ecrets"), 404),
        (get("http://127.0.0.1/v1/secrets"), 200),
        (get("/v1/secrets", "Connection: keep-alive", version="1.0"), 200),
        (get("/v1/secrets", "Connection: close"), 200),
        (get("/v1/secrets", "Connection: Upgrade", "Upgrade: h2c"), 200),
        (get("/v1/secrets", "If-None-Match: *"), 304),
        (get("/v1/secrets", 'If-None-Match: "another"'), 200),
        (get("/v1/secrets", "Host: 127.0.0.1"), 403),
        (get("/v1/secrets", f"Authorization: Bearer {TOKEN}"), 401),
        (b"GET /v1/secrets HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n", 401),
        (SECRETS.replace(b"Host: 127.0.0.1", b"Host: evil.example"), 403),
        (SECRETS.replace(TOKEN.encode(), b"wrong"), 401),
    ],
)
def test_whatever_is_not_plain_goes_the_usual_way(
    on_loop: Run, request_: bytes, status: int
) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with serving(provider) as server:
            wire = await server.connect()
            wire.send(request_)
            answer = await wire.answer(has_body=not request_.startswith(b"HEAD"))
            assert answer.status == status
            assert provider.opens == (0 if status in (401, 403, 404, 405) else 1)
            assert sum(server.face.requests.values()) == 1

    on_loop(test())


def test_a_body_that_nobody_asked_for_does_not_become_a_request(on_loop: Run) -> None:
    async def test() -> None:
        async with serving() as server:
            wire = await server.connect()
            for header, body in (
                ("Content-Length: 4", b"GET "),
                ("Transfer-Encoding: chunked", b"0\r\n\r\n"),
            ):
                assert (await wire.ask(get("/v1/secrets", header) + body)).json == PAYLOAD
                assert (await wire.ask(SECRETS)).json == PAYLOAD

    on_loop(test())


def test_nothing_overtakes_a_request_that_waits(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with serving(provider) as server:
            wire = await server.connect()
            etag = (await wire.ask(SECRETS)).header(b"etag")
            assert etag is not None
            wire.send(get("/v1/secrets?wait=60", f"If-None-Match: {etag.decode()}"))
            await until(lambda: provider.waiting)
            wire.send(SECRETS)
            await server.works()  # so what was sent before has been read
            provider.swap({"KEY": "new"})
            first, second = await wire.answer(), await wire.answer()
            assert first.json == second.json == {"KEY": "new"}
            assert first.headers == second.headers

    on_loop(test())


def test_of_a_flood_one_request_is_answered_before_others_have_their_turn(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with serving(provider) as server:
            wire = await server.connect()
            wire.send(SECRETS * 8)
            for _ in range(8):
                assert (await wire.answer()).json == PAYLOAD
            assert 4 <= provider.opens <= 7  # the bytes may come in two pieces

    on_loop(test())


def test_a_client_that_has_not_taken_its_answer_waits_for_the_next(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider(BIG)
        async with serving(provider) as server:
            wire = await server.connect(receive_buffer=4096)
            wire.send(SECRETS)
            await until(lambda: server.face.requests)
            wire.send(SECRETS)
            await server.works()
            for _ in range(2):
                assert (await wire.answer()).json == BIG
            assert provider.opens == 1

    on_loop(test())


def test_nothing_is_at_hand_after_a_wipe(on_loop: Run) -> None:
    async def test() -> None:
        provider = FakeProvider()
        async with serving(provider) as server:
            wire = await server.connect()
            assert (await wire.ask(SECRETS)).status == 200
            provider.wipe(errors.ArtifactRevoked("revoked"))
            assert (await wire.ask(SECRETS)).status == 503

    on_loop(test())


def test_a_fault_of_ours_is_answered_the_usual_way() -> None:
    class Broken(FakeProvider):
        def at_hand(self) -> None:
            raise RuntimeError("secret")

    face = Face(Broken())
    assert face.app.answer_at_once(b"/v1/secrets", [HOST, BEARER]) is None
    assert face.read("/v1/secrets").status == 200


# --- what the guards say ------------------------------------------------------------------------

headers = st.lists(
    st.one_of(
        st.tuples(
            st.just(b"host"),
            st.sampled_from([b"127.0.0.1", b"LOCALHOST", b"localhost:%d" % PORT, b"evil", b""]),
        ),
        st.tuples(
            st.just(b"authorization"),
            st.sampled_from(
                [BEARER[1], b"bearer  " + TOKEN.encode(), b"Bearer wrong", b"Basic x", b""]
            ),
        ),
        st.tuples(st.just(b"if-none-match"), st.sampled_from([b"*", b'"x"'])),
        st.tuples(st.just(b"accept"), st.just(b"*/*")),
    ),
    max_size=4,
)
targets = st.sampled_from([b"/v1/secrets", b"/v1/secrets?", b"/v1/keys", b"/", b"//v1/secrets"])


@given(targets, headers)
@settings(max_examples=500)
def test_at_once_or_not_the_answer_is_the_same(
    target: bytes, headers: list[tuple[bytes, bytes]]
) -> None:
    face = Face(FakeProvider())
    at_once = face.app.answer_at_once(target, headers)
    usual = face.answer(target.decode(), *headers, host=False)
    if at_once is not None:
        assert (at_once.status, at_once.headers, bytes(at_once.body)) == (
            usual.status, usual.headers, usual.body,
        )  # fmt: skip
        assert usual.status == 200
    else:
        is_conditional = any(name == b"if-none-match" for name, _ in headers)
        assert usual.status != 200 or is_conditional or target != b"/v1/secrets"
