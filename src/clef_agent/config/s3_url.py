"""Where an object lies in S3, from each shape of URL that names one. Pure.

Source: https://docs.aws.amazon.com/AmazonS3/latest/userguide/VirtualHosting.html (virtual-hosted
and path style), https://docs.aws.amazon.com/general/latest/gr/s3.html (endpoints: dualstack, FIPS,
China, GovCloud), https://docs.aws.amazon.com/AmazonS3/latest/userguide/access-points-naming.html
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote

_REGION: Final = r"[a-z]{2,4}(?:-[a-z]+)+-\d{1,2}"
#: ``s3-us-west-2`` with a hyphen is how the oldest regions were written.
_HOST: Final = re.compile(
    r"(?:(?P<bucket>[a-z0-9][a-z0-9._-]*)\.)?"
    rf"s3(?P<fips>-fips)?(?P<dualstack>\.dualstack)?(?:[.-](?P<region>{_REGION}))?"
    r"\.amazonaws\.com(?:\.cn)?"
)
_ACCESS_POINT_HOST: Final = re.compile(
    r"(?P<name>[a-z0-9][a-z0-9-]*)-(?P<account>\d{12})\.s3-accesspoint"
    rf"(?P<fips>-fips)?(?P<dualstack>\.dualstack)?\.(?P<region>{_REGION})\.amazonaws\.com(?:\.cn)?"
)
#: ``:`` may stand for ``/`` within the resource, as in all ARNs of S3; the key comes after it.
_ARN: Final = re.compile(
    r"(?P<arn>arn:aws[a-z-]*:s3(?:-object-lambda|-outposts)?:(?P<region>[a-z0-9-]*):\d{12}:"
    r"(?:outpost[/:][a-z0-9-]+[/:])?accesspoint[/:][A-Za-z0-9.-]+)/(?P<key>.+)",
    re.DOTALL,
)
_OBJECT_ARN: Final = re.compile(r"arn:aws[a-z-]*:s3:::(?P<bucket>[^/]+)/(?P<key>.+)", re.DOTALL)


@dataclass(frozen=True, slots=True, repr=False)
class S3Location:
    """An object in S3. ``bucket`` is a name, or the ARN of an access point.

    ``key`` is the object's own, without any encoding. ``region`` is None where the URL does not
    say; ``dualstack`` and ``fips`` choose among a region's endpoints.
    """

    bucket: str
    key: str
    region: str | None = None
    version_id: str | None = None
    dualstack: bool = False
    fips: bool = False


def parse_s3_url(text: str) -> S3Location | None:
    """The object that ``s3://bucket/key`` or ``s3://arn:.../key`` names; None for anything else.

    The key is literal: nothing in it is decoded, and neither ``?`` nor ``#`` ends it.
    """
    if text[:5].lower() != "s3://":
        return None
    rest = text[5:]
    if rest.startswith("arn:"):
        if match := _OBJECT_ARN.fullmatch(rest):
            return S3Location(match["bucket"], match["key"])
        if match := _ARN.fullmatch(rest):
            return S3Location(match["arn"], match["key"], region=match["region"] or None)
        return None
    bucket, _, key = rest.partition("/")
    if not bucket or not key or not bucket.isprintable():
        return None
    return S3Location(bucket, key)


def parse_https_url(url: SplitResult) -> S3Location | None:
    """The object that an https URL of S3's own hosts names, its key percent-decoded once.

    None where it must be fetched as any other URL: another scheme, host or port, userinfo, or a
    query, but for ``versionId`` alone. A query may hold a signature, and what is signed already
    is not signed again.

    Raises:
        ValueError: it is S3's, but names no object.
    """
    version_id = _version_id(url.query)
    is_plain = url.scheme != "https" or url.username is not None or url.port not in (None, 443)
    if is_plain or (url.query and version_id is None):
        return None
    found = _by_host((url.hostname or "").lower(), url.path.removeprefix("/"))
    if found is None:
        return None
    match, bucket, encoded_key = found
    key = unquote(encoded_key, errors="strict")
    if not bucket or not key:
        raise ValueError("no object")
    return S3Location(
        bucket,
        key,
        region=match["region"],
        version_id=version_id,
        dualstack=match["dualstack"] is not None,
        fips=match["fips"] is not None,
    )


def _by_host(host: str, path: str) -> tuple[re.Match[str], str, str] | None:
    """The match of ``host``, the bucket, and the key, still encoded."""
    if match := _ACCESS_POINT_HOST.fullmatch(host):
        partition = _partition(match["region"])
        arn = f"arn:{partition}:s3:{match['region']}:{match['account']}:accesspoint/{match['name']}"
        return match, arn, path
    match = _HOST.fullmatch(host)
    if match is None:
        return None
    if match["bucket"] is not None:
        return match, match["bucket"], path
    bucket, _, key = path.partition("/")
    return match, bucket, key


def _partition(region: str) -> str:
    """Source: https://docs.aws.amazon.com/IAM/latest/UserGuide/reference-arns.html"""
    if region.startswith("cn-"):
        return "aws-cn"
    return "aws-us-gov" if region.startswith("us-gov-") else "aws"


def _version_id(query: str) -> str | None:
    """The version that ``query`` asks for, if it asks for nothing else."""
    name, _, value = query.partition("=")
    return unquote(value) if name == "versionId" and value and "&" not in value else None
