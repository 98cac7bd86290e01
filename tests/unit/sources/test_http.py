from __future__ import annotations

import asyncio
import logging
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from clef_agent import __version__
from clef_agent.config import Credential, HttpSourceConfig
from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMisdirected,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.sources.base import Fetched, NotModified, Validator
from clef_agent.sources.http import HttpSource
from fakes import FakeClock  # stands at Fri, 15 Jan 2027 08:00:00 GMT

URL = "https://host.example/a.json"
Handler = Callable[[httpx.Request], httpx.Response]


def no_file(path: str) -> bytes:
    raise FileNotFoundError(2, "No such file or directory", path)


class Script:
    """A transport that gives one answer after the other, and keeps what it was asked."""

    def __init__(self, *answers: httpx.Response | Exception) -> None:
        self.answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.transport = httpx.MockTransport(self._answer)

    def _answer(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def source(self, url: str = URL, token: Credential | None = None) -> HttpSource:
        return HttpSource(
            HttpSourceConfig(url, token),
            no_file,
            transport=self.transport,
            max_bytes=1000,
            clock=FakeClock(),
        )


def fetch(source: HttpSource, previous: Validator | None = None) -> Fetched | NotModified:
    async def once() -> Fetched | NotModified:
        try:
            return await source.fetch(previous)
        finally:
            await source.aclose()

    return asyncio.run(once())


def fetched(script: Script) -> Fetched:
    result = fetch(script.source())
    assert isinstance(result, Fetched)
    return result


def refused(source: HttpSource, previous: Validator | None = None) -> SourceError:
    with pytest.raises(SourceError) as caught:
        fetch(source, previous)
    return caught.value


def ok(body: bytes = b"{}", **headers: str) -> httpx.Response:
    named = [(name.replace("_", "-"), value) for name, value in headers.items()]
    return httpx.Response(200, headers=named, stream=httpx.ByteStream(body))


def redirect(location: str, status: int = 302) -> httpx.Response:
    return httpx.Response(status, headers={"location": location})


# --- the request ----------------------------------------------------------------------------------


def test_importing_the_source_does_not_import_httpx() -> None:
    code = (
        "import sys, clef_agent.sources.http, clef_agent.sources.file;"
        "sys.exit(any(name in sys.modules for name in ('httpx', 'httpcore', 'anyio', 'h11')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_source_says_what_it_is() -> None:
    source = Script().source("https://user:pass@host.example/a.json?sig=x#f")
    assert source.type == "http"
    assert source.is_remote
    assert source.describe() == URL
    asyncio.run(source.aclose())


def test_a_url_that_is_none_is_final() -> None:
    config = HttpSourceConfig("https://user:hush@[::1/")
    with pytest.raises(SourceUnusable) as caught:
        HttpSource(config, no_file)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


def test_a_first_request_is_plain_and_unconditional() -> None:
    script = Script(ok(b"artifact"))
    assert fetched(script).data == b"artifact"
    (request,) = script.requests
    assert request.method == "GET"
    assert dict(request.headers) == {
        "host": "host.example",
        "user-agent": f"clef-agent/{__version__}",
        "accept": "*/*",
        "accept-encoding": "identity",
    }


def test_a_given_token_goes_as_bearer() -> None:
    script = Script(ok())
    fetch(script.source(token=Credential(value="abc")))
    assert script.requests[0].headers["authorization"] == "Bearer abc"


def test_a_token_beyond_ascii_goes_as_utf_8() -> None:
    script = Script(ok())
    fetch(script.source(token=Credential(value="t\u00f6ken")))
    assert (b"authorization", "Bearer t\u00f6ken".encode()) in script.requests[0].headers.raw


def test_userinfo_goes_as_basic() -> None:
    script = Script(ok())
    fetch(script.source("https://us%40er:p%3Aw@host.example/a.json"))
    (request,) = script.requests
    assert request.headers["authorization"] == "Basic dXNAZXI6cDp3"
    assert request.url.userinfo == b""


def test_a_token_file_is_read_anew_at_each_fetch() -> None:
    script = Script(ok(), ok())
    contents = [b"first\n", b"second\n"]
    source = HttpSource(
        HttpSourceConfig(URL, Credential(path="/run/token")),
        lambda _: contents.pop(0),
        transport=script.transport,
    )

    async def twice() -> None:
        await source.fetch(None)
        await source.fetch(None)
        await source.aclose()

    asyncio.run(twice())
    sent = [request.headers["authorization"] for request in script.requests]
    assert sent == ["Bearer first", "Bearer second"]


def test_without_its_token_file_nothing_is_asked() -> None:
    script = Script()
    failure = refused(script.source(token=Credential(path="/run/token")))
    assert type(failure) is SourceDenied
    assert "/run/token" in str(failure)
    assert script.requests == []


@pytest.mark.parametrize(
    "target",
    [
        "/b/k%2Fey+x.json?X-Amz-Signature=a%2fb%2F+%20&X-Amz-Credential=x/y&e=",
        '/a/../b/./{c}"?q={"}<>^`|',
    ],
)
def test_a_presigned_url_is_sent_byte_for_byte(target: str) -> None:
    script = Script(ok())
    fetch(script.source("https://host.example" + target))
    assert script.requests[0].url.raw_path == target.encode()


def test_a_url_that_cannot_be_asked_is_final() -> None:
    failure = refused(Script().source("https://999.1.1.1/a?sig=hush"))
    assert type(failure) is SourceUnusable
    assert "hush" not in "".join(traceback.format_exception(failure))


def test_no_cookie_is_kept() -> None:
    cookie = "a=b; Path=/"
    script = Script(ok(set_cookie=cookie), ok(set_cookie=cookie))
    source = script.source()

    async def twice() -> None:
        await source.fetch(None)
        await source.fetch(None)
        assert source._correspondent._client is not None
        assert len(source._correspondent._client._client.cookies.jar) == 0
        await source.aclose()

    asyncio.run(twice())
    assert all("cookie" not in request.headers for request in script.requests)


# --- conditions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("etag", ['"abc"', 'W/"abc"', "unquoted", '"a b\u00e9"'])
def test_an_etag_comes_back_verbatim(etag: str) -> None:
    headers = [(b"ETag", etag.encode("latin-1")), (b"Last-Modified", b"whatever")]
    script = Script(
        httpx.Response(200, headers=headers, stream=httpx.ByteStream(b"")), httpx.Response(304)
    )
    first = fetch(script.source())
    assert isinstance(first, Fetched)
    assert fetch(script.source(), first.validator) == NotModified()
    raw = {name.lower(): value for name, value in script.requests[1].headers.raw}
    assert raw[b"if-none-match"] == etag.encode("latin-1")
    assert b"if-modified-since" not in raw


def test_without_an_etag_the_date_of_the_last_change_serves() -> None:
    modified = "Fri, 15 Jan 2027 07:59:00 GMT"
    script = Script(ok(last_modified=modified), httpx.Response(304))
    assert fetch(script.source(), fetched(script).validator) == NotModified()
    assert script.requests[1].headers["if-modified-since"] == modified


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"etag": ""},
        {"last_modified": "yesterday"},
        # Changed within the second of the answer: a change right after it has the same date.
        {"last_modified": "Fri, 15 Jan 2027 08:00:00 GMT"},
        {
            "last_modified": "Thu, 14 Jan 2027 08:00:00 GMT",
            "date": "Thu, 14 Jan 2027 08:00:00 GMT",
        },
    ],
)
def test_an_answer_that_cannot_be_recognised_again_has_no_validator(
    headers: dict[str, str],
) -> None:
    assert fetched(Script(ok(b"", **headers))).validator is None


def test_not_modified_to_an_unconditional_request_is_an_error() -> None:
    assert type(refused(Script(httpx.Response(304)).source())) is SourceUnusable


def test_a_validator_of_another_address_is_not_sent() -> None:
    script = Script(ok(etag='"1"'), ok())
    validator = fetched(script).validator
    fetch(script.source("https://host.example/other.json"), validator)
    assert "if-none-match" not in script.requests[1].headers


# --- redirects ------------------------------------------------------------------------------------


# case 6
def test_neither_token_nor_condition_follows_to_another_origin() -> None:
    script = Script(ok(etag='"1"'), redirect("https://other.example/b?sig=1"), ok(b"there"))
    token = Credential(value="hush")
    first = fetch(script.source(token=token))
    assert isinstance(first, Fetched)
    second = fetch(script.source(token=token), first.validator)
    assert isinstance(second, Fetched)
    assert second.data == b"there"
    here, there = script.requests[1:]
    assert (here.headers["authorization"], here.headers["if-none-match"]) == ("Bearer hush", '"1"')
    assert (there.url.host, there.headers["host"]) == ("other.example", "other.example")
    assert not {"authorization", "if-none-match"} & set(there.headers)


def test_not_modified_by_another_origin_that_was_not_asked_is_an_error() -> None:
    script = Script(ok(etag='"1"'), redirect("https://other.example/b"), httpx.Response(304))
    validator = fetched(script).validator
    failure = refused(script.source(), validator)
    assert type(failure) is SourceUnusable
    assert "https://other.example" in str(failure)


def test_a_validator_goes_back_to_where_the_redirect_led() -> None:
    script = Script(
        redirect("https://other.example/b"),
        ok(etag='"1"'),
        redirect("https://other.example/b"),
        httpx.Response(304),
    )
    assert fetch(script.source(), fetched(script).validator) == NotModified()
    assert "if-none-match" not in script.requests[2].headers
    assert script.requests[3].headers["if-none-match"] == '"1"'


def test_a_redirect_to_another_artifact_with_the_same_etag_is_fetched() -> None:
    script = Script(
        redirect("/v1.json"), ok(b"v1", etag='"1"'), redirect("/v2.json"), ok(b"v2", etag='"1"')
    )
    second = fetch(script.source(), fetched(script).validator)
    assert isinstance(second, Fetched)
    assert second.data == b"v2"
    assert "if-none-match" not in script.requests[3].headers


def test_five_redirects_are_followed_and_no_more() -> None:
    assert fetched(Script(*(redirect("/b") for _ in range(5)), ok(b"end"))).data == b"end"
    script = Script(*(redirect("/b") for _ in range(6)))
    assert type(refused(script.source())) is SourceMisdirected
    assert len(script.requests) == 6


@pytest.mark.parametrize(
    "location",
    ["http://host.example/a", "http://other.example/", "https://[hush", "", "\thush", "ftp://x/"],
)
def test_a_redirect_that_must_not_be_followed_is_not(location: str) -> None:
    script = Script(redirect(location))
    failure = refused(script.source())
    assert type(failure) is SourceMisdirected
    assert "hush" not in "".join(traceback.format_exception(failure))
    assert len(script.requests) == 1


def test_a_redirect_without_a_location_is_misdirected() -> None:
    assert type(refused(Script(httpx.Response(302)).source())) is SourceMisdirected


# --- the answer -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (401, SourceDenied),
        (403, SourceDenied),
        (404, SourceMissing),
        (410, SourceMissing),
        (429, SourceBusy),
        (503, SourceBusy),
        (204, SourceUnusable),
        (206, SourceUnusable),
        (400, SourceUnusable),
    ],
)
def test_a_status_without_an_artifact_is_an_error(status: int, kind: type[SourceError]) -> None:
    failure = refused(Script(httpx.Response(status, content=b"hush")).source())
    assert type(failure) is kind
    assert str(failure).startswith(f"{URL} answered {status}")


def test_retry_after_is_handed_on() -> None:
    answer = httpx.Response(503, headers={"Retry-After": "Fri, 15 Jan 2027 08:00:30 GMT"})
    assert refused(Script(answer).source()).retry_after_s == 30


def test_a_page_is_handed_out_for_the_parser_to_refuse() -> None:
    assert fetched(Script(ok(b"<html>", content_type="text/html"))).data == b"<html>"


def test_the_first_of_two_headers_of_one_name_counts() -> None:
    headers = [("Retry-After", "3"), ("Retry-After", "9")]
    assert refused(Script(httpx.Response(503, headers=headers)).source()).retry_after_s == 3


class Stream(httpx.AsyncByteStream):
    """A body that counts how much of it was asked for."""

    def __init__(self, chunk: bytes, times: int) -> None:
        self.chunk, self.times, self.given, self.closed = chunk, times, 0, False

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for _ in range(self.times):
            self.given += 1
            yield self.chunk

    async def aclose(self) -> None:
        self.closed = True


def test_a_body_of_exactly_the_cap_is_taken() -> None:
    answer = httpx.Response(200, stream=Stream(b"x" * 10, 100))
    assert len(fetched(Script(answer)).data) == 1000


def test_a_body_beyond_the_cap_is_not_read_on() -> None:
    stream = Stream(b"x" * 10, 1_000_000)
    failure = refused(Script(httpx.Response(200, stream=stream)).source())
    assert type(failure) is SourceTooLarge
    assert stream.given == 101
    assert stream.closed


def test_a_length_beyond_the_cap_is_not_read_at_all() -> None:
    stream = Stream(b"x", 1)
    headers = {"Content-Length": "1001"}
    failure = refused(Script(httpx.Response(200, headers=headers, stream=stream)).source())
    assert type(failure) is SourceTooLarge
    assert stream.given == 0


@pytest.mark.parametrize("coding", ["gzip", "br", "identity, gzip", "zstd"])
def test_a_content_coding_that_nobody_asked_for_is_refused_unread(coding: str) -> None:
    stream = Stream(b"x", 1)
    headers = {"Content-Encoding": coding}
    failure = refused(Script(httpx.Response(200, headers=headers, stream=stream)).source())
    assert type(failure) is SourceUnusable
    assert stream.given == 0


def test_the_identity_coding_is_none() -> None:
    assert fetched(Script(ok(b"x", content_encoding="Identity"))).data == b"x"


# --- failures -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        (httpx.ConnectError("hush"), "no connection"),
        (httpx.ConnectTimeout("hush"), "no connection in time"),
        (httpx.ReadTimeout("hush"), "no answer in time"),
        (httpx.RemoteProtocolError("hush"), "broke off"),
        (httpx.ProxyError("hush"), "proxy"),
        (httpx.ReadError("hush"), "no answer"),
        (httpx.DecodingError("hush"), "no answer"),
        (httpx.StreamClosed(), "no answer"),
        (ConnectionResetError(104, "hush"), "Connection reset by peer"),
        (OSError("hush"), "no answer"),
        (UnicodeError("hush"), "no answer"),
    ],
)
def test_a_failure_is_told_in_our_own_words(failure: Exception, words: str) -> None:
    caught = refused(Script(failure).source())
    assert type(caught) is SourceUnreachable
    assert words in str(caught)
    assert str(caught).startswith("https://host.example: ")
    assert "hush" not in "".join(traceback.format_exception(caught))


def test_the_cause_of_a_failure_is_found_behind_several_addresses() -> None:
    failure = httpx.ConnectError("hush")
    failure.__cause__ = OSError("All connection attempts failed")
    failure.__cause__.__cause__ = ExceptionGroup("both", [ConnectionRefusedError(111, "hush")])
    assert str(refused(Script(failure).source())).endswith("Connection refused")


def test_a_certificate_file_that_is_none_is_said_to_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "none.pem"))
    failure = refused(HttpSource(HttpSourceConfig(URL), no_file))
    assert type(failure) is SourceUnreachable
    assert "SSL_CERT_FILE" in str(failure)


def test_a_proxy_that_is_none_is_said_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "gopher://user:hush@proxy")
    failure = refused(HttpSource(HttpSourceConfig(URL), no_file))
    assert type(failure) is SourceUnreachable
    assert "hush" not in "".join(traceback.format_exception(failure))


# --- what the libraries log -----------------------------------------------------------------------


# case 5
def test_no_library_logs_the_query(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    fetch(Script(ok()).source("https://host.example/a?sig=hush"))
    assert not [record for record in caplog.records if record.name.startswith("http")]
    assert "hush" not in caplog.text
