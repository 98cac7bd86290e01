"""What the collector is shown: headers that come with the secrets, and change with them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, TypeAlias

from clef_agent.log import LOGGER
from clef_agent.telemetry.collector import Collector
from clef_agent.telemetry.headers import as_header, malformed_words, parse_headers

HEADERS_NAME: Final = "CLEF_TELEMETRY_HEADERS"
TOKEN_NAME: Final = "CLEF_TELEMETRY_TOKEN"  # noqa: S105  # what it is called, not what it is

#: The value of the secret with that name, or None; raises ValueError where several have it.
Lookup: TypeAlias = Callable[[str], str | None]


class Credentials:
    """The headers for the collector: those of the newest artifact, else those of the environment.

    They outlive a wipe of the secrets: the revocation itself is to be told.
    """

    def __init__(self, collector: Collector) -> None:
        self._collector = collector
        self._has_warned = False
        self._headers: Mapping[str, str] = {}
        self._use(None)

    @property
    def headers(self) -> Mapping[str, str]:
        """By lower-case name, each character standing for one byte."""
        return self._headers

    def take(self, lookup: Lookup) -> None:
        """Takes from an artifact just accepted what belongs to the collector, and nothing else."""
        self._use(_packed(lookup))

    def _use(self, packed: Mapping[str, str] | None) -> None:
        headers = dict(self._collector.headers if packed is None else packed)
        if self._collector.basic is not None:
            headers.setdefault("authorization", self._collector.basic)
        if headers and not self._collector.is_private:
            if not self._has_warned:
                self._has_warned = True
                LOGGER.warning(
                    "telemetry goes to %s without its headers: over http whoever is on the way"
                    " could read them. Use https",
                    self._collector,
                )
            headers = {}
        self._headers = headers


def _packed(lookup: Lookup) -> dict[str, str] | None:
    """The headers that an artifact brings, or None when it has none."""
    text = _value(lookup, HEADERS_NAME)
    if text is not None:
        headers, malformed = parse_headers(text)
        if malformed:
            LOGGER.warning("%s", malformed_words(HEADERS_NAME, malformed))
        return headers
    token = _value(lookup, TOKEN_NAME)
    if token is None:
        return None
    bearer = as_header(f"Bearer {token}")
    if bearer is None:
        LOGGER.warning("%s is no single line of text, and is not used", TOKEN_NAME)
        return None
    return {"authorization": bearer}


def _value(lookup: Lookup, name: str) -> str | None:
    try:
        value = lookup(name)
    except ValueError:
        LOGGER.warning("%s stands in several namespaces, and none of them is used", name)
        return None
    return (value or "").strip() or None
