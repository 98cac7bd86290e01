"""Puts an artifact into S3, where :mod:`clef_agent.sources.s3` finds it."""

from __future__ import annotations

from clef_agent.aws import Aws, explain
from clef_agent.config import S3Location
from clef_agent.errors import SourceDenied, SourceError, SourceUnreachable, SourceUnusable
from clef_agent.sources.s3 import client_kind
from clef_agent.sources.status import DENIED


def upload(data: bytes, location: S3Location, aws: Aws) -> None:
    """Makes ``data`` the object at ``location``. Blocks.

    Raises:
        SourceError: it is not there now, or nobody knows whether it is.
    """
    where = f"s3://{location.bucket}/{location.key}"
    try:
        aws.client(client_kind(location, aws)).put_object(
            Bucket=location.bucket,
            Key=location.key,
            Body=data,
            ContentType="application/json",
        )
    except Exception as exc:
        failure = explain(exc)
        if failure is None:
            raise
        errors: dict[str, type[SourceError]] = {
            "unreachable": SourceUnreachable,
            "no_credentials": SourceDenied,
            "answered": SourceDenied if failure.status in DENIED else SourceUnusable,
        }
        raise errors.get(failure.kind, SourceUnusable)(f"{where}: {failure}") from None
