"""A URL taken apart once: where a request goes, what is asked there, and what may be shown."""

from __future__ import annotations

import base64
import hashlib
import re
import string
from dataclasses import dataclass, field
from urllib.parse import quote, unquote, urljoin, urlsplit

from clef_agent.errors import SourceMisdirected

_URL = re.compile(r"(https?)://([^/?#]*)([^#]*)", re.IGNORECASE)
_HAS_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*:", re.IGNORECASE)
_DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """One place on the web. ``str()`` of it is safe to log: no userinfo, no query."""

    scheme: str
    #: Lower case, an IPv6 address without its brackets.
    host: str
    port: int
    #: Path and query as they are sent, in visible ASCII. A signed query is a credential.
    target: str = field(repr=False)

    @property
    def origin(self) -> str:
        """Scheme, host, and the port where it is not the scheme's own.

        Source: https://www.rfc-editor.org/rfc/rfc9110#section-4.3.1
        """
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _DEFAULT_PORTS[self.scheme] else f":{self.port}"
        return f"{self.scheme}://{host}{port}"

    @property
    def fingerprint(self) -> str:
        """A word for this address, query included, that does not give the query away."""
        return hashlib.sha256((self.origin + self.target).encode()).hexdigest()

    def __str__(self) -> str:
        return self.origin + self.target.partition("?")[0]

    def redirected(self, location: str) -> Address:
        """Where ``location``, the header's bytes read as Latin-1, leads from here.

        Raises:
            SourceMisdirected: nowhere, or to a place that must not be followed: over http to
                another origin, whoever is on the way could choose the artifact.
        """
        try:
            target = self._resolved(location)
        except ValueError:
            # The text stays out of the message: a signed query may stand in it.
            raise SourceMisdirected(
                f"{self.origin} redirects to something that is no plain http or https URL"
            ) from None
        if target.origin != self.origin and target.scheme != "https":
            raise SourceMisdirected(
                f"{self.origin} redirects to {target.origin}, which is neither https nor the"
                " same origin"
            )
        return target

    def _resolved(self, location: str) -> Address:
        if not location or any(char < " " or char == "\x7f" for char in location):
            raise ValueError("no location")
        url = _visible(location.encode("latin-1"))
        # Joining is for relative references only: it rewrites what it is given.
        if not _HAS_SCHEME.match(url):
            url = urljoin(self.origin + self.target, url)
        address, userinfo = parse_url(url)
        if userinfo is not None:
            raise ValueError("credentials from elsewhere")
        return address


@dataclass(frozen=True, slots=True)
class Userinfo:
    """The name and the password of a URL, percent-decoded."""

    name: str = field(repr=False)
    password: str = field(repr=False)

    def basic(self) -> str:
        """The ``Authorization`` header's value.

        Source: https://www.rfc-editor.org/rfc/rfc7617#section-2
        """
        pair = f"{self.name}:{self.password}".encode()
        return "Basic " + base64.b64encode(pair).decode("ascii")


def parse_url(url: str) -> tuple[Address, Userinfo | None]:
    """The parts of an http or https URL; its fragment is dropped.

    Path and query stay as they are, byte for byte, because a signature may cover them; only what
    cannot stand in a request line (space, controls, non-ASCII) is percent-encoded as UTF-8.

    Raises:
        ValueError: it is none. The message holds nothing of it.
    """
    match = _URL.match(url)
    if match is None:
        raise ValueError("not an http or https URL")
    scheme, authority, target = match[1].lower(), match[2], match[3]
    try:
        parts = urlsplit(f"{scheme}://{authority}")
        host, port = parts.hostname, parts.port
    except ValueError:
        raise ValueError("a malformed host or port") from None
    if not host or port == 0:
        raise ValueError("no host, or the port 0")
    userinfo = None
    if parts.username is not None:
        userinfo = Userinfo(unquote(parts.username), unquote(parts.password or ""))
    if not target.startswith("/"):
        target = "/" + target
    return (
        Address(scheme, host, port or _DEFAULT_PORTS[scheme], _visible(target.encode())),
        userinfo,
    )


def _visible(target: bytes) -> str:
    """``target`` with everything encoded that is not visible ASCII, and nothing else."""
    return quote(target, safe=string.punctuation)
