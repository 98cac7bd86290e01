"""Plaintext, and the only type that holds it.

All values lie in one mutable buffer, the payload as it was packed; what else there is are offsets
into it. The buffer is zeroed when the last user lets go of it: the holder, and each response on
its way.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from json.encoder import encode_basestring
from typing import Final

from clef_agent.decrypt.places import MAX_CANDIDATES, Entry, Places, full_name
from clef_agent.errors import PayloadInvalid

#: Bytes of plaintext up to which looking into it is done before a request could notice.
_SMALL_BYTES: Final = 32 * 1024
_ZEROS: Final = bytes(64 * 1024)
#: Sizes of memory that allocators hand out again without harden_process()'s overwriting: what
#: Python's own keeps (512 bytes), and each thread's cache in glibc.
#: Source: glibc, malloc/malloc.c, MAX_TCACHE_SIZE (1032 bytes with 64-bit pointers)
_CACHED_BYTES: Final = 1032
#: What CPython needs for a bytes object beside its bytes, less the one that a bytearray needs.
_BYTES_OBJECT_BYTES: Final = sys.getsizeof(b"") - 1
#: A thread's cache in glibc has seven places for each size.
_BLOCKS: Final = 16


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
    """One decrypted payload, ready to be served. Only :func:`parse_payload` makes one, or
    :func:`parsed_before`.

    ``json`` is the payload as packed, ``{namespace: {key: value}}`` or ``{key: value}``, as UTF-8
    JSON. The buffer behind it is zeroed as soon as nobody holds that view, nor a slice of it, any
    more; so a response in flight keeps what it promised, and no longer.
    """

    __slots__ = ("__weakref__", "_flat", "_known_places", "json")

    def __init__(self, plaintext: Plaintext, places: Places | None) -> None:
        self.json: memoryview = memoryview(plaintext).toreadonly()
        self._known_places = places
        self._flat: memoryview | None = None

    @property
    def is_large(self) -> bool:
        """Whether looking into it takes long enough to be done beside the event loop."""
        return len(self.json) > _SMALL_BYTES

    def __len__(self) -> int:
        return len(self._places)

    def names(self) -> list[str]:
        """``ns__KEY`` of each value, or the bare key of one at the top level, as packed."""
        return self._places.names()

    def find(self, name: str) -> Entry | None:
        """The entry called ``name``: by its full name, else by a bare key that only one has.

        Raises:
            NamesCollide: several namespaces hold it.
        """
        places = self._places
        found = places.named(name) or places.with_key(name)
        if len(found) > 1:
            raise NamesCollide(_candidates(found))
        return found[0] if found else None

    def find_in(self, namespace: str, key: str) -> Entry | None:
        """The entry ``key`` of ``namespace``, both to the letter."""
        for entry in self._places.named(full_name(namespace, key)):
            if entry.namespace == namespace and entry.key == key:
                return entry
        return None

    def value_json(self, entry: Entry) -> Plaintext:
        """The value of ``entry`` as a JSON string, with quotes: a copy, zeroed like ``json``."""
        return Plaintext(self.json[entry.start : entry.end])

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

    @property
    def _places(self) -> Places:
        if self._known_places is None:
            buffer = self.json.obj
            assert isinstance(buffer, Plaintext)
            self._known_places = Places(buffer)
        return self._known_places

    def _flatten(self) -> memoryview:
        places, names = self._places, self.names()
        if len(set(names)) < len(names):
            times = Counter(names)
            colliding = [at for at, name in enumerate(names) if times[name] > 1]
            raise NamesCollide(_candidates([places[at] for at in colliding[:MAX_CANDIDATES]]))
        parts: list[bytes | memoryview] = [b"{"]
        for name, entry in zip(names, places, strict=True):
            label = encode_basestring(name).encode() + b":"
            parts += (
                label if len(parts) == 1 else b"," + label,
                self.json[entry.start : entry.end],
            )
        parts.append(b"}")
        return memoryview(joined(*parts)).toreadonly()


def parse_payload(plaintext: bytes | bytearray) -> Secrets:
    """The secrets in ``plaintext``: a JSON object of strings, or of objects of strings.

    A :class:`Plaintext` is taken over, anything else copied; one that is refused is zeroed.

    Raises:
        PayloadInvalid: anything else, or JSON that is not strict. Where and what would be words
            from the plaintext; the message has none.
    """
    buffer = plaintext if isinstance(plaintext, Plaintext) else Plaintext(plaintext)
    # Raised outside the handler, so that no cause drags the document along.
    try:
        places = Places(buffer)
        if len(buffer) > _SMALL_BYTES:
            places.index()  # now, in a thread, and not at the first request for one key
        return Secrets(buffer, places)
    except ValueError:
        zero(buffer)  # the error's traceback holds it for as long as the failure is remembered
    raise PayloadInvalid(
        "the plaintext is not a strict JSON object of strings or of objects of strings"
    )


def parsed_before(plaintext: Plaintext) -> Secrets:
    """The secrets in a small ``plaintext`` that :func:`parse_payload` has taken before: looking
    through it again would take a quarter of a request in just-in-time mode.
    """
    return Secrets(plaintext, None)


def _candidates(entries: list[Entry]) -> list[str]:
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        return [entry.unambiguous_name for entry in entries]
    return names


def joined(*parts: bytes | bytearray | memoryview) -> Plaintext:
    """All ``parts`` in one buffer, in one piece from the start: one that grows leaves its former
    selves behind.
    """
    buffer = Plaintext(sum(map(len, parts)))
    at = 0
    with memoryview(buffer) as view:  # a bytearray's own slices are assigned by way of a copy
        for part in parts:
            end = at + len(part)
            view[at:end] = part
            at = end
    return buffer


def overwrite_freed(size: int) -> None:
    """Overwrites what a bytes object of ``size`` bytes, freed a moment ago, has left behind.

    Allocators hand out next what came back last; so a few blocks of the same size, filled with
    zeros, have that one among them. Larger ones have been overwritten by ``free`` itself, where
    the C library can do that: see hardening.py.
    """
    if size <= _CACHED_BYTES:
        _ = [bytearray(size + _BYTES_OBJECT_BYTES) for _ in range(_BLOCKS)]


def zero(buffer: bytearray) -> None:
    """Overwrites ``buffer`` in place, without making another of its size."""
    if len(buffer) <= len(_ZEROS):
        buffer[:] = _ZEROS[: len(buffer)]
        return
    with memoryview(buffer) as view:
        for start in range(0, len(view), len(_ZEROS)):
            rest = view[start:]
            rest[: len(_ZEROS)] = _ZEROS[: len(rest)]
