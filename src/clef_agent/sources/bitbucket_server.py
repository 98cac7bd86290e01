"""Bitbucket Data Center (once called Server).

Source: https://developer.atlassian.com/server/bitbucket/rest/ (repository: raw content)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from clef_agent.config import VcsSourceConfig
from clef_agent.sources.conversation import Conversation, as_header
from clef_agent.sources.vcs import (
    MAX_ERROR_BYTES,
    RepositoryFile,
    base_address,
    below,
    encoded,
    raw_file,
)
from clef_agent.web.address import Address
from clef_agent.web.exchange import Precondition, Request

_API_PATHS: Final = ("/rest/api/1.0", "/rest/api/latest")


@dataclass(frozen=True, slots=True)
class BitbucketServer:
    """Asks for the raw file, with the ETag of the last one where the server gave any."""

    base: Address
    name: str = "bitbucket-server"

    @classmethod
    def of(cls, config: VcsSourceConfig) -> BitbucketServer:
        """The service that ``config`` names."""
        configured = (config.api_url or "").rstrip("/")
        suffix = next((path for path in _API_PATHS if configured.endswith(path)), _API_PATHS[0])
        return cls(base_address(configured, "", suffix))

    def conversation(
        self, file: RepositoryFile, previous: str | None, token: str, wall: float
    ) -> Conversation:
        """See Host."""
        key, slug = file.repo
        query = {} if file.ref is None else {"at": file.ref}
        path = f"projects/{encoded(key)}/repos/{encoded(slug)}/raw/{encoded(*file.path)}"
        answer = yield Request(
            below(self.base, path, **query),
            credentials={"authorization": as_header(f"Bearer {token}")},
            precondition=Precondition.from_text(previous) if previous else None,
            max_error_bytes=MAX_ERROR_BYTES,
        )
        return raw_file(answer, where=f"{self.base.origin} {file}", wall=wall)
