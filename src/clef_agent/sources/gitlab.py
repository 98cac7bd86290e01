"""GitLab, on gitlab.com or of one's own, under a path too.

Source: https://docs.gitlab.com/api/repository_files/ and
https://docs.gitlab.com/security/tokens/#token-prefixes
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from clef_agent.config import VcsSourceConfig
from clef_agent.sources.base import Fetched, NotModified, Validator
from clef_agent.sources.conversation import Conversation, as_header
from clef_agent.sources.vcs import (
    MAX_ERROR_BYTES,
    OK,
    RepositoryFile,
    base_address,
    below,
    content_of,
    encoded,
    refused,
)
from clef_agent.web.address import Address
from clef_agent.web.exchange import Request

_DEFAULT_API: Final = "https://gitlab.com"
_API_PATH: Final = "/api/v4"
_BLOB_ID: Final = "x-gitlab-blob-id"
_NO_HEAD: Final = frozenset({405, 501})
#: What an OAuth application gets has no prefix.
_OAUTH_TOKEN: Final = re.compile(r"[0-9a-f]{64}")
_JOB_TOKEN_PREFIX: Final = "glcbt-"  # noqa: S105  # a prefix


@dataclass(frozen=True, slots=True)
class GitLab:
    """Asks for the blob's id by HEAD, and for the raw content when it is another one.

    GitLab forbids caching of raw files, so an ETag is not to be relied upon; the blob id is the
    hash of the content, and stays through commits elsewhere.
    """

    base: Address
    name: str = "gitlab"

    @classmethod
    def of(cls, config: VcsSourceConfig) -> GitLab:
        """The service that ``config`` names."""
        return cls(base_address(config.api_url, _DEFAULT_API, _API_PATH))

    def conversation(
        self, file: RepositoryFile, previous: str | None, token: str, wall: float
    ) -> Conversation:
        """See Host."""
        path = encoded("/".join(file.path))
        address = below(
            self.base,
            f"projects/{encoded('/'.join(file.repo))}/repository/files/{path}/raw",
            ref=file.ref or "HEAD",
        )
        where = f"{self.base.origin} {file}"
        credentials = _credentials(token)
        # A job token may GET raw files, and nothing else.
        if previous is not None and "job-token" not in credentials:
            head = yield Request(address, credentials=credentials, method="HEAD")
            if head.status == OK and head.headers.get(_BLOB_ID) == previous:
                return NotModified()
            # A gateway in between may know no HEAD; the file can be had all the same.
            if head.status != OK and head.status not in _NO_HEAD:
                raise refused(head, where=where, wall=wall)
        answer = yield Request(address, credentials=credentials, max_error_bytes=MAX_ERROR_BYTES)
        if answer.status != OK:
            raise refused(answer, where=where, wall=wall)
        blob_id = answer.headers.get(_BLOB_ID)
        return Fetched(content_of(answer, where), Validator(blob_id) if blob_id else None)


def _credentials(token: str) -> dict[str, str]:
    """The header for the kind of token that ``token`` is, by how it is written."""
    if token.startswith(_JOB_TOKEN_PREFIX):
        return {"job-token": as_header(token)}
    if _OAUTH_TOKEN.fullmatch(token):
        return {"authorization": f"Bearer {token}"}
    return {"private-token": as_header(token)}
