"""The notes of a release, and what ends one."""

from __future__ import annotations

import pytest

from deployments import ROOT, script

NOTES = script("notes.py")
CHANGELOG = """# Changelog

## Unreleased

- Nothing yet.

## 1.2.0 - 2027-01-15

### Added

- A thing.

## [1.1.0] - 2026-12-01

- An older one.

## 1.0.0
"""


@pytest.mark.parametrize(
    ("version", "expected"),
    [("1.2.0", "### Added\n\n- A thing.\n"), ("1.1.0", "- An older one.\n")],
)
def test_the_notes_are_the_section_of_the_version(version: str, expected: str) -> None:
    assert NOTES.notes(CHANGELOG, version) == expected


@pytest.mark.parametrize("version", ["1.0.0", "1.2", "2.0.0", "1.2.0 "])
def test_a_version_without_a_section_is_no_release(version: str) -> None:
    with pytest.raises(ValueError, match="no section"):
        NOTES.notes(CHANGELOG, version)


def test_a_tag_is_the_version() -> None:
    NOTES.check_tag("v1.2.0", "1.2.0")
    for tag in ("1.2.0", "v1.2.1", "v1.2.0-rc1", "main"):
        with pytest.raises(ValueError, match="the tag is"):
            NOTES.check_tag(tag, "1.2.0")


def test_the_changelog_is_in_that_form() -> None:
    assert NOTES.notes((ROOT / "CHANGELOG.md").read_text("utf-8"), "Unreleased")
