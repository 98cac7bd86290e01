"""Where each value of a payload stands in its text, and the payload's form checked on the way.

A payload is a JSON object whose values are strings, or objects of strings. It is read string by
string: json.loads would hold the interpreter, and with it every request, for a tenth of a second
where there are 100,000 keys, and would build whatever else the writer of the artifact thought of
before it could be refused.

Source: RFC 8259 sections 2, 4 and 7
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterator
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from typing import Final, NamedTuple, TypeAlias

_SEPARATOR: Final = "__"
#: What may stand between two strings of a payload. A group marks the brace, of either kind.
_SPACE: Final = r"[ \t\n\r]*"
_OPEN: Final = re.compile(rf'{_SPACE}\{{{_SPACE}(?:"|(\}}))').match
_COLON: Final = re.compile(rf'{_SPACE}:{_SPACE}(?:"|(?=(\{{)))').match
_NEXT: Final = re.compile(rf'{_SPACE}(?:,{_SPACE}"|(\}}))').match
_END: Final = re.compile(rf"{_SPACE}\Z").match


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

    def __init__(self, text: str) -> None:
        """Reads ``text``.

        Raises:
            ValueError: it is no strict JSON object of strings or of objects of strings. The error
                may quote the text.
        """
        self._namespaces: list[str | None] = []
        self._keys: list[str] = []
        self._spans = array("Q")
        self._index: tuple[_Positions, _Positions] | None = None
        end = self._scan(text, 0, namespace=None)
        if _END(text, end) is None:
            raise ValueError("there is more behind the payload")
        if "\\" in text and "\\u" in text:  # the first alone is found twenty times faster
            _refuse_half_pairs(text, self._keys, self._namespaces, self._spans)
        if not text.isascii():
            _count_bytes(text, self._spans)

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

    def _scan(self, text: str, at: int, *, namespace: str | None) -> int:
        """Reads the object that begins at ``at``; returns where it ends."""
        names: set[str] = set()
        token = _OPEN(text, at)
        while token is not None:
            if token.lastindex:  # it was the closing brace
                return token.end()
            name, at = scanstring(text, token.end())
            token = _COLON(text, at)
            if token is None or name in names:
                break
            names.add(name)
            if not token.lastindex:
                start = token.end() - 1
                _, at = scanstring(text, token.end())
                self._namespaces.append(namespace)
                self._keys.append(name)
                self._spans.extend((start, at))
            elif namespace is None:
                at = self._scan(text, token.end(), namespace=name)
            else:
                break
            token = _NEXT(text, at)
        raise ValueError("it is no payload")


def _positions(names: list[str]) -> _Positions:
    positions: _Positions = {}
    for position, name in enumerate(names):
        known = positions.setdefault(name, position)
        if isinstance(known, list):
            known.append(position)
        elif known != position:
            positions[name] = [known, position]
    return positions


def _refuse_half_pairs(
    text: str, keys: list[str], namespaces: list[str | None], spans: array[int]
) -> None:
    """An escape can make half of a surrogate pair, which no UTF-8 can carry.

    Raises:
        UnicodeEncodeError
    """
    for name in (*keys, *filter(None, set(namespaces))):
        name.encode()
    for start in spans[::2]:
        value, _ = scanstring(text, start + 1)
        value.encode()


def _count_bytes(text: str, spans: array[int]) -> None:
    """Turns offsets in characters into offsets in UTF-8."""
    characters = octets = 0
    for position, offset in enumerate(spans):
        octets += len(text[characters:offset].encode())
        characters = offset
        spans[position] = octets
