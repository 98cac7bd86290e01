"""Plaintext, and the only type that holds it.

All values lie JSON-encoded in one mutable buffer; what else there is are offsets into it. The
buffer is zeroed when the last user lets go of it: the holder, and each response on its way.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from json.encoder import encode_basestring
from typing import Final, NamedTuple

from clef_agent.artifact import strict_json
from clef_agent.errors import PayloadInvalid

_SEPARATOR: Final = "__"


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

    __slots__ = ("__weakref__", "_entries", "_flat", "_names", "json")

    def __init__(self, payload: dict[str, str | dict[str, str]]) -> None:
        buffer, self._entries = _encode(payload)
        self.json: memoryview = memoryview(buffer).toreadonly()
        self._names: dict[str, list[int]] | None = None
        self._flat: memoryview | None = None

    def __len__(self) -> int:
        return len(self._entries)

    def names(self) -> list[str]:
        """``ns__KEY`` of each value, or the bare key of one at the top level, as packed."""
        return [entry.name for entry in self._entries]

    def find(self, name: str) -> Entry | None:
        """The entry called ``name``: by its full name, else by a bare key that only one has.

        Raises:
            NamesCollide: several namespaces hold it.
        """
        if self._names is None:
            self._names = self._index()
        found = [self._entries[position] for position in self._names.get(name, ())]
        full = [entry for entry in found if entry.name == name] or found
        if len(full) > 1:
            raise NamesCollide(_candidates(full))
        return full[0] if full else None

    def find_in(self, namespace: str, key: str) -> Entry | None:
        """The entry ``key`` of ``namespace``, both to the letter."""
        if self._names is None:
            self._names = self._index()
        for position in self._names.get(key, ()):
            entry = self._entries[position]
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

    def _index(self) -> dict[str, list[int]]:
        names: dict[str, list[int]] = {}
        for position, entry in enumerate(self._entries):
            names.setdefault(entry.key, []).append(position)
            if entry.namespace is not None:
                names.setdefault(entry.name, []).append(position)
        return names

    def _flatten(self) -> memoryview:
        by_name: dict[str, list[Entry]] = {}
        for entry in self._entries:
            by_name.setdefault(entry.name, []).append(entry)
        colliding = [entry for same in by_name.values() if len(same) > 1 for entry in same]
        if colliding:
            raise NamesCollide(_candidates(colliding))
        buffer = Plaintext(b"{")
        for name, (entry,) in by_name.items():
            if len(buffer) > 1:
                buffer += b","
            buffer += encode_basestring(name).encode() + b":"
            buffer += self.json[entry.start : entry.end]
        buffer += b"}"
        return memoryview(buffer).toreadonly()


def parse_payload(plaintext: bytes | bytearray) -> Secrets:
    """The secrets in ``plaintext``: a JSON object of strings, or of objects of strings.

    Raises:
        PayloadInvalid: anything else, or JSON that is not strict.
    """
    try:
        payload = strict_json.loads(plaintext)
    except strict_json.NotStrict:
        # Where and what would be words from the plaintext; the reason alone is enough.
        raise PayloadInvalid("the plaintext is not strict JSON") from None
    except strict_json.LoneSurrogate as exc:
        raise PayloadInvalid(f"the plaintext's text is broken: {exc}") from None
    if not isinstance(payload, dict):
        raise PayloadInvalid("the plaintext is not a JSON object")
    checked: dict[str, str | dict[str, str]] = {}
    for name, value in payload.items():
        if isinstance(value, str):
            checked[name] = value
        elif isinstance(value, dict):
            checked[name] = {key: _text(inner) for key, inner in value.items()}
        else:
            raise PayloadInvalid("a value is neither a string nor an object of strings")
    return Secrets(checked)


def _text(value: strict_json.JsonValue) -> str:
    if not isinstance(value, str):
        raise PayloadInvalid("a value inside a namespace is not a string")
    return value


def _encode(payload: dict[str, str | dict[str, str]]) -> tuple[Plaintext, list[Entry]]:
    """``payload`` as UTF-8 JSON, and where each value stands in it."""
    buffer = Plaintext(b"{")
    entries: list[Entry] = []

    def put(namespace: str | None, members: Iterator[tuple[str, str]]) -> None:
        separator = b""
        for key, value in members:
            buffer.extend(separator + encode_basestring(key).encode() + b":")
            start = len(buffer)
            buffer.extend(encode_basestring(value).encode())
            entries.append(Entry(namespace, key, start, len(buffer)))
            separator = b","

    separator = b""
    for name, value in payload.items():
        buffer += separator
        if isinstance(value, str):
            put(None, iter(((name, value),)))
        else:
            buffer += encode_basestring(name).encode() + b":{"
            put(name, iter(value.items()))
            buffer += b"}"
        separator = b","
    buffer += b"}"
    return buffer, entries


def _candidates(entries: list[Entry]) -> list[str]:
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        return [entry.unambiguous_name for entry in entries]
    return names


def zero(buffer: bytearray) -> None:
    """Overwrites ``buffer`` in place."""
    buffer[:] = bytes(len(buffer))
