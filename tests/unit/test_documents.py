"""Every block of code in the documentation has one test that runs it."""

from __future__ import annotations

from collections import Counter

import pytest

from documents import (
    PAGES,
    ROOT,
    Place,
    Unfinished,
    blocks_in,
    claims_in,
    every_block,
    every_claim,
    indented_code,
    with_each,
)


def test_every_block_is_run_by_one_test() -> None:
    claimed = Counter(claim.place for claim in every_claim())
    assert [str(block) for block in every_block() if claimed[block.place] != 1] == []


def test_every_test_of_a_block_has_its_block() -> None:
    there = {block.place for block in every_block()}
    assert [str(claim) for claim in every_claim() if claim.place not in there] == []


@pytest.mark.parametrize("page", PAGES)
def test_code_stands_in_fences_that_say_what_it_is(page: str) -> None:
    text = (ROOT / page).read_text("utf-8")
    assert indented_code(text) == []
    assert [str(block) for block in blocks_in(page, text) if not block.language] == []


def test_every_page_is_looked_at() -> None:
    pages = {
        str(path.relative_to(ROOT))
        for folder in (".", ".github", "build", "docs", "release", "release/*", "tests")
        for path in ROOT.glob(f"{folder}/*.md")
    }
    assert pages - set(PAGES) <= {"CHANGELOG.md"}


# --- that it would be noticed -----------------------------------------------------------------

SAMPLE = """# Title
```sh
one
```
text

    indented

- item

    of the item

## Part
~~~json
{}
~~~
```sh
# no heading
two
```
"""


def test_blocks_are_found_by_heading_and_number() -> None:
    found = [(block.place, block.language, block.line) for block in blocks_in("p", SAMPLE)]
    assert found == [
        (Place("p", "Title"), "sh", 2),
        (Place("p", "Part"), "json", 14),
        (Place("p", "Part", 1), "sh", 17),
    ]
    assert [block.text for block in blocks_in("p", SAMPLE)][2] == "# no heading\ntwo\n"


def test_code_without_a_fence_is_found_and_text_of_a_list_is_not() -> None:
    assert indented_code(SAMPLE) == ["    indented"]


def test_a_fence_without_an_end_is_an_error() -> None:
    with pytest.raises(Unfinished):
        list(blocks_in("p", "```sh\nfor ever\n"))


def test_a_claim_says_literally_what_it_claims() -> None:
    calls = ('block("p", "Part", 1)', 'block("p", "Title")', "block(page, heading)")
    code = "\n".join(("from documents import block", *calls))
    assert [claim.place for claim in claims_in("f", code)] == [
        Place("p", "Part", 1),
        Place("p", "Title"),
        None,
    ]


def test_an_example_that_is_not_there_any_more_is_noticed() -> None:
    assert with_each("a :7779 b", {":7779": ":1"}) == "a :1 b"
    with pytest.raises(LookupError):
        with_each("a", {":7779": ":1"})
