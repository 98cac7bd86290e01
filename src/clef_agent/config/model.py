"""What the agent can be asked to do, as frozen types, and the names of all variables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from clef_agent.config.s3_url import S3Location

if TYPE_CHECKING:
    from clef_agent.keys import VerifyKey

ReadFile: TypeAlias = Callable[[str], bytes]
VcsProvider: TypeAlias = Literal["github", "gitlab", "bitbucket", "bitbucket-server"]

PREFIX = "CLEF_AGENT_"
DEFAULT_PORT = 7779
DEFAULT_TTL_S = 300

#: Every variable, in the order of the README's table.
VARIABLES = (
    "CLEF_AGENT_SOURCE",
    "CLEF_AGENT_SOURCE_TOKEN",
    "CLEF_AGENT_SOURCE_TOKEN_FILE",
    "CLEF_AGENT_VCS_PROVIDER",
    "CLEF_AGENT_VCS_REPO",
    "CLEF_AGENT_VCS_TOKEN",
    "CLEF_AGENT_VCS_TOKEN_FILE",
    "CLEF_AGENT_VCS_IDENTITY",
    "CLEF_AGENT_VCS_ENVIRONMENT",
    "CLEF_AGENT_VCS_REF",
    "CLEF_AGENT_VCS_API_URL",
    "CLEF_AGENT_AGE_KEY",
    "CLEF_AGENT_AGE_KEY_FILE",
    "CLEF_AGENT_PORT",
    "CLEF_AGENT_TOKEN",
    "CLEF_AGENT_TOKEN_FILE",
    "CLEF_AGENT_ID",
    "CLEF_AGENT_CACHE_TTL",
    "CLEF_AGENT_POLL_INTERVAL",
    "CLEF_AGENT_CACHE_PATH",
    "CLEF_AGENT_VERIFY_KEY",
    "CLEF_AGENT_EXPECT_IDENTITY",
    "CLEF_AGENT_EXPECT_ENVIRONMENT",
    "CLEF_AGENT_KMS_ENDPOINT",
    "CLEF_AGENT_ROLLBACK_PROTECTION",
    "CLEF_AGENT_TELEMETRY_URL",
    "CLEF_AGENT_SOCKET",
    "CLEF_AGENT_LOG_FORMAT",
    "CLEF_AGENT_LOG_LEVEL",
)


@dataclass(frozen=True, slots=True, repr=False)
class Credential:
    """A token, either given (``value``) or in a file that is read anew at each use (``path``)."""

    value: str | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True, repr=False)
class FileSourceConfig:
    """An artifact in a file."""

    path: str


@dataclass(frozen=True, slots=True, repr=False)
class HttpSourceConfig:
    """An artifact behind an http or https URL; the URL may hold userinfo or a signed query."""

    url: str
    token: Credential | None = None


@dataclass(frozen=True, slots=True, repr=False)
class S3SourceConfig:
    """An artifact in S3: the URL as it was given, and what it names."""

    url: str
    location: S3Location


@dataclass(frozen=True, slots=True, repr=False)
class VcsSourceConfig:
    """An artifact in a repository of a version control service."""

    provider: VcsProvider
    repo: str
    token: Credential
    identity: str
    environment: str
    ref: str | None = None
    api_url: str | None = None


SourceConfig: TypeAlias = FileSourceConfig | HttpSourceConfig | S3SourceConfig | VcsSourceConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """What the agent was asked to do. Times are in seconds.

    No free text is in its ``repr``: a secret may stand in any variable by mistake.
    """

    source: SourceConfig
    age_key: str | None = field(default=None, repr=False)
    age_key_file: str | None = field(default=None, repr=False)
    port: int = DEFAULT_PORT
    token: str | None = field(default=None, repr=False)
    token_file: str | None = field(default=None, repr=False)
    agent_id: str | None = field(default=None, repr=False)
    cache_ttl_s: int = DEFAULT_TTL_S
    poll_interval_s: int | None = None
    cache_path: str | None = field(default=None, repr=False)
    verify_key: VerifyKey | None = field(default=None, repr=False)
    expect_identity: str | None = field(default=None, repr=False)
    expect_environment: str | None = field(default=None, repr=False)
    kms_endpoint: str | None = field(default=None, repr=False)
    rollback_protection: bool = False
    telemetry_url: str | None = field(default=None, repr=False)
    socket: str | None = field(default=None, repr=False)
    log_format: str = "text"
    log_level: str = "info"
    warnings: tuple[str, ...] = ()

    @property
    def just_in_time(self) -> bool:
        """Whether each request decrypts anew (a cache TTL of 0)."""
        return self.cache_ttl_s == 0
