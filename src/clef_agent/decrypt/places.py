"""Where each value of a payload stands in its bytes, and the payload's form checked on the way.

A payload is a JSON object whose values are strings, or objects of strings. It is read in place:
json.loads would leave a copy of each value behind in freed memory, would hold the interpreter, and
with it every request, for a tenth of a second where there are 100,000 keys, and would build
whatever else the writer of the artifact thought of before it could be refused.

Source: RFC 8259 sections 2, 4, 7 and 8.2; RFC 3629 section 4 (UTF-8)
"""

from __future__ import annotations

import json
import re
from array import array
from collections.abc import Iterator
from typing import Final, NamedTuple, TypeAlias

_SEPARATOR: Final = "__"

# --- the grammar ------------------------------------------------------------------------------

#: What stands between tokens.
_SPACE: Final = rb"[ \t\n\r]*"
#: Characters of a string that mean themselves and are one byte each.
_PLAIN: Final = rb"[ !#-\[\]-\x7f]*"
#: One character of any other kind: an escape, where surrogates come in pairs only, because no UTF-8
#: can carry half of one; or a character of two to four bytes.
_SPECIAL: Final = (
    rb'(?:\\(?:["\\/bfnrt]|u(?:[0-9A-CEFa-cef][0-9A-Fa-f]{3}|[Dd](?:[0-7][0-9A-Fa-f]{2}'
    rb"|[89ABab][0-9A-Fa-f]{2}\\u[Dd][C-Fc-f][0-9A-Fa-f]{2})))"
    rb"|[\xc2-\xdf][\x80-\xbf]"
    rb"|\xe0[\xa0-\xbf][\x80-\xbf]|\xed[\x80-\x9f][\x80-\xbf]|[\xe1-\xec\xee\xef][\x80-\xbf]{2}"
    rb"|\xf0[\x90-\xbf][\x80-\xbf]{2}|[\xf1-\xf3][\x80-\xbf]{3}|\xf4[\x80-\x8f][\x80-\xbf]{2})"
)
#: A piece of a string. Bounded, because a pattern remembers each turn of a loop: 32 MiB of escapes
#: would cost gigabytes.
_PIECE: Final = _PLAIN + rb"(?:" + _SPECIAL + _PLAIN + rb"){0,200}"
#: Nearly every member, in one step: its name, and its value (2) with a comma or the end (3), or
#: the beginning of an object, or an empty one (4).
_PLAIN_MEMBER: Final = re.compile(
    b'%b"(%b)"%b:%b(?:("%b")%b(?:,|(\\}))|\\{%b(\\})?)'
    % (_SPACE, _PLAIN, _SPACE, _SPACE, _PLAIN, _SPACE, _SPACE)
).match
_VALUE_GOES_ON, _VALUE_IS_LAST, _EMPTY_OBJECT = 2, 3, 4
# The same in single steps, for what has any other character.
_QUOTE: Final = re.compile(_SPACE + rb'"').match
_REST: Final = re.compile(_PIECE + rb'(")?').match
_COLON: Final = re.compile(_SPACE + rb":" + _SPACE + rb"(?:\"|(\{)" + _SPACE + rb"(\})?)").match
_OPEN: Final = re.compile(_SPACE + rb"\{" + _SPACE + rb"(\})?").match
_NEXT: Final = re.compile(_SPACE + rb"(?:,|(\}))").match
_END: Final = re.compile(_SPACE + rb"\Z").match

#: As many entries of one name are told apart; who asked needs an example, and no list of thousands.
MAX_CANDIDATES: Final = 100
#: Where the entries of a name stand; a list only where there are several.
_Positions: TypeAlias = "dict[str, int | list[int]]"


class Entry(NamedTuple):
    """One value: ``namespace`` is None at the top level; its JSON string, quotes included, is
    the payload's bytes from ``start`` to ``end``.
    """

    namespace: str | None
    key: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """``ns__KEY``, or the bare key of a value at the top level."""
        return full_name(self.namespace, self.key)

    @property
    def unambiguous_name(self) -> str:
        """``ns/KEY``: for the rare pair of entries whose names are equal."""
        return self.key if self.namespace is None else f"{self.namespace}/{self.key}"


def full_name(namespace: str | None, key: str) -> str:
    """``ns__KEY``, or the bare ``key`` of a value at the top level."""
    return key if namespace is None else namespace + _SEPARATOR + key


class Places:
    """The entries of one payload, in its order.

    Columns and no list of entries: 100,000 objects more would cost each run of the garbage
    collector, wherever it happens, tens of milliseconds.
    """

    __slots__ = ("_index", "_keys", "_namespaces", "_spans")

    def __init__(self, text: bytes | bytearray) -> None:
        """Reads ``text``; no value in it is copied.

        Raises:
            ValueError: it is no strict JSON object of strings or of objects of strings. The error
                quotes nothing.
        """
        self._namespaces: list[str | None] = []
        self._keys: list[str] = []
        self._spans = array("Q")
        self._index: tuple[_Positions, _Positions] | None = None
        opened = _OPEN(text)
        if opened is None:
            raise ValueError("it is no object")
        end = opened.end() if opened.lastindex else self._scan(text, opened.end(), namespace=None)
        if _END(text, end) is None:
            raise ValueError("there is more behind the payload")

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[Entry]:
        return map(self.__getitem__, range(len(self)))

    def __getitem__(self, position: int) -> Entry:
        start, end = self._spans[2 * position], self._spans[2 * position + 1]
        return Entry(self._namespaces[position], self._keys[position], start, end)

    def names(self) -> list[str]:
        """The name of each entry."""
        return [*map(full_name, self._namespaces, self._keys)]

    def named(self, name: str) -> list[Entry]:
        """The entries whose full name is ``name``; no more than ``MAX_CANDIDATES``."""
        return self._at(self.index()[0].get(name))

    def with_key(self, key: str) -> list[Entry]:
        """The entries whose bare key is ``key``; no more than ``MAX_CANDIDATES``."""
        return self._at(self.index()[1].get(key))

    def _at(self, positions: int | list[int] | None) -> list[Entry]:
        if positions is None:
            return []
        if isinstance(positions, int):
            return [self[positions]]
        return [self[position] for position in positions[:MAX_CANDIDATES]]

    def index(self) -> tuple[_Positions, _Positions]:
        """The positions of the entries by full name, and by bare key; made at the first call."""
        if self._index is None:
            self._index = _positions(self.names()), _positions(self._keys)
        return self._index

    def _scan(self, text: bytes | bytearray, at: int, *, namespace: str | None) -> int:
        """Reads members from ``at`` to the end of their object; returns where that is."""
        seen: set[str] = set()
        members = 0
        is_last = False
        while not is_last:
            values: list[bytes] = []
            # Once for each key, and there may be 100,000 of them: nothing here may be slow.
            while (member := _PLAIN_MEMBER(text, at)) and member.lastindex == _VALUE_GOES_ON:
                values.append(member[1])
                self._spans.extend(member.span(2))
                at = member.end()
            if member is None:
                name, span, at, kind = _any_member(text, at)
            else:
                name, span, at, kind = member[1], member.span(2), member.end(), member.lastindex
            is_value = kind in (_VALUE_GOES_ON, _VALUE_IS_LAST)
            is_last = kind == _VALUE_IS_LAST
            if is_value:
                values.append(name)
                self._spans.extend(span)
            self._name(values, namespace, seen)
            members += len(values)
            if not is_value:
                if namespace is not None:
                    raise ValueError("an object within a namespace")
                seen.add(inner := _text_of(name))
                members += 1
                if kind != _EMPTY_OBJECT:
                    at = self._scan(text, at, namespace=inner)
                at, is_last = _after(text, at)
        if len(seen) < members:
            raise ValueError("a name occurs twice")
        return at

    def _name(self, names: list[bytes], namespace: str | None, seen: set[str]) -> None:
        """Notes the ``names`` of values whose spans are known already."""
        keys = [_text_of(name) if b"\\" in name else name.decode() for name in names]
        seen.update(keys)
        self._keys += keys
        self._namespaces += [namespace] * len(keys)


def _any_member(text: bytes | bytearray, at: int) -> tuple[bytes, tuple[int, int], int, int | None]:
    """As a match of ``_PLAIN_MEMBER``: name, span of the value, where to go on, and the kind."""
    quote = _QUOTE(text, at)
    if quote is None:
        raise ValueError("no name where one should be")
    begin, end = quote.end(), _string_end(text, quote.end())
    name = bytes(memoryview(text)[begin : end - 1])
    colon = _COLON(text, end)
    if colon is None:
        raise ValueError("no value where one should be")
    if colon[1]:
        return name, (-1, -1), colon.end(), _EMPTY_OBJECT if colon[2] else None
    start, end = colon.end() - 1, _string_end(text, colon.end())
    at, is_last = _after(text, end)
    return name, (start, end), at, _VALUE_IS_LAST if is_last else _VALUE_GOES_ON


def _string_end(text: bytes | bytearray, at: int) -> int:
    """Where the string ends whose first character is at ``at``; the quote belongs to it."""
    while True:
        rest = _REST(text, at)
        if rest is None or (rest.end() == at):
            raise ValueError("a string that does not end, or is no UTF-8")
        at = rest.end()
        if rest.lastindex:
            return at


def _after(text: bytes | bytearray, at: int) -> tuple[int, bool]:
    """Where to go on behind a member that ends at ``at``, and whether it was the last."""
    token = _NEXT(text, at)
    if token is None:
        raise ValueError("neither another member nor an end")
    return token.end(), bool(token.lastindex)


def _text_of(name: bytes) -> str:
    """The name between the quotes; names are no secrets."""
    text: str = json.loads(b'"' + name + b'"')
    return text


def _positions(names: list[str]) -> _Positions:
    positions: _Positions = {}
    for position, name in enumerate(names):
        known = positions.setdefault(name, position)
        if isinstance(known, list):
            known.append(position)
        elif known != position:
            positions[name] = [known, position]
    return positions
