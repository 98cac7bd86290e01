"""What is held, since when it has been confirmed, and whether it may be served. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, TypeAlias

from clef_agent.artifact.model import Artifact
from clef_agent.artifact.verify import VerifiedArtifact
from clef_agent.clock import Instant
from clef_agent.decrypt.secrets import Secrets
from clef_agent.errors import (
    ArtifactExpired,
    CacheExpired,
    NotLoaded,
    Unavailable,
)
from clef_agent.sources.base import Validator

#: In just-in-time mode, how long an age artifact is served after the last success, in seconds.
JUST_IN_TIME_TRUST_S: Final = 300.0

WhyNot: TypeAlias = type[Unavailable]

#: The end of what is not held.
_NEVER_BEGAN: Final = Instant(wall=-math.inf, boot=-math.inf)


@dataclass(frozen=True, slots=True)
class Held:
    """An accepted artifact. ``secrets`` is None in just-in-time mode, which keeps no plaintext."""

    verified: VerifiedArtifact
    secrets: Secrets | None
    validator: Validator | None

    @property
    def artifact(self) -> Artifact:
        """The artifact that was proven."""
        return self.verified.artifact


class Memory:
    """The artifact held and the moment of the last success.

    ``ttl_s`` is how long a success is trusted, in seconds; 0 means just-in-time mode, where an
    age artifact is trusted for ``JUST_IN_TIME_TRUST_S``, and an envelope, whose key service is
    asked on each request, until its own expiry.
    """

    def __init__(self, ttl_s: float) -> None:
        self._ttl_s = ttl_s
        self._held: Held | None = None
        self._last_success: Instant | None = None
        self._empty_because: WhyNot = NotLoaded
        self._end = _NEVER_BEGAN

    @property
    def held(self) -> Held | None:
        """What was accepted last, unless it has been wiped since. Not yet judged by age."""
        return self._held

    @property
    def last_success(self) -> Instant | None:
        """When the source last confirmed an artifact; it survives a wipe."""
        return self._last_success

    @property
    def never_loaded(self) -> bool:
        """Whether nothing has been accepted, and nothing been wiped, since the start."""
        return self._held is None and self._empty_because is NotLoaded

    def accept(self, held: Held, at: Instant) -> None:
        """Holds an artifact that passed every check, and that the source had at ``at``."""
        self._held = held
        self._last_success = at
        self._end = self._end_of(held, at)

    def wipe(self, because: WhyNot) -> None:
        """Lets go of everything; the plaintext is zeroed when the last response has left."""
        self._held = None
        self._empty_because = because
        self._end = _NEVER_BEGAN

    def why_not(self, now: Instant) -> WhyNot | None:
        """Why nothing may be served at ``now``, or None when what is held may be."""
        end = self._end
        if now.wall < end.wall and now.boot < end.boot:  # nearly every request
            return None
        if self._held is None or self._last_success is None:
            return self._empty_because
        if self._held.artifact.has_expired(now.wall):
            return ArtifactExpired
        trust_s = self.trust_s(self._held)
        if trust_s is not None and self._last_success.age_s(now) >= trust_s:
            return CacheExpired
        return None

    def seconds_left(self, now: Instant) -> float | None:
        """Until what is held may no longer be served, or None when there is no such moment."""
        if self._held is None or self._last_success is None:
            return None
        ends = []
        trust_s = self.trust_s(self._held)
        if trust_s is not None:
            ends.append(trust_s - self._last_success.age_s(now))
        until_expiry_s = self.until_expiry_s(now)
        if until_expiry_s is not None:
            ends.append(until_expiry_s)
        return max(min(ends), 0.0) if ends else None

    def until_expiry_s(self, now: Instant) -> float | None:
        """Until ``expiresAt`` of what is held, or None where it has none."""
        if self._held is None or self._held.artifact.expires_at is None:
            return None
        return self._held.artifact.expires_at.wall - now.wall

    def trust_s(self, held: Held) -> float | None:
        """How long after a success ``held`` is served, in seconds, or None: until it expires."""
        if self._ttl_s > 0:
            return self._ttl_s
        return JUST_IN_TIME_TRUST_S if held.artifact.envelope is None else None

    def _end_of(self, held: Held, at: Instant) -> Instant:
        """The moment on each clock up to which ``held``, confirmed at ``at``, may be served."""
        trust_s = self.trust_s(held)
        if trust_s is None:
            trust_s = math.inf
        expires_at = held.artifact.expires_at
        expiry = math.inf if expires_at is None else expires_at.wall
        return Instant(wall=min(at.wall + trust_s, expiry), boot=at.boot + trust_s)
