"""What every source promises."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, Protocol, TypeAlias

SourceType: TypeAlias = Literal["file", "http", "s3", "vcs"]

#: No outbound call may last longer, from its first byte to its last, in seconds.
FETCH_DEADLINE_S = 15.0

#: No source may hand out more, in bytes; whatever is larger is not read to its end.
MAX_FETCH_BYTES = 32 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Validator:
    """What a source recognises an artifact by: an ETag, a blob id, or a file's stat, as text.

    Opaque to everybody but the source that made it.
    """

    token: str


@dataclass(frozen=True, slots=True)
class Fetched:
    """An artifact's bytes, and how to ask whether they have changed (None: no way to ask)."""

    data: bytes = field(repr=False)
    validator: Validator | None


@dataclass(frozen=True, slots=True)
class NotModified:
    """The source still has what the validator stands for."""


class Source(Protocol):
    """One place that holds one artifact."""

    #: What telemetry calls it.
    type: SourceType
    #: Whether the artifact may be kept on disk for the time when the source cannot be reached.
    is_remote: bool

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        """The artifact, unless it is still the one that ``previous`` stands for.

        Without ``previous`` the answer is never :class:`NotModified`.

        Raises:
            SourceError: one of its subclasses.
        """
        ...

    def describe(self) -> str:
        """Where the artifact lies, safe to log: no userinfo, no query."""
        ...

    def warm_up(self) -> None:
        """Loads what a fetch needs, and asks nobody. Called beside the event loop; may block.

        Raises:
            Exception: whatever keeps it from loading; a fetch meets it again, and says so.
        """
        ...

    async def aclose(self) -> None:
        """Lets go of connections."""
        ...
