from __future__ import annotations

import pytest

from clef_agent.telemetry.headers import as_header, malformed_words, parse_headers


@pytest.mark.parametrize(
    ("text", "headers"),
    [
        ("DD-API-KEY=abc", {"dd-api-key": "abc"}),
        ("a=1,b=2", {"a": "1", "b": "2"}),
        (" a = 1 ,\tb=2 ", {"a": "1", "b": "2"}),
        ("authorization=Bearer%20tok%2Cen", {"authorization": "Bearer tok,en"}),
        ("authorization=Basic dXNlcjpwYXNz==", {"authorization": "Basic dXNlcjpwYXNz=="}),
        ("a=+%2B", {"a": "++"}),
        ("a=100%", {"a": "100%"}),
        ("a=%C3%A4", {"a": "\xc3\xa4"}),
        ("a=", {"a": ""}),
        ("a=1,a=2", {"a": "2"}),
        ("", {}),
        (" , ,", {}),
    ],
)
def test_values_are_percent_decoded_once(text: str, headers: dict[str, str]) -> None:
    assert parse_headers(text) == (headers, 0)


@pytest.mark.parametrize(
    "entry",
    [
        "no-equals-sign",
        "=no-name",
        "two words=1",
        "na:me=1",
        "b=line%0D%0Ax-injected: 1",
        "b=%00",
        "b=%ff",
        "Content-Length=5",
        "transfer-encoding=chunked",
        "host=elsewhere.example",
        "content-type=text/plain",
    ],
)
def test_a_malformed_entry_is_left_out_and_counted(entry: str) -> None:
    assert parse_headers(f"a=1,{entry},c=3") == ({"a": "1", "c": "3"}, 1)


def test_the_warning_counts_and_names_and_shows_nothing() -> None:
    assert malformed_words("NAME", 1).startswith("NAME: 1 of its entries")
    assert malformed_words("NAME", 1).endswith("is left out")
    assert malformed_words("NAME", 2).endswith("are left out")


@pytest.mark.parametrize("value", ["a\nb", "a\rb", "\0", "a\u2028b", "\x7f"])
def test_only_one_printable_line_is_a_header(value: str) -> None:
    assert as_header(value) is None
