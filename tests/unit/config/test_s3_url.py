from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.config.s3_url import S3Location, parse_https_url, parse_s3_url

AP = "arn:aws:s3:eu-west-1:111122223333:accesspoint/ap"


def https(url: str) -> S3Location | None:
    return parse_https_url(urlsplit(url))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("s3://b/k", S3Location("b", "k")),
        ("S3://b/k", S3Location("b", "k")),
        ("s3://a.b.c/d/e", S3Location("a.b.c", "d/e")),
        ("s3://b/a%20b?c#d+e", S3Location("b", "a%20b?c#d+e")),
        ("s3://b//k", S3Location("b", "/k")),
        (f"s3://{AP}/k/l", S3Location(AP, "k/l", region="eu-west-1")),
        ("s3://arn:aws:s3:::b/k/l", S3Location("b", "k/l")),
        (
            "s3://arn:aws-cn:s3:cn-north-1:111122223333:accesspoint:ap/k",
            S3Location("arn:aws-cn:s3:cn-north-1:111122223333:accesspoint:ap", "k", "cn-north-1"),
        ),
        (
            "s3://arn:aws:s3-outposts:us-west-2:111122223333:outpost/op-1/accesspoint/ap/k",
            S3Location(
                "arn:aws:s3-outposts:us-west-2:111122223333:outpost/op-1/accesspoint/ap",
                "k",
                "us-west-2",
            ),
        ),
    ],
)
def test_an_s3_url_names_bucket_and_key_literally(text: str, expected: S3Location) -> None:
    assert_same(parse_s3_url(text), expected)


@pytest.mark.parametrize(
    "text",
    [
        "s3://",
        "s3://b",
        "s3://b/",
        "s3:///k",
        "s3:b/k",
        "https://b/k",
        f"s3://{AP}",
        f"s3://{AP}/",
        "s3://arn:aws:s3:::b",
        "s3://arn:aws:s3:eu-west-1:1:accesspoint/ap/k",
        "s3://arn:aws:kms:eu-west-1:111122223333:key/k",
        "s3://b\n/k",
    ],
)
def test_what_names_no_object_is_no_s3_url(text: str) -> None:
    assert parse_s3_url(text) is None


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://b.s3.eu-west-1.amazonaws.com/k", S3Location("b", "k", "eu-west-1")),
        ("https://B.S3.EU-WEST-1.amazonaws.com/K", S3Location("b", "K", "eu-west-1")),
        ("https://b.s3.amazonaws.com/k/l", S3Location("b", "k/l")),
        ("https://b.s3-us-west-2.amazonaws.com/k", S3Location("b", "k", "us-west-2")),
        ("https://a.b.c.s3.us-east-1.amazonaws.com/k", S3Location("a.b.c", "k", "us-east-1")),
        ("https://s3.eu-west-1.amazonaws.com/b/k/l", S3Location("b", "k/l", "eu-west-1")),
        ("https://s3.amazonaws.com/a.b/k", S3Location("a.b", "k")),
        ("https://s3-eu-west-1.amazonaws.com/b/k", S3Location("b", "k", "eu-west-1")),
        ("https://b.s3.eu-west-1.amazonaws.com:443/k", S3Location("b", "k", "eu-west-1")),
        (
            "https://b.s3.dualstack.eu-west-1.amazonaws.com/k",
            S3Location("b", "k", "eu-west-1", dualstack=True),
        ),
        (
            "https://s3.dualstack.eu-west-1.amazonaws.com/b/k",
            S3Location("b", "k", "eu-west-1", dualstack=True),
        ),
        (
            "https://b.s3-fips.us-gov-west-1.amazonaws.com/k",
            S3Location("b", "k", "us-gov-west-1", fips=True),
        ),
        (
            "https://b.s3-fips.dualstack.us-east-1.amazonaws.com/k",
            S3Location("b", "k", "us-east-1", dualstack=True, fips=True),
        ),
        (
            "https://s3-fips-us-gov-west-1.amazonaws.com/b/k",
            S3Location("b", "k", "us-gov-west-1", fips=True),
        ),
        ("https://b.s3.cn-north-1.amazonaws.com.cn/k", S3Location("b", "k", "cn-north-1")),
        ("https://s3.cn-northwest-1.amazonaws.com.cn/b/k", S3Location("b", "k", "cn-northwest-1")),
        (
            "https://ap-111122223333.s3-accesspoint.eu-west-1.amazonaws.com/k",
            S3Location(AP, "k", "eu-west-1"),
        ),
        (
            "https://ap-111122223333.s3-accesspoint-fips.dualstack.us-gov-east-1.amazonaws.com/k",
            S3Location(
                "arn:aws-us-gov:s3:us-gov-east-1:111122223333:accesspoint/ap",
                "k",
                "us-gov-east-1",
                dualstack=True,
                fips=True,
            ),
        ),
        (
            "https://ap-111122223333.s3-accesspoint.cn-north-1.amazonaws.com.cn/k",
            S3Location("arn:aws-cn:s3:cn-north-1:111122223333:accesspoint/ap", "k", "cn-north-1"),
        ),
        (
            "https://b.s3.amazonaws.com/k?versionId=a%2Bb",
            S3Location("b", "k", version_id="a+b"),
        ),
        # Decoded once, and a plus is a plus (case 22).
        ("https://b.s3.amazonaws.com/a%20b+c%2520d", S3Location("b", "a b+c%20d")),
        ("https://b.s3.amazonaws.com//k", S3Location("b", "/k")),
    ],
)
def test_an_https_url_of_s3_names_an_object(url: str, expected: S3Location) -> None:
    assert_same(https(url), expected)


# case 22
@pytest.mark.parametrize(
    "url",
    [
        "http://b.s3.amazonaws.com/k",
        "https://b.s3.amazonaws.com:8443/k",
        "https://u:p@b.s3.amazonaws.com/k",
        "https://b.s3.amazonaws.com/k?X-Amz-Signature=s&X-Amz-Date=d",
        "https://b.s3.amazonaws.com/k?AWSAccessKeyId=a&Signature=s&Expires=1",
        "https://b.s3.amazonaws.com/k?versionId=v&X-Amz-Signature=s",
        "https://b.s3.amazonaws.com/k?versionId=",
        "https://b.s3-website.eu-west-1.amazonaws.com/k",
        "https://b.s3-website-us-west-2.amazonaws.com/k",
        "https://b.s3-accelerate.amazonaws.com/k",
        "https://s3.evil.example/b/k",
        "https://b.s3.amazonaws.com.evil.example/k",
        "https://evils3.amazonaws.com/k",
        "https://minio.example/b/k",
        "https://execute-api.eu-west-1.amazonaws.com/b/k",
    ],
)
def test_any_other_url_is_fetched_as_it_is(url: str) -> None:
    assert https(url) is None


@pytest.mark.parametrize(
    "url",
    [
        "https://b.s3.amazonaws.com/",
        "https://b.s3.amazonaws.com",
        "https://s3.amazonaws.com/b",
        "https://s3.amazonaws.com/b/",
        "https://s3.eu-west-1.amazonaws.com/",
        "https://b.s3.amazonaws.com/%ff",
    ],
)
def test_a_url_of_s3_without_an_object_is_an_error(url: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # its text is never shown
        https(url)


@given(key=st.text(min_size=1).filter(lambda key: not _has_surrogates(key)))
def test_whatever_the_key_it_is_decoded_once(key: str) -> None:
    found = https(f"https://b.s3.eu-west-1.amazonaws.com/{quote(key, safe='')}")
    assert found is not None
    assert found.key == key


@given(st.text())
def test_no_text_breaks_the_parser(text: str) -> None:
    parse_s3_url("s3://" + text)


def _has_surrogates(text: str) -> bool:
    return any("\ud800" <= char <= "\udfff" for char in text)


def assert_same(found: S3Location | None, expected: S3Location) -> None:
    # Locations have no repr: this one has, for whoever reads a failure.
    assert found is not None
    names = ("bucket", "key", "region", "version_id", "dualstack", "fips")
    assert {n: getattr(found, n) for n in names} == {n: getattr(expected, n) for n in names}
