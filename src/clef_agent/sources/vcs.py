"""An artifact in a repository of a version control service.

Which service it is decides which requests are made; each has a module that knows it, and does no
I/O. What they share is here: where the file lies, what its content must not be, and when a
refusal is a rate limit.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol
from urllib.parse import quote

from clef_agent.clock import Clock, SystemClock
from clef_agent.config import VcsSourceConfig
from clef_agent.errors import SourceBusy, SourceError, SourceMissing, SourceUnusable
from clef_agent.sources.base import Fetched, NotModified, SourceType, Validator
from clef_agent.sources.conversation import Conversation, Correspondent
from clef_agent.sources.status import MISSING, refusal
from clef_agent.web.address import Address, parse_url
from clef_agent.web.exchange import Answer, Precondition

OK: Final = 200
NOT_MODIFIED: Final = 304
#: Of an answer that refuses; enough for the sentence that says why.
MAX_ERROR_BYTES: Final = 4096

#: Source: https://github.com/git-lfs/git-lfs/blob/main/docs/spec.md#the-pointer
_LFS_POINTER: Final = b"version https://git-lfs.github.com/spec/"
#: A symbolic link's content is the path that it leads to, and Linux knows none longer.
_MAX_PATH_BYTES: Final = 4096
#: A larger answer is no description of a directory or a link.
_MAX_DESCRIPTION_BYTES: Final = 1024 * 1024
_RATE_LIMITED: Final = frozenset({403, 429})


@dataclass(frozen=True, slots=True)
class RepositoryFile:
    """Where the artifact lies: ``repo`` and ``path`` as segments, without any encoding.

    ``ref`` is a branch, a tag or a commit; None is the default branch.
    """

    repo: tuple[str, ...]
    path: tuple[str, ...]
    ref: str | None

    @classmethod
    def of(cls, config: VcsSourceConfig) -> RepositoryFile:
        """The file that ``config`` describes."""
        name = f"{config.environment}.age.json"
        path = (".clef", "packed", *config.identity.split("/"), *name.split("/"))
        return cls(tuple(config.repo.split("/")), path, config.ref)

    def __str__(self) -> str:
        return f"{'/'.join(self.repo)}@{self.ref or 'HEAD'}:{'/'.join(self.path)}"


def encoded(*segments: str) -> str:
    """``segments`` as a part of a URL's path: slashes between them, and none within."""
    return "/".join(quote(segment, safe="") for segment in segments)


class Host(Protocol):
    """A service that hosts repositories: knows what to ask, and what the answers mean."""

    @property
    def name(self) -> str:
        """What it is called in messages."""
        ...

    @property
    def base(self) -> Address:
        """Where its API begins."""
        ...

    def conversation(
        self, file: RepositoryFile, previous: str | None, token: str, wall: float
    ) -> Conversation:
        """One fetch of ``file``. ``previous`` is the text of its last validator.

        ``wall`` is the present time in seconds since 1970.
        """
        ...


class VcsSource:
    """One file in one repository. The token goes to the service's own origin only."""

    type: SourceType = "vcs"
    is_remote = True

    def __init__(
        self,
        file: RepositoryFile,
        host: Host,
        correspondent: Correspondent,
        clock: Clock | None = None,
    ) -> None:
        """Opens no connection and reads no file yet. ``correspondent`` holds the token."""
        self._file = file
        self._host = host
        self._correspondent = correspondent
        self._clock = clock or SystemClock()

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        """The artifact, unless its content is still what ``previous`` stands for.

        Raises:
            SourceError: one of its subclasses. No message holds the token.
        """
        return await self._correspondent.hold(partial(self._conversation, previous))

    def describe(self) -> str:
        """The service, the repository, the ref and the path."""
        return f"{self._host.name} {self._file}"

    def warm_up(self) -> None:
        """Loads the web client."""
        self._correspondent.warm_up()

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._correspondent.aclose()

    def _conversation(self, previous: Validator | None, token: str | None) -> Conversation:
        assert token is not None  # the configuration demands one
        text = previous.token if previous else None
        return self._host.conversation(self._file, text, token, self._clock.now().wall)


# --- what the services share --------------------------------------------------------------------


def base_address(configured: str | None, default: str, suffix: str = "") -> Address:
    """Where an API begins: ``configured``, its path kept, or ``default``; ``suffix`` once behind.

    Raises:
        SourceUnusable: it is no URL.
    """
    url = (configured or default).rstrip("/")
    if not url.endswith(suffix):
        url += suffix
    try:
        return parse_url(url)[0]
    except ValueError as exc:
        raise SourceUnusable(f"the API's URL has {exc}") from None


def below(base: Address, path: str, **query: str) -> Address:
    """The address of ``path`` (encoded, without a leading slash) under ``base``."""
    words = "&".join(f"{name}={quote(value, safe='')}" for name, value in query.items())
    target = f"{base.target.rstrip('/')}/{path}" + (f"?{words}" if words else "")
    return Address(base.scheme, base.host, base.port, target)


def by_etag(answer: Answer) -> Precondition | None:
    """How to ask next time whether what ``answer`` brought has changed; None without an ETag."""
    etag = answer.headers.get("etag")
    if not etag:
        return None
    return Precondition(answer.request.address.fingerprint, "if-none-match", etag)


def raw_file(answer: Answer, *, where: str, wall: float) -> Fetched | NotModified:
    """What the answer to a conditional GET of the raw file amounts to.

    Raises:
        SourceError: it brought no file.
    """
    if answer.status == NOT_MODIFIED and answer.request.is_conditional:
        return NotModified()
    if answer.status != OK:
        raise refused(answer, where=where, wall=wall)
    known = by_etag(answer)
    return Fetched(content_of(answer, where), Validator(known.as_text()) if known else None)


def content_of(answer: Answer, where: str) -> bytes:
    """The body of a 200, which is the file itself.

    Raises:
        SourceUnusable: it is what a repository keeps or a service answers in a file's place.
    """
    body = answer.body
    if body.startswith(_LFS_POINTER):
        raise SourceUnusable(f"{where} is a Git LFS pointer: keep the artifact out of Git LFS")
    start = body[:1024].lstrip()[:1]
    if start in (b"{", b"[") and any(word in body for word in (b'"type"', b'"pagelen"')):
        _refuse_description(body, where)
    elif start not in (b"{", b"[") and _is_path(body):
        raise SourceUnusable(f"{where} is a symbolic link: put the artifact itself there")
    return body


def refused(answer: Answer, *, where: str, wall: float) -> SourceError:
    """The error that an answer without the file amounts to.

    A refusal that says how many requests are left, or when to come back, is a rate limit; else the
    token is at fault.

    Source: https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api and
    https://docs.gitlab.com/administration/settings/user_and_ip_rate_limits/#response-headers
    """
    error = refusal(answer.status, answer.headers, where=where, wall=wall)
    if answer.status in _RATE_LIMITED and error.retry_after_s is None:
        asked_s = _until_reset_s(answer.headers, wall)
        if asked_s is not None:
            return SourceBusy(
                f"{where} answered {answer.status}: the rate limit is used up",
                retry_after_s=asked_s,
            )
    if answer.status in MISSING:
        return SourceMissing(
            f"{error}: no such repository, ref or file, or the token may not read the repository"
        )
    return error


def _until_reset_s(headers: Mapping[str, str], wall: float) -> float | None:
    """Seconds until requests are allowed again, where ``headers`` say that none is left."""
    for prefix in ("x-ratelimit-", "ratelimit-"):
        if headers.get(f"{prefix}remaining", "").strip() == "0":
            reset = headers.get(f"{prefix}reset", "").strip()
            if reset.isascii() and reset.isdecimal() and len(reset) < 12:  # noqa: PLR2004
                return max(0.0, int(reset) - wall)
    return None


def _refuse_description(body: bytes, where: str) -> None:
    if len(body) > _MAX_DESCRIPTION_BYTES:
        return
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return  # the artifact's own parser says what is wrong with it
    first = found[0] if isinstance(found, list) and found else None
    if isinstance(first, dict) and {"type", "path"} <= first.keys():
        raise SourceUnusable(f"{where} is a directory")
    if not isinstance(found, dict) or "ciphertext" in found or "revokedAt" in found:
        return
    if {"pagelen", "values"} <= found.keys():
        raise SourceUnusable(f"{where} is a directory")
    if found.get("type") == "symlink":
        raise SourceUnusable(f"{where} is a symbolic link: put the artifact itself there")
    if found.get("type") == "submodule":
        raise SourceUnusable(f"{where} is a submodule: put the artifact itself there")


def _is_path(body: bytes) -> bool:
    """Whether ``body`` is one line that names another file, as the blob of a link does."""
    if not 0 < len(body) <= _MAX_PATH_BYTES:
        return False
    text = body.decode("utf-8", "replace")
    return text.isprintable() and " " not in text and ("/" in text or text.endswith(".json"))
