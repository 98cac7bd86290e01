"""What happens to artifacts and to the agent, as types. Logs, metrics and OTLP listen to them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, TypeAlias

#: The words of the agent that this one replaces: dashboards know them.
StopReason: TypeAlias = Literal["signal", "error", "lambda_shutdown"]


@dataclass(frozen=True, slots=True)
class AgentStarted:
    """The first secrets can be served."""

    version: str


@dataclass(frozen=True, slots=True)
class AgentStopped:
    """The agent is about to leave, ``uptime_s`` seconds after it was assembled."""

    reason: StopReason
    uptime_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class ArtifactRefreshed:
    """A new artifact was accepted. Durations are in seconds."""

    identity: str
    environment: str
    revision: str
    key_count: int
    kms_envelope: bool
    from_disk: bool
    fetch_s: float
    decrypt_s: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class ArtifactConfirmed:
    """The source still has what is held. ``fetch_s`` is in seconds."""

    revision: str
    fetch_s: float


@dataclass(frozen=True, slots=True)
class ArtifactRevoked:
    """The source says that the artifact is revoked, and everything was wiped."""

    revoked_at: str


@dataclass(frozen=True, slots=True)
class ArtifactExpired:
    """An artifact's ``expiresAt`` has passed, and everything was wiped."""

    expires_at: str


@dataclass(frozen=True, slots=True)
class ArtifactInvalid:
    """An artifact was refused; what was served before goes on being served.

    ``digest`` is the hex SHA-256 of the artifact's bytes.
    """

    reason: str
    error: str
    hint: str
    digest: str


@dataclass(frozen=True, slots=True)
class FetchFailed:
    """The source gave no artifact."""

    error: str
    hint: str
    disk_copy_available: bool


@dataclass(frozen=True, slots=True)
class CacheExpired:
    """No success for as long as the cache is trusted, and everything was wiped."""

    cache_ttl_s: float
    disk_copy_purged: bool


@dataclass(frozen=True, slots=True)
class DiskCopyFailed:
    """The copy on disk cannot be written, read or trusted. Serving does not depend on it."""

    error: str


Event: TypeAlias = (
    AgentStarted
    | AgentStopped
    | ArtifactRefreshed
    | ArtifactConfirmed
    | ArtifactRevoked
    | ArtifactExpired
    | ArtifactInvalid
    | FetchFailed
    | CacheExpired
    | DiskCopyFailed
)
Emit: TypeAlias = Callable[[Event], None]
