from __future__ import annotations

import ctypes
import gc
import json
import sys
import traceback
from typing import TypeAlias

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from clef_agent.artifact import strict_json
from clef_agent.decrypt.secrets import (
    NamesCollide,
    Plaintext,
    Secrets,
    overwrite_freed,
    parse_payload,
    zero,
)
from clef_agent.errors import PayloadInvalid

Nested: TypeAlias = "dict[str, str | dict[str, str]]"

texts = st.text(max_size=12)
payloads = st.dictionaries(texts, texts | st.dictionaries(texts, texts, max_size=4), max_size=5)


def secrets_of(payload: object) -> Secrets:
    return parse_payload(json.dumps(payload, separators=(",", ":")).encode())


def padded(plaintext: bytes) -> bytes:
    """The same payload, large enough to be read string by string at once."""
    return plaintext + b" " * 40_000


def flat(payload: Nested) -> list[tuple[str, str]]:
    pairs: list[tuple[str, str]] = []
    for name, value in payload.items():
        if isinstance(value, str):
            pairs.append((name, value))
        else:
            pairs.extend((f"{name}__{key}", inner) for key, inner in value.items())
    return pairs


# --- what a payload is --------------------------------------------------------------------------


@given(payloads, st.booleans())
def test_a_payload_is_served_as_it_was_packed(payload: Nested, ascii_only: bool) -> None:
    plaintext = json.dumps(payload, ensure_ascii=ascii_only).encode()
    secrets = parse_payload(plaintext)
    assert bytes(secrets.json) == plaintext
    found = json.loads(bytes(secrets.json))
    assert found == payload
    assert list(found) == list(payload)
    assert len(secrets) == len(secrets.names()) == len(flat(payload))
    assert secrets.names() == [name for name, _ in flat(payload)]


@given(payloads)
def test_every_offset_is_that_of_its_value(payload: Nested) -> None:
    secrets = secrets_of(payload)
    for name, value in payload.items():
        if isinstance(value, dict):
            for key, inner in value.items():
                entry = secrets.find_in(name, key)
                assert entry is not None
                assert json.loads(secrets.value_json(entry)) == inner
            assert secrets.find_in(name, "\0no such key\0") is None


@given(payloads)
def test_a_flat_rendering_has_each_value_once_or_is_refused(payload: Nested) -> None:
    secrets, pairs = secrets_of(payload), flat(payload)
    if len(dict(pairs)) == len(pairs):
        assert json.loads(bytes(secrets.flat_json())) == dict(pairs)
        assert secrets.flat_json() is secrets.flat_json()
    else:
        with pytest.raises(NamesCollide) as caught:
            secrets.flat_json()
        assert len(caught.value.candidates) >= 2


@pytest.mark.parametrize(
    "plaintext",
    [
        b"",
        b"null",
        b"[]",
        b'["a"]',
        b'"text"',
        b"1",
        b"{",
        b'{"a": 1}',
        b'{"a": null}',
        b'{"a": true}',
        b'{"a": []}',
        b'{"a": ["0"]}',
        b'{"a": {"b": 1}}',
        b'{"a": {"b": null}}',
        b'{"a": {"b": {}}}',
        b'{"a": {"b": ["c"]}}',
        b'{"a": "x", "b": {"c": 0}}',
        b'{"a": "x", "a": "y"}',
        b'{"a": {"b": "x", "b": "x"}}',
        b'{"a": {}, "\\u0061": {}}',
        b'{"a": NaN}',
        b'{"a": Infinity}',
        b'{"a": 1e999}',
        b'{"a": ' + b"9" * 5000 + b"}",
        b'{"a": "\\ud800"}',
        b'{"\\udc00": "a"}',
        b'{"a": {"\\ud800": "b"}}',
        b'{"a": "\xff"}',
        b'{"a": "\xed\xa0\x80"}',
        b'{"a": "\n"}',
        b"\xef\xbb\xbf{}",
        b"{} {}",
        b'{"a":' * 33 + b"1" + b"}" * 33,
        b"[" * 10**6,
    ],
)
def test_a_payload_of_another_form_is_refused_without_quoting_it(plaintext: bytes) -> None:
    with pytest.raises(PayloadInvalid) as caught:
        parse_payload(plaintext)
    assert caught.value.reason == "payload_parse"


@pytest.mark.parametrize(
    "template",
    [
        '{"a": "%s", "%s": 1}',
        '{"%s": {"b": null}}',
        '{"a": "%s"',
        '{"a": "%s", "a": "%s"}',
        '{"%s": "\\ud800"}',
        '"%s"',
        '["%s"]',
        "%s",
        '{"a": %s}',
        '{"a": -%s}',
    ],
)
def test_no_error_about_a_payload_holds_a_word_of_it(template: str) -> None:
    secret = "hunter2-4711"
    plaintext = template.replace("%s", secret).encode()
    with pytest.raises(PayloadInvalid) as caught:
        parse_payload(plaintext)
    rendered = "".join(traceback.format_exception(caught.value))
    assert secret not in rendered
    assert "hunter" not in rendered


@given(st.binary(max_size=60) | texts.map(str.encode))
@example(b'{"a": "\\ud83d\\udd11"}')
def test_any_plaintext_is_secrets_or_refused_by_name(plaintext: bytes) -> None:
    try:
        count = len(parse_payload(plaintext))
    except PayloadInvalid:
        count = 0
    assert count >= 0


def as_json_says(plaintext: bytes) -> object:
    """What strict JSON makes of ``plaintext``, if that is a payload; else None."""
    try:
        found = strict_json.loads(plaintext)
    except (strict_json.NotStrict, strict_json.LoneSurrogate):
        return None
    members = list(found.values()) if isinstance(found, dict) else [None]
    inner = [v for m in members if isinstance(m, dict) for v in m.values()]
    texts_only = all(isinstance(m, (str, dict)) for m in members)
    return found if texts_only and all(isinstance(v, str) for v in inner) else None


@given(
    st.lists(
        st.sampled_from([*'{}:,[]1"\\', "null", '"a"', '"b"', '""', '"é\u2028"'])
        | st.sampled_from(['"\\u0061"', '"\\ud800"', '"\\n"', " ", "\n", "\t\r", "\x0b", "\u00a0"]),
        max_size=14,
    ).map("".join)
    | payloads.map(lambda payload: json.dumps(payload, indent=1)),
)
@example("{}")
@example(' { "a" : { } , "b" : "c" } \n')
@example('{"a":"b",}')
@example('{"a":{"b":"c"},"a":"d"}')
@example('{"a":{"b":{}}}')
@example('{"a":"b"}\x00')
def test_a_payload_is_read_as_strict_json_is_however_large(text: str) -> None:
    for plaintext in (text.encode(), padded(text.encode())):
        try:
            secrets = parse_payload(plaintext)
        except PayloadInvalid:
            found = None
        else:
            found = json.loads(bytes(secrets.json))
            values = [
                json.loads(secrets.value_json(e)) for e in map(secrets.find, secrets.names()) if e
            ]
            assert len(values) == len(secrets)
        assert found == as_json_says(plaintext)


@pytest.mark.parametrize("special", ["\n", '"', "é", "€", "🔑", "\\u", "\u2028"])
@pytest.mark.parametrize("count", [199, 200, 201, 5000])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_long_strings_of_escapes_and_wide_characters_are_read_in_pieces(
    special: str, count: int, ascii_only: bool
) -> None:
    payload = {"a": {"first" + special * count: special * count, "second": "x"}, "b": special}
    plaintext = json.dumps(payload, ensure_ascii=ascii_only).encode()
    secrets = parse_payload(plaintext)
    assert secrets.names() == ["a__first" + special * count, "a__second", "b"]
    assert value(secrets, f"first{special * count}") == special * count
    assert value(secrets, "second") == "x"
    for broken in (plaintext[:-8], plaintext[:-3] + b'"', plaintext.replace(b"second", b"\xff")):
        with pytest.raises(PayloadInvalid):
            parse_payload(broken)


def test_a_bytearray_is_read_too() -> None:
    assert bytes(parse_payload(bytearray(b'{"a":"b"}')).json) == b'{"a":"b"}'


def test_an_empty_payload_is_served_empty() -> None:
    secrets = secrets_of({})
    assert bytes(secrets.json) == bytes(secrets.flat_json()) == b"{}"
    assert secrets.names() == []
    assert secrets.find("a") is None
    assert bytes(secrets_of({"ns": {}}).json) == b'{"ns":{}}'


def test_a_value_at_the_top_level_is_found_beside_namespaces_that_hold_its_key() -> None:
    secrets = secrets_of({"a": {"K": "1"}, "K": "top", "b": {"K": "2"}})
    assert value(secrets, "K") == "top"
    assert value(secrets, "a__K") == "1"


# --- looking up ---------------------------------------------------------------------------------


def value(secrets: Secrets, name: str) -> object:
    entry = secrets.find(name)
    return None if entry is None else json.loads(secrets.value_json(entry))


def test_a_flat_payload_is_not_taken_for_namespaces() -> None:
    # case 8
    secrets = secrets_of({"DB_TOKEN": "ab", "app__KEY": "c"})
    assert secrets.names() == ["DB_TOKEN", "app__KEY"]
    assert value(secrets, "DB_TOKEN") == "ab"
    assert value(secrets, "app__KEY") == "c"
    assert value(secrets, "0") is None
    assert secrets.find_in("app", "KEY") is None
    assert bytes(secrets.flat_json()) == bytes(secrets.json)


def test_a_mixed_payload_names_its_top_level_values_by_their_bare_key() -> None:
    # case 8
    secrets = secrets_of({"TOP": "t", "ns": {"KEY": "k"}})
    assert secrets.names() == ["TOP", "ns__KEY"]
    assert json.loads(bytes(secrets.flat_json())) == {"TOP": "t", "ns__KEY": "k"}
    assert [value(secrets, n) for n in ("TOP", "KEY", "ns__KEY", "ns")] == ["t", "k", "k", None]


def test_a_bare_key_in_one_namespace_is_found() -> None:
    secrets = secrets_of({"a": {"ONE": "1", "BOTH": "a"}, "b": {"BOTH": "b"}})
    assert value(secrets, "ONE") == value(secrets, "a__ONE") == "1"
    assert value(secrets, "a__BOTH") == "a"
    assert value(secrets, "b__BOTH") == "b"
    assert value(secrets, "NONE") is None


def test_a_bare_key_in_two_namespaces_is_a_question_and_no_answer() -> None:
    # case 9
    secrets = secrets_of({"a": {"K": "1"}, "b": {"K": "2"}, "c": {"K": "3"}})
    with pytest.raises(NamesCollide) as caught:
        secrets.find("K")
    assert caught.value.candidates == ["a__K", "b__K", "c__K"]
    assert "1" not in str(caught.value)


def test_names_that_flatten_to_one_are_told_apart_by_a_slash() -> None:
    # case 9
    secrets = secrets_of({"a__b": {"c": "1"}, "a": {"b__c": "2", "x": "3"}})
    for ask in (lambda: secrets.find("a__b__c"), secrets.flat_json):
        with pytest.raises(NamesCollide) as caught:
            ask()
        assert caught.value.candidates == ["a__b/c", "a/b__c"]
    assert value(secrets, "c") == "1"
    assert value(secrets, "b__c") == "2"
    assert value(secrets, "a__x") == "3"
    entry = secrets.find_in("a", "b__c")
    assert entry is not None
    assert json.loads(secrets.value_json(entry)) == "2"


def test_a_full_name_wins_over_a_bare_key_of_the_same_letters() -> None:
    secrets = secrets_of({"a": {"K": "full"}, "b": {"a__K": "bare"}})
    assert value(secrets, "a__K") == "full"
    assert value(secrets, "b__a__K") == "bare"


def test_a_top_level_value_and_a_namespaced_one_that_share_a_name_collide() -> None:
    secrets = secrets_of({"a__K": "top", "a": {"K": "in"}})
    with pytest.raises(NamesCollide) as caught:
        secrets.find("a__K")
    assert caught.value.candidates == ["a__K", "a/K"]
    assert value(secrets, "K") == "in"


def test_a_value_is_text_for_the_agents_own_use() -> None:
    secrets = secrets_of({"ns": {"TOKEN": 'é\n"x"'}})
    assert secrets.value("TOKEN") == 'é\n"x"'
    assert secrets.value("OTHER") is None


# --- zeroing ------------------------------------------------------------------------------------


class Witness(Plaintext):
    """What a buffer looked like after its end."""

    remains: list[bytes] = []  # noqa: RUF012  # one list for all, emptied by the fixture

    def __del__(self) -> None:
        super().__del__()
        Witness.remains.append(bytes(self))


def watch(view: memoryview) -> None:
    """Puts a witness in place of the buffer behind ``view``, without holding it."""
    view.obj.__class__ = Witness


@pytest.fixture(autouse=True)
def _no_remains() -> None:
    Witness.remains.clear()


def test_plaintext_is_zeroed_when_its_holder_lets_go() -> None:
    secrets = secrets_of({"ns": {"K": "v" * 1000}})
    watch(secrets.json)
    watch(secrets.flat_json())
    size, flat_size = len(secrets.json), len(secrets.flat_json())
    secrets.names()
    secrets.find("K")
    gc.collect()
    assert Witness.remains == []
    del secrets
    assert sorted(Witness.remains, key=len) == sorted([bytes(size), bytes(flat_size)], key=len)


def test_plaintext_stays_whole_while_a_response_holds_the_view() -> None:
    secrets = secrets_of({"K": "v"})
    watch(secrets.json)
    response = secrets.json
    del secrets
    assert bytes(response) == b'{"K":"v"}'
    assert Witness.remains == []
    del response
    assert Witness.remains == [bytes(9)]


def test_plaintext_stays_whole_while_a_transport_holds_a_slice_of_the_view() -> None:
    # uvloop keeps only the rest of what it could not write at once, and drops the view itself.
    secrets = secrets_of({"K": "v" * 100})
    watch(secrets.json)
    rest = memoryview(secrets.json)[50:].cast("b")
    del secrets
    gc.collect()
    assert bytes(rest) == b'{"K":"'[50:] + b"v" * 56 + b'"}'
    assert Witness.remains == []
    del rest
    assert Witness.remains == [bytes(108)]


def test_what_is_opened_is_taken_over_and_what_is_refused_is_zeroed() -> None:
    opened, refused = Plaintext(b'{"K":"v"}'), Plaintext(b'{"K":"hunter2"')
    assert parse_payload(opened).json.obj is opened
    with pytest.raises(PayloadInvalid):
        parse_payload(refused)
    assert bytes(refused) == bytes(14)


def test_one_value_is_a_buffer_that_is_zeroed_like_the_rest() -> None:
    secrets = secrets_of({"K": "v"})
    entry = secrets.find("K")
    assert entry is not None
    copy = memoryview(secrets.value_json(entry))
    watch(copy)
    del copy
    assert Witness.remains == [bytes(3)]


def test_the_view_cannot_be_written_through() -> None:
    secrets = secrets_of({"K": "v"})
    assert secrets.json.readonly
    assert secrets.flat_json().readonly


def test_zeroing_keeps_the_length() -> None:
    buffer = bytearray(b"secret")
    zero(buffer)
    assert buffer == bytes(6)
    zero(bytearray())


def test_no_repr_of_secrets_shows_a_value() -> None:
    secrets = secrets_of({"ns": {"K": "hunter2"}})
    assert "hunter2" not in repr(secrets) + str(secrets) + repr(secrets.find("K"))
    assert "hunter2" not in repr(secrets.json)


def test_one_key_in_very_many_namespaces_is_found_at_once_and_told_apart_by_examples() -> None:
    secrets = secrets_of({f"n{number}": {"K": str(number)} for number in range(1000)})
    entry = secrets.find_in("n999", "K")
    assert entry is not None
    assert secrets.value_json(entry) == b'"999"'
    with pytest.raises(NamesCollide) as caught:
        secrets.find("K")
    assert len(caught.value.candidates) == 100


@pytest.mark.skipif(sys.implementation.name != "cpython", reason="it looks where CPython keeps it")
@pytest.mark.parametrize("size", [24, 200, 470, 480, 700, 990])
def test_what_a_small_bytes_object_has_left_behind_is_overwritten(size: int) -> None:
    secret = b"hunter2-" * (size // 8)
    copy = bytes(bytearray(secret))
    address = id(copy) + sys.getsizeof(b"") - 1
    assert ctypes.string_at(address, size // 8 * 8) == secret
    del copy
    overwrite_freed(len(secret))
    assert b"hunter2-" not in ctypes.string_at(address, len(secret))
