import pytest

from clef_agent.errors import SourceMisdirected
from clef_agent.web.address import Address, parse_url


def address(url: str) -> Address:
    return parse_url(url)[0]


@pytest.mark.parametrize(
    ("url", "origin", "target"),
    [
        ("https://host/a.json", "https://host", "/a.json"),
        ("HTTPS://Host:443/a", "https://host", "/a"),
        ("http://host:80/a", "http://host", "/a"),
        ("https://host:8443", "https://host:8443", "/"),
        ("https://host?q=1", "https://host", "/?q=1"),
        ("https://host/a#part", "https://host", "/a"),
        ("https://[::1]:8443/a", "https://[::1]:8443", "/a"),
        ("https://user:pw@host/a", "https://host", "/a"),
    ],
)
def test_a_url_is_taken_apart_into_origin_and_target(url: str, origin: str, target: str) -> None:
    parsed = address(url)
    assert (parsed.origin, parsed.target) == (origin, target)


@pytest.mark.parametrize(
    "target",
    [
        "/a%2Fb+c?X-Amz-Signature=a%2Fb+c%3D=&X=a/b",
        "/a/./b/../c//d",
        '/{a}`b`|c^d"e<f>?q={x}"<>\'`|^\\',
        "/%zz%2?%",
        "/a?",
        "/a??b=?",
    ],
)
def test_path_and_query_stay_as_they_are_byte_for_byte(target: str) -> None:
    assert address("https://host" + target).target == target


def test_what_no_request_line_can_hold_is_encoded_as_utf_8() -> None:
    assert address("https://host/\u00e9 \u20ac?\u00e9").target == "/%C3%A9%20%E2%82%AC?%C3%A9"


@pytest.mark.parametrize(
    "url",
    [
        "ftp://host/",
        "host/a",
        "",
        "https://",
        "https:///a",
        "https://host:x/",
        "https://host:0/",
        "https://host:99999/",
        "https://[::1/",
        "https:host",
    ],
)
def test_what_is_no_web_address_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match=r"host|URL") as caught:
        parse_url(url)
    assert len(str(caught.value)) < 30


def test_userinfo_is_percent_decoded_into_basic_and_leaves_the_address() -> None:
    parsed, userinfo = parse_url("https://us%40er:p%3Aw%C3%A9@host/a")
    assert userinfo is not None
    assert userinfo.basic() == "Basic dXNAZXI6cDp3w6k="  # us@er:p:wé
    assert "er" not in parsed.origin + parsed.target
    assert "er:" not in repr(userinfo)


def test_a_name_without_a_password_has_an_empty_one() -> None:
    _, userinfo = parse_url("https://token@host/")
    assert userinfo is not None
    assert userinfo.basic() == "Basic dG9rZW46"


# case 5
def test_an_address_shows_neither_userinfo_nor_query() -> None:
    parsed = address("https://user:pass@host:8443/dir/a.json?X-Amz-Signature=sig#frag")
    assert str(parsed) == "https://host:8443/dir/a.json"
    for secret in ("user", "pass", "sig", "frag"):
        assert secret not in f"{parsed} {parsed!r} {parsed.fingerprint}"


def test_addresses_that_differ_in_the_query_alone_have_different_fingerprints() -> None:
    assert address("https://h/a?v=1").fingerprint != address("https://h/a?v=2").fingerprint


@pytest.mark.parametrize(
    ("start", "location", "end"),
    [
        ("http://host/dir/a?q", "b", "http://host/dir/b"),
        ("http://host/dir/a", "/b?x=%2F+", "http://host/b?x=%2F+"),
        ("http://host/dir/a", "?x", "http://host/dir/a?x"),
        ("http://host/a", "http://HOST:80/b", "http://host/b"),
        ("http://host/a", "https://other/b/../c", "https://other/b/../c"),
        ("https://host/a", "//other/b", "https://other/b"),
        ("https://host/a", "https://other:8443/b?", "https://other:8443/b?"),
        ("https://host/a", "/caf\u00c3\u00a9 x", "https://host/caf%C3%A9%20x"),
    ],
)
def test_a_redirect_leads_on_within_its_origin_or_to_https(
    start: str, location: str, end: str
) -> None:
    target = address(start).redirected(location)
    assert target.origin + target.target == address(end).origin + address(end).target


@pytest.mark.parametrize(
    ("start", "location"),
    [
        ("https://host/a", "http://host/a"),
        ("http://host/a", "http://other/a"),
        ("http://host/a", "http://host:81/a"),
        ("http://host/a", "//other/a"),
        ("https://host/a", ""),
        ("https://host/a", "https://"),
        ("https://host/a", "https://[::1/x"),
        ("https://host/a", "https:x"),
        ("https://host/a", "file:///etc/passwd"),
        ("https://host/a", "ftp://host/a"),
        ("https://host/a", "javascript:alert(1)"),
        ("https://host/a", "https://host/a\tb"),
        ("https://host/a", "https://user:pass@host/a"),
        ("https://host/a", "http://[::1/secretpart"),
    ],
)
def test_a_redirect_elsewhere_is_refused(start: str, location: str) -> None:
    with pytest.raises(SourceMisdirected) as caught:
        address(start).redirected(location)
    for part in ("pass", "secretpart"):
        assert part not in str(caught.value)
