"""One request and its answer, as values: what is sent where, and where an answer leads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from clef_agent import __version__
from clef_agent.errors import SourceMisdirected
from clef_agent.web.address import Address

#: Source: https://www.rfc-editor.org/rfc/rfc9110#section-15.4
REDIRECTS = frozenset({301, 302, 303, 307, 308})


@dataclass(frozen=True, slots=True)
class Precondition:
    """A header that asks for the answer only if it changed, and the address it speaks of.

    Two addresses may use one ETag for different things, so it is sent to no other one; neither
    does it tell another origin what this agent holds.
    """

    fingerprint: str
    #: ``if-none-match`` or ``if-modified-since``.
    header: str
    #: The ETag or the date, verbatim, its bytes read as Latin-1.
    value: str

    def as_text(self) -> str:
        """This precondition as one line, for :meth:`from_text`."""
        return f"{self.fingerprint} {self.header} {self.value}"

    @classmethod
    def from_text(cls, text: str) -> Precondition | None:
        """The precondition that ``text`` was made from; None for one of another making."""
        words = text.split(" ", 2)
        return cls(*words) if len(words) == 3 else None  # noqa: PLR2004  # the three fields


@dataclass(frozen=True, slots=True)
class Request:
    """A request to ``address``.

    ``credentials`` are headers for the origin of the first address only. ``headers`` go along
    with every redirect. Of an answer that is no success, ``max_error_bytes`` are kept: services
    say there what a status leaves open. Without ``follows``, a redirect is an answer.
    """

    address: Address
    credentials: Mapping[str, str] = field(default_factory=dict, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict)
    precondition: Precondition | None = None
    method: Literal["GET", "HEAD", "POST"] = "GET"
    content: bytes = field(default=b"", repr=False)
    max_error_bytes: int = 0
    follows: bool = True

    @property
    def is_conditional(self) -> bool:
        """Whether the answer may be 304."""
        return (
            self.precondition is not None
            and self.precondition.fingerprint == self.address.fingerprint
        )

    def wire_headers(self) -> dict[str, str]:
        """All headers that are sent, but ``Host``; each character stands for one byte.

        No content coding is accepted, so that the bytes counted are the bytes kept.
        """
        headers = {
            "user-agent": f"clef-agent/{__version__}",
            "accept": "*/*",
            "accept-encoding": "identity",
            **self.headers,
            **self.credentials,
        }
        if self.precondition is not None and self.is_conditional:
            headers[self.precondition.header] = self.precondition.value
        return headers

    def following(self, answer: Answer) -> Request | None:
        """The request that a redirect asks for, or None where ``answer`` is not one.

        A POST is never repeated elsewhere.

        Credentials are dropped for good when a redirect leaves their origin: on the way back,
        another origin would have chosen what they are used for.

        Raises:
            SourceMisdirected: there is no location, or it must not be followed.
        """
        if answer.status not in REDIRECTS or self.method == "POST" or not self.follows:
            return None
        location = answer.headers.get("location")
        if location is None:
            raise SourceMisdirected(f"{self.address.origin} redirects, but does not say where to")
        address = self.address.redirected(location)
        if address.origin == self.address.origin:
            return replace(self, address=address)
        return replace(self, address=address, credentials={})


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back for ``request``, the last one if there were redirects."""

    request: Request
    status: int
    #: Names in lower case; the first of several headers of one name; bytes read as Latin-1.
    headers: Mapping[str, str] = field(repr=False)
    #: Complete for the status 200; else its first bytes, as many as the request keeps.
    body: bytes = field(default=b"", repr=False)
