"""What a person wrote, to what is packed."""

from __future__ import annotations

from pathlib import Path

import pytest

from clef_agent.cli.failure import Failure
from clef_agent.cli.payload import format_of, in_namespace, parse_source


@pytest.mark.parametrize(
    ("name", "form"),
    [
        ("app.json", "json"),
        ("APP.JSON", "json"),
        (".env", "env"),
        ("prod.env", "env"),
        (".env.production", "env"),
        ("secrets", None),
    ],
)
def test_the_name_tells_the_format(name: str, form: str | None) -> None:
    assert format_of(Path("/somewhere", name)) == form
    assert format_of(None) is None


def test_without_a_name_a_brace_means_json() -> None:
    assert parse_source(b' \n{"A": "1"}', where="it") == {"A": "1"}
    assert parse_source(b"A={1}", where="it") == {"A": "{1}"}
    assert parse_source(b"", where="it") == {}


def test_namespaces_and_bare_keys_may_be_mixed() -> None:
    data = '{"app": {"KEY": "ü"}, "BARE": ""}'.encode()

    assert parse_source(data, where="it") == {"app": {"KEY": "ü"}, "BARE": ""}


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (b'{"app": {"PORT": 8080}}', "it: app/PORT is a number, not a string"),
        (b'{"PORT": 80.5}', "it: PORT is a number, not a string"),
        (b'{"ON": true}', "it: ON is true or false, not a string"),
        (b'{"NONE": null}', "it: NONE is null, not a string"),
        (b'{"LIST": ["secret"]}', "it: LIST is an array, not a string"),
        (b'{"a": {"b": {"c": "secret"}}}', "it: a/b is an object, not a string"),
        (b'{"a": "1", "a": "2"}', "it is not strict JSON: a name occurs twice in one object"),
        (b'{"a": "secret"', "it is not strict JSON: "),
        (b'{"a": "\\ud800"}', "it is not strict JSON: "),
        (b"A='secret", "it: line 1 opens a ' that nothing closes"),
        (b"A=\xff", "it is not UTF-8 text"),
    ],
)
def test_what_no_agent_would_serve_is_refused_by_name_and_without_its_value(
    data: bytes, problem: str
) -> None:
    with pytest.raises(Failure) as raised:
        parse_source(data, where="it")

    assert str(raised.value).startswith(problem)
    assert "secret" not in str(raised.value)
    assert raised.value.hint


def test_a_json_file_that_is_no_object_is_refused() -> None:
    with pytest.raises(Failure, match="not a JSON object"):
        parse_source(b"[]", where="it", form="json")


def test_a_name_cannot_steer_the_terminal() -> None:
    with pytest.raises(Failure) as raised:
        parse_source(b'{"\\u001b[2J": 1}', where="it")

    assert "\x1b" not in str(raised.value)


def test_a_flat_payload_goes_into_a_namespace() -> None:
    assert in_namespace({"A": "1"}, "app") == {"app": {"A": "1"}}


def test_a_payload_with_namespaces_goes_into_no_other() -> None:
    with pytest.raises(Failure, match="namespaces already"):
        in_namespace({"A": "1", "app": {"B": "2"}}, "other")
