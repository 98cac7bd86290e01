"""GitHub, its Enterprise Server, and Enterprise Cloud with data residency.

Source: https://docs.github.com/en/rest/repos/contents#get-repository-content
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from clef_agent.config import VcsSourceConfig
from clef_agent.errors import SourceBusy, SourceError
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
from clef_agent.web.exchange import Answer, Precondition, Request

_DEFAULT_API: Final = "https://api.github.com"
_HEADERS: Final = {
    # The object form has no content beyond 1 MB.
    "accept": "application/vnd.github.raw+json",
    "x-github-api-version": "2022-11-28",
}
#: A secondary limit without headers is to be waited out so long, at least.
#: Source: https://docs.github.com/en/rest/using-the-rest-api/best-practices-for-using-the-rest-api
_SECONDARY_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class GitHub:
    """Asks for the file's raw content, with the ETag of the last one.

    GitHub's ETag is another one for each token: after a rotation the same content comes once more,
    with the ETag to ask by from then on.
    """

    base: Address
    name: str = "github"

    @classmethod
    def of(cls, config: VcsSourceConfig) -> GitHub:
        """The service that ``config`` names."""
        return cls(base_address(config.api_url, _DEFAULT_API))

    def conversation(
        self, file: RepositoryFile, previous: str | None, token: str, wall: float
    ) -> Conversation:
        """See Host."""
        query = {} if file.ref is None else {"ref": file.ref}
        path = f"repos/{encoded(*file.repo)}/contents/{encoded(*file.path)}"
        answer = yield Request(
            below(self.base, path, **query),
            credentials={"authorization": as_header(f"Bearer {token}")},
            headers=_HEADERS,
            precondition=Precondition.from_text(previous) if previous else None,
            max_error_bytes=MAX_ERROR_BYTES,
        )
        try:
            return raw_file(answer, where=f"{self.base.origin} {file}", wall=wall)
        except SourceError as exc:
            if exc.retry_after_s is None and _is_secondary_limit(answer):
                raise SourceBusy(str(exc), retry_after_s=_SECONDARY_LIMIT_S) from None
            raise


def _is_secondary_limit(answer: Answer) -> bool:
    is_told = answer.status == 403 and b"secondary rate limit" in answer.body.lower()  # noqa: PLR2004
    return is_told or answer.status == 429  # noqa: PLR2004
