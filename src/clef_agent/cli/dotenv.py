r"""Reads ``.env`` files: strictly, and without giving any value a meaning.

No library, because what is packed must be what is written. python-dotenv, the well-kept one,
replaces ``${NAME}`` from the environment unless told not to, keeps the last of two equal names,
and only logs a line that it cannot read: each ends in a wrong secret that nobody notices.

::

    # comment
    NAME=plain text # comment        outer blanks dropped, nothing escaped
    NAME='literal text'              nothing escaped, may span lines
    NAME="text with \n escapes"      \n \r \t \\ \" \$, may span lines
    export NAME=...                  as the shell would have it

Source: there is no specification; this is what its readers and POSIX shells agree on.
"""

from __future__ import annotations

import re

_START = re.compile(r"[ \t]*(?:export[ \t]+)?(?P<name>[A-Za-z_]\w*)[ \t]*=[ \t]*", re.ASCII)
_EMPTY = re.compile(r"[ \t]*(?:#[^\n]*)?(?:\n|\Z)")
_PLAIN = re.compile(r"[^\n]*")
_PLAIN_COMMENT = re.compile(r"(?:^|[ \t])#.*")
_QUOTED = {
    "'": re.compile(r"'(?P<text>[^']*)'"),
    '"': re.compile(r'"(?P<text>(?:[^"\\]|\\.)*)"', re.DOTALL),
}
_ESCAPE = re.compile(r"\\(.)", re.DOTALL)
_ESCAPES = {"n": "\n", "r": "\r", "t": "\t", "\\": "\\", '"': '"', "$": "$"}


class DotenvMalformed(ValueError):
    """A line that cannot be read. The message says which, and repeats nothing of a value."""


def parse_dotenv(text: str) -> dict[str, str]:
    """The variables in ``text``, in their order.

    Raises:
        DotenvMalformed: a line is none of the forms above, or a name occurs twice.
    """
    text = text.removeprefix("\ufeff").replace("\r\n", "\n")
    values: dict[str, str] = {}
    position = 0
    while position < len(text):
        empty = _EMPTY.match(text, position)
        if empty is not None:
            position = empty.end()
            continue
        start = _START.match(text, position)
        if start is None:
            raise _malformed(text, position, "is not NAME=VALUE")
        name = start["name"]
        if name in values:
            raise _malformed(text, position, f"sets {name} a second time")
        values[name], position = _value(text, start.end())
    return values


def _value(text: str, position: int) -> tuple[str, int]:
    """The value that begins at ``position``, and where the next line begins."""
    quote = text[position : position + 1]
    if quote not in _QUOTED:
        plain = _PLAIN.match(text, position)
        assert plain is not None  # it matches the empty text too
        return _PLAIN_COMMENT.sub("", plain[0]).strip(" \t"), plain.end() + 1
    quoted = _QUOTED[quote].match(text, position)
    if quoted is None:
        raise _malformed(text, position, f"opens a {quote} that nothing closes")
    rest = _EMPTY.match(text, quoted.end())
    if rest is None:
        raise _malformed(text, quoted.end(), f"goes on after the closing {quote}")
    value = quoted["text"] if quote == "'" else _unescape(quoted["text"], text, position)
    return value, rest.end()


def _unescape(value: str, text: str, position: int) -> str:
    def replace(escape: re.Match[str]) -> str:
        if escape[1] not in _ESCAPES:
            raise _malformed(
                text,
                position + 1 + escape.start(),
                "has an unknown escape; single quotes need none",
            )
        return _ESCAPES[escape[1]]

    return _ESCAPE.sub(replace, value)


def _malformed(text: str, position: int, what: str) -> DotenvMalformed:
    return DotenvMalformed(f"line {text.count(chr(10), 0, position) + 1} {what}")
