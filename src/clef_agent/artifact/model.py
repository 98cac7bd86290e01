"""The artifact as types: what was parsed, what was proven, and moments in RFC 3339.

Source: the packed artifact format, version 1, of clef.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime

FORMAT_VERSION = 1
#: The largest artifact that is read, in bytes.
MAX_ARTIFACT_BYTES = 32 * 1024 * 1024

_RFC3339 = re.compile(
    r"(\d{4}-\d{2}-\d{2})(?:[Tt ](\d{2}:\d{2}:\d{2})(\.\d+)?([Zz]|[+-]\d{2}:[0-5]\d))?", re.ASCII
)


class NotAMoment(ValueError):
    """Text that is no RFC 3339 date or date-time."""


@dataclass(frozen=True, slots=True)
class Moment:
    """A point in time.

    ``text`` is as it stands in the artifact and is signed; ``wall`` is in seconds since 1970 UTC,
    and the only one that is compared.
    """

    text: str
    wall: float

    @classmethod
    def parse(cls, text: str) -> Moment:
        """An RFC 3339 date-time with a zone; a date alone is midnight UTC.

        Raises:
            NotAMoment: anything else, and days that no calendar has.

        Source: RFC 3339 section 5.6
        """
        match = _RFC3339.fullmatch(text)
        if match is None:
            raise NotAMoment("not an RFC 3339 date with a zone")
        date, time_of_day, fraction, zone = match.groups()
        try:
            if time_of_day is None:
                moment = datetime.fromisoformat(date).replace(tzinfo=UTC)
            else:
                # A leap second is the moment that follows; datetime knows no 60th second.
                leap = 1 if time_of_day.endswith(":60") else 0
                plain = time_of_day[:-2] + "59" if leap else time_of_day
                offset = "+00:00" if zone in "Zz" else zone
                moment = datetime.fromisoformat(f"{date}T{plain}{offset}")
                seconds = moment.timestamp() + (leap or float(fraction or 0))
                return cls(text, seconds)
            return cls(text, moment.timestamp())
        except (ValueError, OverflowError):
            raise NotAMoment("not a moment that the calendar has") from None


@dataclass(frozen=True, slots=True)
class Envelope:
    """How the data key is wrapped. All base64 fields are kept as text, as they are signed."""

    provider: str
    key_id: str
    wrapped_key: str
    algorithm: str
    iv: str
    auth_tag: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Artifact:
    """A parsed artifact. Nothing in it has been proven yet.

    ``ciphertext`` is the base64 text, not the decoded bytes; ``ciphertext_hash`` is the hex
    SHA-256 of that text. ``digest`` is the hex SHA-256 of the artifact's own bytes: two fetches
    are the same artifact if, and only if, it is equal.
    """

    identity: str
    environment: str
    packed_at: Moment
    revision: str
    ciphertext_hash: str
    ciphertext: str = field(repr=False)
    expires_at: Moment | None = None
    signature: str | None = field(default=None, repr=False)
    envelope: Envelope | None = field(default=None, repr=False)
    digest: str

    def has_expired(self, wall: float) -> bool:
        """Whether ``expiresAt`` has come at ``wall`` (seconds since 1970 UTC)."""
        return self.expires_at is not None and wall >= self.expires_at.wall


@dataclass(frozen=True, slots=True)
class Expectation:
    """Whom an artifact must be for; None where anybody's will do."""

    identity: str | None = None
    environment: str | None = None

    def allows(self, identity: object, environment: object) -> bool:
        """Whether both are as expected; an absent one (None) contradicts nothing."""
        return all(
            expected is None or found is None or found == expected
            for expected, found in (
                (self.identity, identity),
                (self.environment, environment),
            )
        )


@dataclass(frozen=True, slots=True)
class RollbackMark:
    """The newest ``packedAt`` ever accepted, in seconds since 1970 UTC.

    After a revocation, ``revoked``, only a strictly newer artifact may follow: the revoked one
    has that very ``packedAt``, and must not come back.
    """

    packed_at: float
    revoked: bool = False


def newest(*marks: RollbackMark | None) -> RollbackMark | None:
    """The mark that allows least; None where all are."""
    known = [mark for mark in marks if mark is not None]
    return max(known, key=lambda mark: (mark.packed_at, mark.revoked), default=None)
