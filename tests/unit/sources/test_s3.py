"""The S3 source: what it asks of whom, and what the answers mean."""

from __future__ import annotations

import asyncio
import os
from typing import Any, cast

import pytest

from agent_process import eventually
from clef_agent import config as configuration
from clef_agent.aws import Aws
from clef_agent.config import S3SourceConfig
from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.sources.base import Fetched, NotModified, Validator
from clef_agent.sources.s3 import S3Source
from fake_service import Asked, FakeService, Reply, serving
from fakes import FakeFiles
from moto_server import aws_environment


@pytest.fixture(autouse=True)
def aws_env(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith("AWS_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    for name, value in aws_environment(AWS_ACCESS_KEY_ID="AKIA", AWS_SECRET_ACCESS_KEY="s").items():
        monkeypatch.setenv(name, value)


def source(url: str, **options: Any) -> S3Source:
    loaded = configuration.load({"CLEF_AGENT_SOURCE": url}, FakeFiles()).source
    assert isinstance(loaded, S3SourceConfig)
    return S3Source(loaded, Aws(os.environ), **options)


def requested(url: str, monkeypatch: pytest.MonkeyPatch) -> tuple[str, bool]:
    """The URL that a fetch asks, without asking anybody, and whether it is signed."""
    subject = source(url)
    client = subject._aws.client(subject._kind())
    seen: list[Any] = []

    def stop(request: Any, **_: Any) -> Any:
        seen.append(request)
        raise RuntimeError("far enough")

    client.meta.events.register("before-send.s3", stop)
    with pytest.raises(RuntimeError, match="far enough"):
        asyncio.run(subject.fetch(None))
    return seen[0].url, b"Authorization" in {name.encode() for name in seen[0].headers}


AP = "arn:aws:s3:eu-west-1:111122223333:accesspoint/ap"


# case 22
@pytest.mark.parametrize(
    ("url", "asked"),
    [
        ("s3://bucket/a/b.json", "https://bucket.s3.eu-west-1.amazonaws.com/a/b.json"),
        ("s3://a.b.c/k", "https://s3.eu-west-1.amazonaws.com/a.b.c/k"),
        ("s3://bucket/a b+c%20d", "https://bucket.s3.eu-west-1.amazonaws.com/a%20b%2Bc%2520d"),
        (f"s3://{AP}/k", "https://ap-111122223333.s3-accesspoint.eu-west-1.amazonaws.com/k"),
        (
            "s3://arn:aws:s3:us-west-2:111122223333:accesspoint/ap/k",
            "https://ap-111122223333.s3-accesspoint.us-west-2.amazonaws.com/k",
        ),
        ("https://bkt.s3.ap-south-1.amazonaws.com/k", "https://bkt.s3.ap-south-1.amazonaws.com/k"),
        ("https://s3.us-west-2.amazonaws.com/a.b/k", "https://s3.us-west-2.amazonaws.com/a.b/k"),
        ("https://bkt.s3-us-west-2.amazonaws.com/k", "https://bkt.s3.us-west-2.amazonaws.com/k"),
        (
            "https://bkt.s3.dualstack.us-west-2.amazonaws.com/k",
            "https://bkt.s3.dualstack.us-west-2.amazonaws.com/k",
        ),
        (
            "https://bkt.s3-fips.us-gov-west-1.amazonaws.com/k",
            "https://bkt.s3-fips.us-gov-west-1.amazonaws.com/k",
        ),
        (
            "https://bkt.s3-fips.dualstack.us-east-2.amazonaws.com/k",
            "https://bkt.s3-fips.dualstack.us-east-2.amazonaws.com/k",
        ),
        (
            "https://bkt.s3.cn-north-1.amazonaws.com.cn/k",
            "https://bkt.s3.cn-north-1.amazonaws.com.cn/k",
        ),
        ("https://bkt.s3.amazonaws.com/k", "https://bkt.s3.eu-west-1.amazonaws.com/k"),
        (
            "https://bkt.s3.us-east-2.amazonaws.com/a%20b/%C3%BC?versionId=v%2B1",
            "https://bkt.s3.us-east-2.amazonaws.com/a%20b/%C3%BC?versionId=v%2B1",
        ),
    ],
)
def test_each_shape_of_url_asks_the_right_host_once_encoded(
    url: str, asked: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, is_signed = requested(url, monkeypatch)
    assert (found, is_signed) == (asked, True)


def test_without_any_credentials_the_request_is_unsigned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    found, is_signed = requested("s3://bucket/k", monkeypatch)
    assert (found, is_signed) == ("https://bucket.s3.eu-west-1.amazonaws.com/k", False)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "minio.example"])
@pytest.mark.parametrize("url", ["s3://bucket/k", "https://bucket.s3.us-west-2.amazonaws.com/k"])
def test_an_endpoint_of_ones_own_gets_the_bucket_in_the_path(
    host: str, url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://{host}:9000")
    assert requested(url, monkeypatch)[0] == f"http://{host}:9000/bucket/k"


def test_aws_region_goes_before_aws_default_region(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-2")
    assert Aws(os.environ).region() == "eu-west-1"
    monkeypatch.delenv("AWS_REGION")
    assert Aws(os.environ).region() == "us-east-2"


# --- answers --------------------------------------------------------------------------------------


class FakeS3(FakeService):
    """Answers as a test scripts it; the last one again and again.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """

    def __init__(self, *replies: Reply) -> None:
        super().__init__()
        self.replies = list(replies)

    def answer(self, asked: Asked) -> Reply:
        return self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]


def error(status: int, code: str, more: str = "", **headers: str) -> Reply:
    body = f"<Error><Code>{code}</Code><Message>with the-secret</Message>{more}</Error>"
    names = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, body.encode(), {"Content-Type": "application/xml", **names})


def fetched(
    store: FakeS3, monkeypatch: pytest.MonkeyPatch, previous: str | None = None, **options: Any
) -> Fetched | NotModified:
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
    subject = source("s3://bucket/key.json", **options)

    async def fetch() -> Fetched | NotModified:
        try:
            return await subject.fetch(Validator(previous) if previous else None)
        finally:
            await subject.aclose()

    return asyncio.run(fetch())


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (error(403, "AccessDenied"), SourceDenied),
        (error(403, "InvalidAccessKeyId"), SourceDenied),
        (error(403, "SignatureDoesNotMatch"), SourceDenied),
        (error(403, "RequestTimeTooSkewed"), SourceDenied),
        (error(400, "ExpiredToken"), SourceDenied),
        (error(400, "InvalidToken"), SourceDenied),
        (error(404, "NoSuchKey"), SourceMissing),
        (error(404, "NoSuchBucket"), SourceMissing),
        (error(404, "NoSuchVersion"), SourceMissing),
        (error(405, "MethodNotAllowed"), SourceMissing),
        (error(403, "InvalidObjectState"), SourceUnusable),
        (error(503, "SlowDown"), SourceBusy),
        (error(500, "InternalError"), SourceBusy),
        (error(400, "RequestTimeout"), SourceBusy),
        (error(400, "SomethingElse"), SourceUnusable),
        (Reply(200, b"x", {"Content-Length": "40", "Connection": "close"}), SourceUnreachable),
        (Reply(200, b"x" * 100), SourceTooLarge),
        (Reply(200, b"x", {"Content-Encoding": "gzip"}), SourceUnusable),
    ],
)
def test_each_answer_means_what_it_says_and_nothing_is_repeated(
    reply: Reply, kind: type[SourceError], monkeypatch: pytest.MonkeyPatch
) -> None:
    # case 5
    with serving(FakeS3(reply)) as store, pytest.raises(kind) as caught:
        fetched(store, monkeypatch, max_bytes=50, deadline_s=5)
    assert "the-secret" not in str(caught.value)
    assert str(caught.value).startswith("s3://bucket/key.json")
    assert caught.value.__cause__ is None


def test_a_wish_for_patience_is_passed_on(monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        serving(FakeS3(error(503, "SlowDown", Retry_After="77"))) as store,
        pytest.raises(SourceBusy) as caught,
    ):
        fetched(store, monkeypatch)
    assert caught.value.retry_after_s == 77
    assert len(store.asked) == 1


def test_an_answer_without_such_a_wish_is_tried_twice_and_no_more(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(FakeS3(error(503, "SlowDown"))) as store, pytest.raises(SourceBusy):
        fetched(store, monkeypatch)
    assert len(store.asked) == 2


def test_a_body_of_no_known_length_is_cut_at_the_cap(monkeypatch: pytest.MonkeyPatch) -> None:
    chunks = b"".join(b"20\r\n" + b"x" * 32 + b"\r\n" for _ in range(10)) + b"0\r\n\r\n"
    reply = Reply(200, chunks, {"Transfer-Encoding": "chunked", "Content-Length": ""})
    with serving(FakeS3(reply)) as store, pytest.raises(SourceTooLarge):
        fetched(store, monkeypatch, max_bytes=50)


@pytest.mark.parametrize("etag", ['"abc"', 'W/"abc"', '"abc-2"'])
def test_an_etag_is_sent_back_as_it_came(etag: str, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Reply(200, b"{}", {"ETag": etag}), Reply(304, b"", {"ETag": etag})
    with serving(FakeS3(first, second)) as store:
        found = fetched(store, monkeypatch)
        assert isinstance(found, Fetched)
        assert found.validator == Validator(etag)
        assert isinstance(fetched(store, monkeypatch, previous=etag), NotModified)
    assert store.asked[1].headers["if-none-match"] == etag


def test_not_modified_is_no_answer_to_an_unconditional_request(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving(FakeS3(Reply(304))) as store, pytest.raises(SourceUnusable):
        fetched(store, monkeypatch)


@pytest.mark.parametrize(
    "away",
    [
        error(301, "PermanentRedirect", x_amz_bucket_region="us-west-2"),
        error(
            400,
            "AuthorizationHeaderMalformed",
            "<Region>us-west-2</Region>",
            x_amz_bucket_region="us-west-2",
        ),
    ],
)
def test_a_wrong_region_is_followed_once_and_remembered(
    away: Reply, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = Reply(200, b"{}", {"ETag": '"1"'})
    with serving(FakeS3(away, good)) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
        subject = source("s3://bucket/key.json")

        async def twice() -> None:
            assert isinstance(await subject.fetch(None), Fetched)
            assert isinstance(await subject.fetch(None), Fetched)

        asyncio.run(twice())
        scopes = [asked.headers["authorization"].split("/")[2] for asked in store.asked]
        assert scopes == ["eu-west-1", "us-west-2", "us-west-2"]


def test_a_bucket_that_is_always_elsewhere_is_not_followed_in_circles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    away = error(301, "PermanentRedirect", x_amz_bucket_region="us-west-2")
    with serving(FakeS3(away)) as store, pytest.raises(SourceUnusable, match="AWS_REGION"):
        fetched(store, monkeypatch)
    assert len(store.asked) <= 3


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_that_names_no_region_is_asked_about_once(
    status: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    with (
        serving(FakeS3(error(status, "PermanentRedirect"))) as store,
        pytest.raises(SourceUnusable),
    ):
        fetched(store, monkeypatch)
    assert len(store.asked) <= 2


def test_a_body_that_drips_is_cut_at_the_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket
    import threading
    import time

    listening = socket.create_server(("127.0.0.1", 0))
    done = threading.Event()

    def drip() -> None:
        connection, _ = listening.accept()
        with connection:
            connection.recv(65536)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while not done.wait(0.1):
                try:
                    connection.sendall(b"x")
                except OSError:
                    return

    thread = threading.Thread(target=drip, daemon=True)
    thread.start()
    try:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", f"http://127.0.0.1:{listening.getsockname()[1]}")
        began = time.monotonic()
        with pytest.raises(SourceUnreachable):
            asyncio.run(source("s3://bucket/key.json", deadline_s=1.0).fetch(None))
        assert time.monotonic() - began < 4

        def is_over() -> bool:
            return all(other.name != "clef-source" for other in threading.enumerate())

        eventually(is_over, "the end of the thread that reads", patience_s=5)
    finally:
        done.set()
        thread.join(10)
        listening.close()


def test_a_connection_that_died_while_idle_is_replaced_silently(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    good = Reply(200, b"{}", {"ETag": '"1"'})
    with serving(FakeS3(good)) as store:
        monkeypatch.setenv("AWS_ENDPOINT_URL_S3", store.url)
        subject = source("s3://bucket/key.json")

        async def fetch() -> None:
            assert isinstance(await subject.fetch(None), Fetched)
            store.resets = 1
            assert isinstance(await subject.fetch(None), Fetched)
            assert store.resets == 0

        asyncio.run(fetch())


def test_its_description_names_the_object_and_nothing_else() -> None:
    versioned = source("https://bkt.s3.us-east-2.amazonaws.com/k?versionId=v1")
    assert versioned.describe() == "s3://bkt/k (version v1)"
    assert source(f"s3://{AP}/k").describe() == f"s3://{AP}/k"


def test_the_last_link_of_the_chain_is_asked_again_only_after_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    aws = Aws(os.environ)
    assert not aws.has_credentials()
    session = aws._session
    assert session is not None
    cast("Any", session).get_credentials = lambda: pytest.fail("the chain was walked again")
    assert not aws.has_credentials()
