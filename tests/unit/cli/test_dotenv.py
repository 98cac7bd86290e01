"""The ``.env`` reader: what it takes to the letter, and what it refuses."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.cli.dotenv import DotenvMalformed, parse_dotenv


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("", {}),
        ("\n  \n# comment\n\t# another", {}),
        ("A=1", {"A": "1"}),
        ("A=1\nB=2\n", {"A": "1", "B": "2"}),
        ("A=1\r\nB=2\r\n", {"A": "1", "B": "2"}),
        ("\ufeffA=1", {"A": "1"}),
        ("A=", {"A": ""}),
        ("A=\nB=2", {"A": "", "B": "2"}),
        ("A=''\nB=\"\"", {"A": "", "B": ""}),
        ("export A=1\nexport=2", {"A": "1", "export": "2"}),
        ("  A = two words  ", {"A": "two words"}),
        ("A=1 # comment", {"A": "1"}),
        ("A=# comment", {"A": ""}),
        ("A=1#not a comment", {"A": "1#not a comment"}),
        ("A=it's", {"A": "it's"}),
        ("A=a=b=c", {"A": "a=b=c"}),
        (r"A=C:\new", {"A": r"C:\new"}),
        ("A='1' # comment\nB=2", {"A": "1", "B": "2"}),
        ("A='# no comment'", {"A": "# no comment"}),
        ("A=' kept '", {"A": " kept "}),
        (r"A='\n$B'", {"A": r"\n$B"}),
        (r'A="\n\r\t\\\"\$"', {"A": '\n\r\t\\"$'}),
        ('A="one\ntwo"\nB=2', {"A": "one\ntwo", "B": "2"}),
        ("A='one\n\ntwo'", {"A": "one\n\ntwo"}),
        ("A=\u2028\nB=2", {"A": "\u2028", "B": "2"}),
        ("A='x\u2028y'", {"A": "x\u2028y"}),
    ],
)
def test_each_form_is_read_to_the_letter(text: str, values: dict[str, str]) -> None:
    assert parse_dotenv(text) == values


@pytest.mark.parametrize("value", ["$HOME", "${HOME}", "`id`", "$(id)", "~", "%PATH%"])
def test_nothing_in_a_value_is_interpreted(value: str) -> None:
    assert parse_dotenv(f"A={value}\nB=\"{value}\"\nC='{value}'") == dict.fromkeys("ABC", value)


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("A=1\nsecret", "line 2 is not NAME=VALUE"),
        ("A=1\n\n=secret", "line 3 is not NAME=VALUE"),
        ("1A=secret", "line 1 is not NAME=VALUE"),
        ("A-B=secret", "line 1 is not NAME=VALUE"),
        ("É=secret", "line 1 is not NAME=VALUE"),
        ("export A", "line 1 is not NAME=VALUE"),
        ("A=1\nB=secret\nA=secret", "line 3 sets A a second time"),
        ("A=1\nB='secret", "line 2 opens a ' that nothing closes"),
        ('A=1\nB="secret\\"', 'line 2 opens a " that nothing closes'),
        ("A='one\ntwo' secret", "line 2 goes on after the closing '"),
        ('A="one\n\\d secret"', "line 2 has an unknown escape; single quotes need none"),
    ],
)
def test_what_cannot_be_read_is_an_error_with_its_line_and_without_its_value(
    text: str, problem: str
) -> None:
    with pytest.raises(DotenvMalformed) as raised:
        parse_dotenv(text)

    assert str(raised.value) == problem


@given(
    st.dictionaries(
        st.from_regex(r"\A[A-Za-z_][A-Za-z0-9_]*\Z"),
        st.text(st.characters(exclude_characters="'\r", exclude_categories=["Cs"])),
    )
)
def test_whatever_is_single_quoted_comes_back(values: dict[str, str]) -> None:
    text = "".join(f"{name}='{value}'\n" for name, value in values.items())

    assert parse_dotenv(text) == values


@given(st.text())
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    with suppress(DotenvMalformed):
        parse_dotenv(text)
