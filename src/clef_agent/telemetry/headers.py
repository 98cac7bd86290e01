"""Headers as OpenTelemetry writes them into one line of text: ``k=v,k=v``, values percent-encoded.

Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
"""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

#: Source: https://www.rfc-editor.org/rfc/rfc9110#section-5.6.2
_TOKEN: Final = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
#: These say where a message ends and what is in it. Whoever writes the artifact has no say there.
_FRAMING: Final = frozenset(
    (
        "connection",
        "content-encoding",
        "content-length",
        "content-type",
        "expect",
        "host",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
    )
)


def parse_headers(text: str) -> tuple[dict[str, str], int]:
    """The headers in ``text`` by lower-case name, and how many entries are malformed, and left out.

    Each character of a value stands for one byte.
    """
    headers: dict[str, str] = {}
    malformed = 0
    for entry in filter(str.strip, text.split(",")):
        name, equals, encoded = entry.partition("=")
        name, value = name.strip().lower(), _decoded(encoded)
        if not equals or not _TOKEN.fullmatch(name) or name in _FRAMING or value is None:
            malformed += 1
        else:
            headers[name] = value
    return headers, malformed


def malformed_words(name: str, malformed: int) -> str:
    """A warning about the variable or secret ``name``, without anything of its value."""
    return (
        f"{name}: {malformed} of its entries, to be NAME=VALUE with the value percent-encoded, "
        f"cannot be used as a header, and {'is' if malformed == 1 else 'are'} left out"
    )


def as_header(value: str) -> str | None:
    """``value`` as a header carries it, each character for one byte of UTF-8.

    None where it is no single line: a line break would be another header, or the end of them.
    """
    return value.encode().decode("latin-1") if value.isprintable() else None


def _decoded(encoded: str) -> str | None:
    try:
        return as_header(unquote(encoded, errors="strict").strip())
    except UnicodeDecodeError:
        return None
