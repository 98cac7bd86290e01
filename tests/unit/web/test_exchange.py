from __future__ import annotations

import pytest

from clef_agent.errors import SourceMisdirected
from clef_agent.web.address import Address, parse_url
from clef_agent.web.exchange import Answer, Precondition, Request

TOKEN = {"authorization": "Bearer hush"}


def address(url: str) -> Address:
    return parse_url(url)[0]


def redirect(request: Request, location: str | None, status: int = 302) -> Request | None:
    headers = {} if location is None else {"location": location}
    return request.following(Answer(request, status, headers))


def test_a_request_asks_for_plain_bytes_and_says_who_asks() -> None:
    headers = Request(address("https://host/a")).wire_headers()
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("clef-agent/")
    assert "authorization" not in headers


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_credentials_go_along_within_their_origin(status: int) -> None:
    request = Request(address("https://host/a"), TOKEN)
    following = redirect(request, "/b", status)
    assert following is not None
    assert following.wire_headers()["authorization"] == "Bearer hush"


# case 6
@pytest.mark.parametrize(
    "location", ["https://other/b", "https://host:8443/b", "https://host.other/b", "//other/b"]
)
def test_credentials_do_not_leave_their_origin(location: str) -> None:
    following = redirect(Request(address("https://host/a"), TOKEN, {"accept": "x"}), location)
    assert following is not None
    assert "authorization" not in following.wire_headers()
    assert following.wire_headers()["accept"] == "x"


def test_a_step_from_http_to_https_leaves_the_origin() -> None:
    following = redirect(Request(address("http://host/a"), TOKEN), "https://host/a")
    assert following is not None
    assert "authorization" not in following.wire_headers()


# case 6
def test_credentials_stay_away_when_another_origin_leads_back() -> None:
    away = redirect(Request(address("https://host/a"), TOKEN), "https://other/b")
    assert away is not None
    back = redirect(away, "https://host/chosen-by-other")
    assert back is not None
    assert "authorization" not in back.wire_headers()


def test_a_redirect_without_a_location_is_misdirected() -> None:
    with pytest.raises(SourceMisdirected):
        redirect(Request(address("https://host/a")), None)


@pytest.mark.parametrize("status", [200, 300, 304, 305, 306, 404])
def test_other_answers_lead_nowhere_even_with_a_location(status: int) -> None:
    assert redirect(Request(address("https://host/a")), "/b", status) is None


def test_a_precondition_is_sent_to_the_address_that_it_speaks_of_and_no_other() -> None:
    home, elsewhere = address("https://host/a"), address("https://other/b?sig=1")
    condition = Precondition(elsewhere.fingerprint, "if-none-match", 'W/"1"')
    request = Request(home, precondition=condition)
    assert not request.is_conditional
    assert "if-none-match" not in request.wire_headers()
    following = redirect(request, "https://other/b?sig=1")
    assert following is not None
    assert following.is_conditional
    assert following.wire_headers()["if-none-match"] == 'W/"1"'


def test_a_precondition_survives_as_a_validator() -> None:
    condition = Precondition("f" * 64, "if-none-match", 'W/"a b  c"')
    assert Precondition.from_text(condition.as_text()) == condition


@pytest.mark.parametrize("text", ["", "a-b-c", "one two"])
def test_a_text_of_another_making_is_no_precondition(text: str) -> None:
    assert Precondition.from_text(text) is None


def test_a_redirect_of_a_post_is_left_to_whoever_posted() -> None:
    request = Request(address("https://host/a"), TOKEN, method="POST", content=b"{}")
    assert redirect(request, "/b", 307) is None


def test_a_request_prints_no_credentials() -> None:
    assert "hush" not in repr(Request(address("https://host/a?sig=hush"), TOKEN))
