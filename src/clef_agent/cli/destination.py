"""Where an artifact goes: standard output, a file, or S3."""

from __future__ import annotations

import os
from pathlib import Path

import typer

from clef_agent.cli.failure import Failure
from clef_agent.cli.files import replace_file


def deliver(data: bytes, output: str | None) -> None:
    """Writes ``data`` to ``output``: a file, or ``s3://BUCKET/KEY``; None is standard output.

    Raises:
        Failure: it cannot be written there.
    """
    if output is None:
        typer.echo(data, nl=False)
    elif output.lower().startswith("s3:"):
        _upload(data, output)
    else:
        replace_file(Path(output), data)


def _upload(data: bytes, output: str) -> None:
    from clef_agent.aws import Aws
    from clef_agent.config.s3_url import parse_s3_url
    from clef_agent.errors import SourceError
    from clef_agent.log import silence_libraries
    from clef_agent.sources.s3_upload import upload

    silence_libraries()
    location = parse_s3_url(output)
    if location is None:
        raise Failure("--output names no object in S3", "It is s3://BUCKET/KEY, or s3://ARN/KEY.")
    try:
        upload(data, location, Aws(os.environ))
    except SourceError as exc:
        raise Failure(
            f"the artifact was not uploaded: {exc}",
            "It takes s3:PutObject, and AWS credentials in the environment or a profile.",
        ) from None
    typer.echo(f"uploaded to {output}", err=True)
