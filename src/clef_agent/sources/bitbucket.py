"""Bitbucket Cloud.

Source: https://developer.atlassian.com/cloud/bitbucket/rest/api-group-source/ and
https://developer.atlassian.com/cloud/bitbucket/rest/api-group-refs/
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Generator
from dataclasses import dataclass
from typing import Final

from clef_agent.config import VcsSourceConfig
from clef_agent.errors import SourceUnusable
from clef_agent.sources.base import Fetched, NotModified, Validator
from clef_agent.sources.conversation import Conversation, as_header
from clef_agent.sources.vcs import (
    MAX_ERROR_BYTES,
    NOT_MODIFIED,
    OK,
    RepositoryFile,
    base_address,
    below,
    by_etag,
    content_of,
    encoded,
    refused,
)
from clef_agent.web.address import Address
from clef_agent.web.exchange import REDIRECTS, Answer, Precondition, Request

_DEFAULT_API: Final = "https://api.bitbucket.org"
_API_PATH: Final = "/2.0"
_COMMIT: Final = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_MISSING: Final = 404


@dataclass(frozen=True, slots=True)
class BitbucketCloud:
    """Asks for the raw file, with the ETag of the last one, which is one of its content.

    A ref with a slash cannot stand in the file's URL, and is resolved first; as long as it leads
    to the commit that it led to before, that one request is all.
    """

    base: Address
    name: str = "bitbucket"

    @classmethod
    def of(cls, config: VcsSourceConfig) -> BitbucketCloud:
        """The service that ``config`` names."""
        return cls(base_address(config.api_url, _DEFAULT_API, _API_PATH))

    def conversation(
        self, file: RepositoryFile, previous: str | None, token: str, wall: float
    ) -> Conversation:
        """See Host."""
        where = f"{self.base.origin} {file}"
        credentials = {"authorization": as_header(_authorization(token))}
        known = _Known.of(previous)
        commit = file.ref or "HEAD"
        resolved = ""
        if "/" in commit:
            commit = resolved = yield from self._resolve(file, commit, credentials, wall)
            if known is not None and known.commit == resolved:
                return NotModified()
        answer = yield Request(
            below(self.base, f"{self._repository(file)}/src/{encoded(commit, *file.path)}"),
            credentials=credentials,
            precondition=known.precondition if known else None,
            max_error_bytes=MAX_ERROR_BYTES,
            follows=False,
        )
        if answer.status == NOT_MODIFIED and answer.request.is_conditional:
            return NotModified()
        if answer.status in REDIRECTS:
            raise SourceUnusable(
                f"{where} lies in Git LFS, or its repository has moved: keep the artifact out of"
                " Git LFS, and name the repository as it is called now"
            )
        if answer.status != OK:
            raise refused(answer, where=where, wall=wall)
        data = content_of(answer, where)
        return Fetched(data, _Known(resolved, by_etag(answer)).validator())

    def _resolve(
        self, file: RepositoryFile, name: str, credentials: dict[str, str], wall: float
    ) -> Generator[Request, Answer, str]:
        """The commit that the branch, or else the tag, ``name`` leads to."""
        for kind in ("branches", "tags"):
            answer = yield Request(
                below(
                    self.base, f"{self._repository(file)}/refs/{kind}/{encoded(*name.split('/'))}"
                ),
                credentials=credentials,
                max_error_bytes=MAX_ERROR_BYTES,
                follows=False,
            )
            if answer.status == OK:
                return _target(answer, name)
            if answer.status != _MISSING:
                break
        raise refused(answer, where=f"{self.base.origin} {file}", wall=wall)

    @staticmethod
    def _repository(file: RepositoryFile) -> str:
        return f"repositories/{encoded(*file.repo)}"


@dataclass(frozen=True, slots=True)
class _Known:
    """What a validator says: the commit that a ref was resolved to, if it was, and the ETag."""

    commit: str
    precondition: Precondition | None

    @classmethod
    def of(cls, text: str | None) -> _Known | None:
        if text is None:
            return None
        commit, _, rest = text.partition(" ")
        return cls(commit, Precondition.from_text(rest))

    def validator(self) -> Validator | None:
        if not self.commit and self.precondition is None:
            return None
        return Validator(
            f"{self.commit} {self.precondition.as_text() if self.precondition else ''}"
        )


def _target(answer: Answer, name: str) -> str:
    try:
        commit = json.loads(answer.body)["target"]["hash"]
    except (ValueError, KeyError, TypeError, RecursionError):
        commit = None
    if not isinstance(commit, str) or _COMMIT.fullmatch(commit) is None:
        raise SourceUnusable(f"{answer.request.address.origin} does not say where {name} leads to")
    return commit


def _authorization(token: str) -> str:
    """An API token goes with its owner's address, ``email:token``; access tokens stand alone.

    Source: https://support.atlassian.com/bitbucket-cloud/docs/using-api-tokens/
    """
    if ":" in token:
        return "Basic " + base64.b64encode(token.encode()).decode("ascii")
    return f"Bearer {token}"
