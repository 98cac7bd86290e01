from __future__ import annotations

import contextlib
import json
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.artifact.strict_json import MAX_DEPTH, LoneSurrogate, NotStrict, loads

strict_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@given(strict_values, st.booleans())
def test_strict_json_is_read_as_json_is(value: object, ascii_only: bool) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only)
    assert loads(text.encode()) == json.loads(text)
    assert loads(bytearray(text.encode())) == json.loads(text)


@pytest.mark.parametrize("opening", ["[", '{"a":'])
def test_nesting_to_the_limit_is_read_and_one_more_is_not(opening: str) -> None:
    closing = "]" if opening == "[" else "}"
    inner = "" if opening == "[" else "1"
    assert loads((opening * MAX_DEPTH + inner + closing * MAX_DEPTH).encode())
    for depth in (MAX_DEPTH + 1, MAX_DEPTH + 2, 500, 10**5):
        with pytest.raises(NotStrict, match="nested"):
            loads((opening * depth + inner + closing * depth).encode())


def test_depth_counts_along_one_branch_and_not_all() -> None:
    loads(b"[" + b",".join([b"[[]]"] * 1000) + b"]")


@pytest.mark.parametrize(
    "text",
    [
        '"\\ud800"',
        '"\\udc00"',
        '"\\udc00\\ud800"',
        '"a\\ud800\\u0041"',
        '{"\\ud800": 1}',
        '[{"a": {"b": "\\udfff"}}]',
        '["\\ud83d\\udd11", "\\ud83d"]',
    ],
)
def test_half_of_a_surrogate_pair_is_refused_wherever_it_stands(text: str) -> None:
    with pytest.raises(LoneSurrogate):
        loads(text.encode())


@pytest.mark.parametrize(
    "text", ["{'a': 1}", "[1,]", "{,}", "01", "+1", ".5", "1.", "nul", '"\t"', '"\\x41"', "/**/1"]
)
def test_what_is_no_json_is_refused(text: str) -> None:
    with pytest.raises(NotStrict):
        loads(text.encode())


def test_an_error_holds_nothing_of_the_document() -> None:
    with pytest.raises(NotStrict) as caught:
        loads(b'{"password": "hunter2" "x"}')
    seen: BaseException | None = caught.value
    assert "hunter2" not in repr(seen)
    assert seen is not None
    assert seen.__cause__ is None
    assert seen.__suppress_context__


@pytest.mark.parametrize(
    "text",
    [
        "[" * 2_000_000,
        '{"a":' * 400_000,
        "1" * 2_000_000,
        "0." + "1" * 2_000_000,
        "1e" + "9" * 2_000_000,
        '["' + "\\\\" * 1_000_000,
        " " * 2_000_000,
        '["\\ud83d' * 300_000,
        "[" + '"",' * 600_000,
    ],
    ids=lambda text: text[:6],
)
def test_two_megabytes_of_malice_take_no_time(text: str) -> None:
    begun = time.process_time()
    with contextlib.suppress(NotStrict):
        loads(text.encode())
    assert time.process_time() - begun < 5.0
