"""Plaintext, and the only type that holds it.

All values lie JSON-encoded in one mutable buffer; what else there is are offsets into it. The
buffer is zeroed when the last user lets go of it: the holder, and each response on its way.
"""

from __future__ import annotations

import json
import re
from array import array
from collections import Counter
from json.decoder import scanstring  # type: ignore[attr-defined]  # typeshed leaves it out
from json.encoder import encode_basestring
from typing import Any, Final, NamedTuple

from clef_agent.errors import PayloadInvalid

_SEPARATOR: Final = "__"
#: What may stand between two strings of a payload. A group marks the brace, of either kind.
_SPACE: Final = r"[ \t\n\r]*"
_OPEN: Final = re.compile(rf'{_SPACE}\{{{_SPACE}(?:"|(\}}))').match
_COLON: Final = re.compile(rf'{_SPACE}:{_SPACE}(?:"|(?=(\{{)))').match
_NEXT: Final = re.compile(rf'{_SPACE}(?:,{_SPACE}"|(\}}))').match
_END: Final = re.compile(rf"{_SPACE}\Z").match


class Entry(NamedTuple):
    """Where one value stands: ``namespace`` is None for a value at the top level."""

    namespace: str | None
    key: str
    start: int
    end: int

    @property
    def name(self) -> str:
        """``ns__KEY``, or the bare key of a value at the top level."""
        return self.key if self.namespace is None else self.namespace + _SEPARATOR + self.key

    @property
    def unambiguous_name(self) -> str:
        """``ns/KEY``: for the rare pair of entries whose names are equal."""
        return self.key if self.namespace is None else f"{self.namespace}/{self.key}"


class Plaintext(bytearray):
    """A buffer that is zeroed when the last reference to it goes.

    Each memoryview of it, and each slice of one, is such a reference. A transport that could
    write a part only keeps a slice and drops the view it was given: whoever zeroed when that view
    goes would send zeros to a slow reader.
    """

    def __del__(self) -> None:
        zero(self)


class NamesCollide(ValueError):
    """Two entries flatten to one name; ``candidates`` tell them apart."""

    def __init__(self, candidates: list[str]) -> None:
        self.candidates = candidates
        super().__init__("several secrets have that name")


class Secrets:
    """One decrypted payload, ready to be served.

    ``json`` is the payload as packed, ``{namespace: {key: value}}`` or ``{key: value}``, as UTF-8
    JSON. The buffer behind it is zeroed as soon as nobody holds that view, nor a slice of it, any
    more; so a response in flight keeps what it promised, and no longer.
    """

    __slots__ = ("__weakref__", "_flat", "_keys", "_namespaces", "_positions", "_spans", "json")

    def __init__(self, payload: dict[str, str | dict[str, str]]) -> None:
        # Columns and no list of entries: 100,000 objects more would cost each run of the garbage
        # collector, wherever it happens, tens of milliseconds.
        self._namespaces: list[str | None] = []
        self._keys: list[str] = []
        self._spans = array("Q")
        self.json: memoryview = memoryview(self._encode(payload)).toreadonly()
        self._positions: dict[str, int | list[int]] | None = None
        self._flat: memoryview | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def names(self) -> list[str]:
        """``ns__KEY`` of each value, or the bare key of one at the top level, as packed."""
        return [
            key if namespace is None else namespace + _SEPARATOR + key
            for namespace, key in zip(self._namespaces, self._keys, strict=True)
        ]

    def find(self, name: str) -> Entry | None:
        """The entry called ``name``: by its full name, else by a bare key that only one has.

        Raises:
            NamesCollide: several namespaces hold it.
        """
        found = self._called(name)
        full = [entry for entry in found if entry.name == name] or found
        if len(full) > 1:
            raise NamesCollide(_candidates(full))
        return full[0] if full else None

    def find_in(self, namespace: str, key: str) -> Entry | None:
        """The entry ``key`` of ``namespace``, both to the letter."""
        for entry in self._called(key):
            if entry.namespace == namespace and entry.key == key:
                return entry
        return None

    def value_json(self, entry: Entry) -> bytes:
        """The value of ``entry`` as a JSON string, quotes included: a copy, in passing."""
        return bytes(self.json[entry.start : entry.end])

    def flat_json(self) -> memoryview:
        """``{"ns__KEY": value}`` as UTF-8 JSON, made once; zeroed like ``json``.

        Raises:
            NamesCollide: two values would have the same name.
        """
        if self._flat is None:
            self._flat = self._flatten()
        return self._flat

    def value(self, name: str) -> str | None:
        """The value called ``name`` as text, for the agent's own use (telemetry's headers)."""
        entry = self.find(name)
        if entry is None:
            return None
        text: str = json.loads(self.value_json(entry))
        return text

    def _called(self, name: str) -> list[Entry]:
        """The entries whose full name or bare key is ``name``, as packed."""
        if self._positions is None:
            self._positions = self._index()
        found = self._positions.get(name, [])
        return [self._entry(at) for at in (found if isinstance(found, list) else [found])]

    def _entry(self, position: int) -> Entry:
        start, end = self._spans[2 * position], self._spans[2 * position + 1]
        return Entry(self._namespaces[position], self._keys[position], start, end)

    def _index(self) -> dict[str, int | list[int]]:
        positions: dict[str, int | list[int]] = {}

        def add(name: str, position: int) -> None:
            known = positions.setdefault(name, position)
            if isinstance(known, list):
                known.append(position)
            elif known != position:
                positions[name] = [known, position]

        for position, (key, name) in enumerate(zip(self._keys, self.names(), strict=True)):
            add(key, position)
            add(name, position)
        return positions

    def _flatten(self) -> memoryview:
        names = self.names()
        if len(set(names)) < len(names):
            times = Counter(names)
            colliding = [at for at, name in enumerate(names) if times[name] > 1]
            raise NamesCollide(_candidates([self._entry(at) for at in colliding]))
        buffer = Plaintext(b"{")
        for position, name in enumerate(names):
            if position:
                buffer += b","
            buffer += encode_basestring(name).encode() + b":"
            buffer += self.json[self._spans[2 * position] : self._spans[2 * position + 1]]
        buffer += b"}"
        return memoryview(buffer).toreadonly()

    def _encode(self, payload: dict[str, str | dict[str, str]]) -> Plaintext:
        """``payload`` as UTF-8 JSON; fills the columns with where each value stands in it."""
        buffer = Plaintext(b"{")

        def put(namespace: str | None, key: str, value: str) -> None:
            buffer.extend(encode_basestring(key).encode() + b":")
            self._namespaces.append(namespace)
            self._keys.append(key)
            self._spans.append(len(buffer))
            buffer.extend(encode_basestring(value).encode())
            self._spans.append(len(buffer))

        for position, (name, value) in enumerate(payload.items()):
            if position:
                buffer += b","
            if isinstance(value, str):
                put(None, name, value)
                continue
            buffer += encode_basestring(name).encode() + b":{"
            for inner_position, (key, inner) in enumerate(value.items()):
                if inner_position:
                    buffer += b","
                put(name, key, inner)
            buffer += b"}"
        buffer += b"}"
        return buffer


def parse_payload(plaintext: bytes | bytearray) -> Secrets:
    """The secrets in ``plaintext``: a JSON object of strings, or of objects of strings.

    Raises:
        PayloadInvalid: anything else, or JSON that is not strict. Where and what would be words
            from the plaintext; the message has none.
    """
    # Raised outside the handlers, so that no cause drags the document along.
    try:
        return Secrets(_scan(plaintext.decode("utf-8")))
    except UnicodeError:  # bytes that are no UTF-8, or half of a surrogate pair from an escape
        what = "the plaintext's text is broken"
    except ValueError:
        what = "the plaintext is not a strict JSON object of strings or of objects of strings"
    raise PayloadInvalid(what)


def _scan(text: str) -> dict[str, str | dict[str, str]]:
    """The payload in ``text``.

    json.loads would do, but it holds the interpreter for 100 ms where there are 100,000 keys, and
    builds whatever else the writer of the artifact thought of before it can be refused.

    Source: RFC 8259 sections 2, 4 and 7
    """
    payload, end = _scan_object(text, 0, may_nest=True)
    if _END(text, end) is None:
        raise ValueError("not a payload")
    return payload


def _scan_object(text: str, at: int, *, may_nest: bool) -> tuple[dict[str, Any], int]:
    """The object that begins at ``at``, and where it ends."""
    members: dict[str, Any] = {}
    token = _OPEN(text, at)
    while token is not None:
        if token.lastindex:  # it was the closing brace
            return members, token.end()
        name, at = scanstring(text, token.end())
        token = _COLON(text, at)
        if token is None or name in members:
            break
        if not token.lastindex:
            members[name], at = scanstring(text, token.end())
        elif may_nest:
            members[name], at = _scan_object(text, token.end(), may_nest=False)
        else:
            break
        token = _NEXT(text, at)
    raise ValueError("not a payload")


def _candidates(entries: list[Entry]) -> list[str]:
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        return [entry.unambiguous_name for entry in entries]
    return names


def zero(buffer: bytearray) -> None:
    """Overwrites ``buffer`` in place."""
    buffer[:] = bytes(len(buffer))
