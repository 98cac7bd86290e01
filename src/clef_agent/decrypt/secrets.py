"""Plaintext, and the only type that holds it.

All values lie in one mutable buffer, the payload as it was packed; what else there is are offsets
into it. The buffer is zeroed when the last user lets go of it: the holder, and each response on
its way.
"""

from __future__ import annotations

import json
from collections import Counter
from json.encoder import encode_basestring
from typing import Final

from clef_agent.artifact import strict_json
from clef_agent.decrypt.places import MAX_CANDIDATES, Entry, Places, full_name
from clef_agent.errors import PayloadInvalid

#: Bytes of plaintext up to which json.loads is done before a request could notice. It is twice as
#: fast as looking for each value's place, which a just-in-time request rarely needs to know.
_SMALL_BYTES: Final = 32 * 1024
_ZEROS: Final = bytes(64 * 1024)
_TEXT_ONLY: Final = frozenset((str,))


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
    """One decrypted payload, ready to be served. Only :func:`parse_payload` makes one.

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
        return len(self._places())

    def names(self) -> list[str]:
        """``ns__KEY`` of each value, or the bare key of one at the top level, as packed."""
        return self._places().names()

    def find(self, name: str) -> Entry | None:
        """The entry called ``name``: by its full name, else by a bare key that only one has.

        Raises:
            NamesCollide: several namespaces hold it.
        """
        places = self._places()
        found = places.named(name) or places.with_key(name)
        if len(found) > 1:
            raise NamesCollide(_candidates(found))
        return found[0] if found else None

    def find_in(self, namespace: str, key: str) -> Entry | None:
        """The entry ``key`` of ``namespace``, both to the letter."""
        for entry in self._places().named(full_name(namespace, key)):
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

    def _places(self) -> Places:
        if self._known_places is None:
            self._known_places = Places(str(self.json, "utf-8"))
        return self._known_places

    def _flatten(self) -> memoryview:
        places, names = self._places(), self.names()
        if len(set(names)) < len(names):
            times = Counter(names)
            colliding = [at for at, name in enumerate(names) if times[name] > 1]
            raise NamesCollide(_candidates([places[at] for at in colliding[:MAX_CANDIDATES]]))
        labels = [encode_basestring(name).encode() + b":" for name in names]
        # In one piece from the start: a buffer that grows leaves its former selves behind.
        values = sum(entry.end - entry.start for entry in places)
        buffer = Plaintext(values + sum(map(len, labels)) + max(len(labels) - 1, 0) + len(b"{}"))
        end = _put(buffer, 0, b"{")
        for label, entry in zip(labels, places, strict=True):
            end = _put(buffer, end, b"," if end > 1 else b"")
            end = _put(buffer, end, label)
            end = _put(buffer, end, self.json[entry.start : entry.end])
        _put(buffer, end, b"}")
        return memoryview(buffer).toreadonly()


def parse_payload(plaintext: bytes | bytearray) -> Secrets:
    """The secrets in ``plaintext``: a JSON object of strings, or of objects of strings.

    Raises:
        PayloadInvalid: anything else, or JSON that is not strict. Where and what would be words
            from the plaintext; the message has none.
    """
    # Raised outside the handlers, so that no cause drags the document along.
    try:
        places = None
        if len(plaintext) <= _SMALL_BYTES:
            _check_form(strict_json.loads_of_any_depth(plaintext))
        else:
            places = Places(plaintext.decode("utf-8"))
            places.index()  # now, in a thread, and not at the first request for one key
        return Secrets(Plaintext(plaintext), places)
    except (UnicodeError, strict_json.LoneSurrogate):
        what = "the plaintext's text is broken"
    except ValueError:
        what = "the plaintext is not a strict JSON object of strings or of objects of strings"
    raise PayloadInvalid(what)


def _check_form(payload: strict_json.JsonValue) -> None:
    if not isinstance(payload, dict):
        raise ValueError("not an object")  # noqa: TRY004  # of the payload, not of an argument
    for value in payload.values():
        texts = value.values() if isinstance(value, dict) else (value,)
        if not _TEXT_ONLY.issuperset(map(type, texts)):
            raise ValueError("not a string")


def _candidates(entries: list[Entry]) -> list[str]:
    names = [entry.name for entry in entries]
    if len(set(names)) < len(names):
        return [entry.unambiguous_name for entry in entries]
    return names


def _put(buffer: bytearray, at: int, data: bytes | memoryview) -> int:
    """Writes ``data`` into ``buffer`` at ``at``; returns where it ends."""
    end = at + len(data)
    buffer[at:end] = data
    return end


def zero(buffer: bytearray) -> None:
    """Overwrites ``buffer`` in place, without making another of its size."""
    if len(buffer) <= len(_ZEROS):
        buffer[:] = _ZEROS[: len(buffer)]
        return
    with memoryview(buffer) as view:
        for start in range(0, len(view), len(_ZEROS)):
            rest = view[start:]
            rest[: len(_ZEROS)] = _ZEROS[: len(rest)]
