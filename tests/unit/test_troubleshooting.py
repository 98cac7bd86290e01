"""docs/troubleshooting.md against the code: what it quotes is said, and what is said by a word that
programs and people look up has an entry.
"""

from __future__ import annotations

import ast
import json
import re
from pathlib import Path

import pytest

from clef_agent import errors
from messages import PAGE, ROOT, entries, is_said, messages, messages_in

SOURCES = ROOT / "src" / "clef_agent"
SAID = messages(SOURCES)
ENTRIES = entries(PAGE.read_text("utf-8"))
API = "Answers of the API"
STATUS = re.compile(r"[45]\d\d")
REASON = re.compile(r"reason=(\w+)")
QUOTES = sorted(
    {
        quote
        for entry in ENTRIES
        for quote in entry.quotes
        if not STATUS.fullmatch(quote) and not REASON.fullmatch(quote)
    }
)


def subclasses(kind: type[errors.ClefError]) -> set[type[errors.ClefError]]:
    return {kind}.union(*(subclasses(child) for child in kind.__subclasses__()))


def reasons(kind: type[errors.ClefError]) -> set[str]:
    """The reasons of what is raised: the class itself only stands for them."""
    return {child.reason for child in subclasses(kind)} - {kind.reason}


def quoted_in(section: str) -> set[str]:
    return {quote for entry in ENTRIES if entry.section == section for quote in entry.quotes}


@pytest.mark.parametrize("quote", QUOTES)
def test_every_message_on_the_page_is_one_of_the_code(quote: str) -> None:
    assert is_said(quote, SAID) or quote in reasons(errors.ClefError)


def test_every_reason_of_a_rejection_has_an_entry_and_no_other() -> None:
    quoted = {
        found[1] for quote in quoted_in("Checks of an artifact") if (found := REASON.match(quote))
    }
    assert quoted == reasons(errors.ArtifactError)


def test_every_reason_of_a_503_has_an_entry() -> None:
    quoted = {
        quote
        for entry in ENTRIES
        if entry.section == API and "503" in entry.quotes
        for quote in entry.quotes
    }
    # AttemptFailed has the reason of what failed, and its text is quoted in its place.
    assert quoted == {"503", "the attempt failed"} | reasons(errors.Unavailable)


def test_every_status_of_an_error_has_an_entry_and_no_other() -> None:
    quoted = {quote for quote in quoted_in(API) if STATUS.fullmatch(quote)}
    description = json.loads((SOURCES / "server" / "openapi.json").read_bytes())
    described = {
        status
        for path in description["paths"].values()
        for operation in path.values()
        if isinstance(operation, dict)
        for status in operation.get("responses", {})
        if STATUS.fullmatch(status)
    }
    assert quoted == described | statuses_in_code()


def statuses_in_code() -> set[str]:
    """The statuses that the server answers with, as numbers or in a head that it writes itself."""
    found: set[str] = set()
    for path in (SOURCES / "server").glob("*.py"):
        text = path.read_text("utf-8")
        found.update(re.findall(r"HTTP/1\.1 ([45]\d\d)", text))
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Constant) and type(node.value) is int:
                found.update(STATUS.findall(str(node.value)) if 400 <= node.value < 600 else ())
    return found


def test_every_readiness_reason_has_a_hint_and_an_entry() -> None:
    from clef_agent.cli.probe import _UNREADY_HINTS

    assert set(_UNREADY_HINTS) <= quoted_in(API)


def test_every_entry_says_something_and_is_there_once() -> None:
    assert all(len(entry.text) > 40 for entry in ENTRIES)
    keys = [(entry.section, entry.quotes) for entry in ENTRIES]
    assert len(keys) == len(set(keys))
    assert len(ENTRIES) > 45


def test_the_sections_are_listed_at_the_top() -> None:
    page = PAGE.read_text("utf-8")
    listed = re.findall(r"^\[|(?<=\()#([\w-]+)\)", page.partition("\n## ")[0], re.MULTILINE)
    titles = re.findall(r"^## (.+)$", page, re.MULTILINE)
    assert [name for name in listed if name] == [
        re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles
    ]


def test_every_option_and_variable_that_it_advises_exists() -> None:
    page = PAGE.read_text("utf-8")
    from clef_agent.config import VARIABLES

    named = set(re.findall(r"CLEF_AGENT_[A-Z_]*[A-Z]\b(?!_|\*|\.\.\.)", page))
    assert named <= set(VARIABLES)
    options = set(re.findall(r"`(--[a-z-]+)", page))
    code = "".join(path.read_text("utf-8") for path in (SOURCES / "cli").glob("*.py"))
    assert {name for name in options if not _is_option(name, code)} == set()


def _is_option(name: str, code: str) -> bool:
    """Typer makes an option of a parameter's name, or takes one that is written out."""
    return f'"{name}' in code or f" {name.removeprefix('--').replace('-', '_')}: " in code


# --- that it would be noticed -----------------------------------------------------------------


CODE = '''
"""A docstring is no message."""
PREFIX = "CLEF_AGENT_"
raise Wrong(f"port {port} of {PREFIX}PORT is"
            " in use")
LOGGER.info("gone: %s", why)
self._problem("PORT", f"must be at least {lowest}")
'''


def test_messages_are_read_whole_with_their_places_marked() -> None:
    assert {
        "port ... of CLEF_AGENT_PORT is in use",
        "gone: ...",
        "CLEF_AGENT_PORT must be at least ...",
    } <= messages_in(CODE)
    assert "A docstring is no message." not in messages_in(CODE)


@pytest.mark.parametrize(
    ("quote", "said"),
    [
        ("port ... of CLEF_AGENT_PORT is in use", True),
        ("... in use", True),
        ("in us", False),
        ("port ... of CLEF_AGENT_PORT was in use", False),
        ("gone: ...", True),
        ("CLEF_AGENT_PORT must be at most ...", False),
    ],
)
def test_a_message_that_was_altered_is_not_found(quote: str, said: bool) -> None:
    assert is_said(quote, [messages_in(CODE)]) is said


def test_links_within_the_documentation_lead_to_headings() -> None:
    page = PAGE.read_text("utf-8")
    for target, anchor in re.findall(r"\]\(([\w./-]*\.md)?#([\w-]+)\)", page):
        text = (PAGE.parent / target).read_text("utf-8") if target else page
        headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
        slugs = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in headings}
        assert anchor in slugs, f"{Path(target or PAGE.name).name}#{anchor}"
