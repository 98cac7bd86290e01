"""How failures are told."""

from __future__ import annotations

import pytest

from clef_agent.cli.failure import Failure, printable, report
from clef_agent.errors import Expired


def test_a_failure_is_one_line_and_a_hint(capsys: pytest.CaptureFixture[str]) -> None:
    report(Failure("it broke\nhere\x1b[2J", "mend it"))

    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == ("[clef-agent] it broke\\nhere\\x1b[2J\n[clef-agent] hint: mend it\n")


def test_an_error_brings_its_own_hint(capsys: pytest.CaptureFixture[str]) -> None:
    report(Expired("2020-01-01"))

    first, second = capsys.readouterr().err.splitlines()
    assert first == "[clef-agent] the artifact expired at 2020-01-01"
    assert second == f"[clef-agent] hint: {Expired.hint}"


def test_without_a_hint_there_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    report(Failure("it broke"))

    assert capsys.readouterr().err == "[clef-agent] it broke\n"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("größe", "größe"),
        ("a\tb", "a\\tb"),
        ("\u202e", "\\u202e"),
        ("\x9b31m", "\\x9b31m"),
        ("\ud800", "\\ud800"),
    ],
)
def test_what_could_steer_a_terminal_is_shown_as_an_escape(text: str, shown: str) -> None:
    assert printable(text) == shown
