"""An artifact in Amazon S3, or in a store that speaks its language."""

from __future__ import annotations

import time
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from clef_agent.aws import Aws, AwsFailure, ClientKind, explain
from clef_agent.clock import Clock, SystemClock
from clef_agent.config import S3Location, S3SourceConfig
from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceTooLarge,
    SourceUnreachable,
    SourceUnusable,
)
from clef_agent.lane import Lane, LaneBlocked
from clef_agent.sources.base import (
    FETCH_DEADLINE_S,
    MAX_FETCH_BYTES,
    Fetched,
    NotModified,
    SourceType,
    Validator,
)
from clef_agent.sources.status import DENIED, MISSING, asks_for_patience, retry_after_s

if TYPE_CHECKING:
    from urllib3 import BaseHTTPResponse

_CHUNK_BYTES: Final = 256 * 1024
_NOT_MODIFIED: Final = 304
_REDIRECTION: Final = range(300, 400)

#: What S3 answers with 400, although it is about who asks.
#: Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
_DENIED_CODES: Final = frozenset({"ExpiredToken", "InvalidToken", "TokenRefreshRequired"})
_BUSY_CODES: Final = frozenset({"SlowDown", "RequestTimeout", "Throttling", "ThrottlingException"})
#: A version that is named, and is the mark of a deletion, allows no GET: 405.
_MISSING_CODES: Final = frozenset(
    {"NoSuchKey", "NoSuchBucket", "NoSuchVersion", "MethodNotAllowed"}
)
_COMPRESSED: Final = ("gzip", "deflate", "br", "zstd", "compress")


class S3Source:
    """One object, read with whatever credentials botocore's chain finds, or with none."""

    type: SourceType = "s3"
    is_remote = True

    def __init__(
        self,
        config: S3SourceConfig,
        aws: Aws,
        *,
        deadline_s: float = FETCH_DEADLINE_S,
        max_bytes: int = MAX_FETCH_BYTES,
        clock: Clock | None = None,
    ) -> None:
        """Asks nobody yet."""
        self._location = config.location
        self._aws = aws
        self._deadline_s = deadline_s
        self._max_bytes = max_bytes
        self._clock = clock or SystemClock()
        # botocore gives up by itself, but later than a fetch may: the next one has its own thread.
        self._lane = Lane("source", width=2)

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        """The artifact, unless its ETag is still that of ``previous``.

        Raises:
            SourceError: one of its subclasses. No message holds a credential or a signature.
        """
        fetch = partial(self._fetch, previous, time.monotonic() + self._deadline_s)
        try:
            return await self._lane.run(fetch, deadline_s=self._deadline_s)
        except LaneBlocked as exc:
            raise SourceUnreachable(f"{self.describe()}: {exc}") from exc

    def describe(self) -> str:
        """``s3://bucket/key``, with the version where one is named."""
        version = self._location.version_id
        suffix = f" (version {version})" if version else ""
        return f"s3://{self._location.bucket}/{self._location.key}{suffix}"

    def warm_up(self) -> None:
        """Loads botocore and makes the client, so that the first fetch finds them. May block."""
        self._aws.client(self._kind())

    async def aclose(self) -> None:
        """Closes all connections."""
        self._aws.close()

    # --- in a thread of the lane ----------------------------------------------------------------

    def _fetch(self, previous: Validator | None, until: float) -> Fetched | NotModified:
        request: dict[str, str] = {"Bucket": self._location.bucket, "Key": self._location.key}
        if self._location.version_id is not None:
            request["VersionId"] = self._location.version_id
        if previous is not None:
            request["IfNoneMatch"] = previous.token
        try:
            # botocore follows a bucket to its region by itself, once, and remembers it.
            response = self._aws.client(self._kind()).get_object(**request)
            # The stream behind botocore's: that one waits for a whole chunk, however slow it comes.
            with response["Body"] as body:
                data = self._read(response, body, until)
        except Exception as exc:
            failure = explain(exc)
            if failure is None:
                raise
            if previous is not None and failure.status == _NOT_MODIFIED:
                return NotModified()
            # The cause is dropped: it holds the response, and its traceback the credentials.
            raise self._error(failure) from None
        etag = response.get("ETag")
        return Fetched(data, Validator(etag) if etag else None)

    def _kind(self) -> ClientKind:
        kind = client_kind(self._location, self._aws)
        return kind if self._aws.has_credentials() else replace(kind, unsigned=True)

    def _read(self, response: dict[str, Any], body: BaseHTTPResponse, until: float) -> bytes:
        coding = str(response.get("ContentEncoding") or "").lower()
        if any(word in coding for word in _COMPRESSED):
            raise SourceUnusable(f"{self.describe()} is stored with a content coding ({coding})")
        too_large = SourceTooLarge(f"{self.describe()} is larger than {self._max_bytes} bytes")
        length = response.get("ContentLength")
        if length is not None and int(length) > self._max_bytes:
            raise too_large
        data = bytearray()
        while chunk := body.read1(_CHUNK_BYTES):
            data += chunk
            if len(data) > self._max_bytes:
                raise too_large
            if time.monotonic() > until:
                raise SourceUnreachable(f"{self.describe()}: no complete answer in time")
        if length is not None and int(length) != len(data):
            raise SourceUnreachable(f"{self.describe()}: the answer broke off")
        return bytes(data)

    def _error(self, failure: AwsFailure) -> SourceError:
        message = f"{self.describe()}: {failure}"
        if failure.kind == "unreachable":
            return SourceUnreachable(message)
        if failure.kind == "no_credentials":
            return SourceDenied(message)
        if failure.kind == "misconfigured":
            return SourceUnusable(message)
        code, status = failure.code, failure.status
        if code in _BUSY_CODES or asks_for_patience(status):
            wall = self._clock.now().wall
            asked_s = retry_after_s(failure.headers.get("retry-after"), wall=wall)
            return SourceBusy(message, retry_after_s=asked_s)
        if code == "InvalidObjectState":
            return SourceUnusable(f"{message}: it is archived: restore it, or store it anew")
        if code in _DENIED_CODES or status in DENIED:
            return SourceDenied(
                f"{message} (where s3:ListBucket is not allowed, a missing key is answered so, too)"
            )
        if code in _MISSING_CODES or status in MISSING:
            return SourceMissing(message)
        if status in _REDIRECTION:
            return SourceUnusable(f"{message}: the bucket lies in another region: set AWS_REGION")
        return SourceUnusable(message)


def client_kind(location: S3Location, aws: Aws) -> ClientKind:
    """The client that reaches ``location``, signing what it sends."""
    kind = ClientKind(
        "s3", location.region, use_fips=location.fips, use_dualstack=location.dualstack
    )
    # An access point's ARN makes a host of its own, and allows no path style.
    if not location.bucket.startswith("arn:") and aws.wants_path_style():
        return replace(kind, s3=(("addressing_style", "path"),))
    return kind
