"""JSON that every reader understands alike, or not at all.

Two parsers that differ on a duplicate name or a NaN are a way to show the signer one document and
the reader another; so whatever is ambiguous is refused.

Source: RFC 8259, and RFC 7493 (I-JSON) for duplicates, surrogates and number ranges
"""

from __future__ import annotations

import json
import math
from typing import Final, NoReturn, TypeAlias

JsonValue: TypeAlias = "dict[str, JsonValue] | list[JsonValue] | str | int | float | bool | None"

#: Deeper nesting has no use here, and costs stack.
MAX_DEPTH = 32
#: Signed 64-bit integers; what lies beyond means different numbers to different readers. Digits
#: are counted first, because int() of very many takes quadratic time.
_MAX_INTEGER_DIGITS = 19
_MIN_INTEGER, _MAX_INTEGER = -(2**63), 2**63 - 1


class NotStrict(ValueError):
    """The text is no JSON, or ambiguous JSON."""


class LoneSurrogate(ValueError):
    """A string holds half of a surrogate pair, which no UTF-8 can carry."""


def loads(data: bytes | bytearray) -> JsonValue:
    """The value that ``data`` (UTF-8 text) describes.

    Raises:
        NotStrict: not UTF-8, not JSON, NaN or Infinity, duplicate names, a number beyond 64 bits,
            or nested deeper than ``MAX_DEPTH``.
        LoneSurrogate: a name or a string has an unpaired surrogate.
    """
    try:
        text = data.decode("utf-8")
        value: JsonValue = _DECODER.decode(text)
    except NotStrict:
        raise
    except UnicodeDecodeError as exc:
        raise NotStrict(f"it is not UTF-8 at byte {exc.start}") from None
    except json.JSONDecodeError as exc:
        # Not exc.doc: the document would travel along in the traceback.
        raise NotStrict(f"{exc.msg} at line {exc.lineno}, column {exc.colno}") from None
    except RecursionError:
        raise NotStrict(f"it is nested deeper than {MAX_DEPTH}") from None
    # Only an escape can make a lone surrogate: strict UTF-8 has none. One character is found twenty
    # times faster than two, and a large artifact is base64, without a single backslash.
    if "\\" in text and "\\u" in text:
        _check_surrogates(value)
    _check_depth(value)
    return value


def _unique(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise NotStrict("a name occurs twice in one object")
    return result


def _refuse_constant(_: str) -> NoReturn:
    raise NotStrict("it holds NaN or Infinity")


def _bounded_int(digits: str) -> int:
    if len(digits.lstrip("-")) <= _MAX_INTEGER_DIGITS:
        number = int(digits)
        if _MIN_INTEGER <= number <= _MAX_INTEGER:
            return number
    raise NotStrict("it holds an integer beyond 64 bits")


def _finite_float(digits: str) -> float:
    number = float(digits)
    if not math.isfinite(number):
        raise NotStrict("it holds a number beyond the range of a double")
    return number


_DECODER: Final = json.JSONDecoder(
    object_pairs_hook=_unique,
    parse_constant=_refuse_constant,
    parse_int=_bounded_int,
    parse_float=_finite_float,
)


def _check_depth(value: JsonValue) -> None:
    level: list[JsonValue] = [value]
    for _ in range(MAX_DEPTH):
        level = [
            child
            for container in level
            if isinstance(container, (dict, list))
            for child in (container.values() if isinstance(container, dict) else container)
            if isinstance(child, (dict, list))
        ]
        if not level:
            return
    raise NotStrict(f"it is nested deeper than {MAX_DEPTH}")


def _check_surrogates(value: JsonValue) -> None:
    pending: list[JsonValue] = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, dict):
            pending.extend(item.keys())
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
        elif isinstance(item, str):
            try:
                item.encode("utf-8")
            except UnicodeEncodeError:
                raise LoneSurrogate("a string has an unpaired surrogate") from None
