"""Which route a path has."""

from __future__ import annotations

import tracemalloc

import pytest

from clef_agent.server.replies import Reply
from clef_agent.server.routes import Request, Route, Routes
from server_fakes import every_route


async def _answer(_: Request) -> Reply:
    return Reply(200, ())


ALL = Route("GET", "/things", _answer)
ONE = Route("GET", "/things/{thing}", _answer)
PART = Route("GET", "/things/{thing}/{part}", _answer)
FIXED = Route("POST", "/things/fixed", _answer)
ROUTES = Routes((ALL, ONE, PART, FIXED))


def test_a_path_without_variables_is_that_path_alone() -> None:
    assert ROUTES.find("/things") == (ALL, ())
    for path in ("", "/", "/thing", "/things/", "/things\n", "/Things", "things", "//things"):
        assert ROUTES.find(path) is None


def test_variables_are_segments_as_they_were_sent() -> None:
    assert ROUTES.find("/things/a%2Fb") == (ONE, ["a%2Fb"])
    assert ROUTES.find("/things/a/b") == (PART, ["a", "b"])
    assert ROUTES.find("/things/../b") == (PART, ["..", "b"])
    for path in ("/things//b", "/things/a/", "/things/a/b/", "/things/a/b/c", "/other/a"):
        assert ROUTES.find(path) is None


def test_a_fixed_path_goes_before_one_with_variables() -> None:
    assert ROUTES.find("/things/fixed") == (FIXED, ())


@pytest.mark.parametrize("path", ["/" * 32_000, "/things/" + "a/" * 16_000])
def test_a_path_of_slashes_is_not_taken_to_pieces(path: str) -> None:
    # Anybody may send one, with neither token nor Host.
    tracemalloc.start()
    try:
        assert ROUTES.find(path) is None
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * len(path)


def test_get_stands_for_head_and_what_is_allowed_is_sorted() -> None:
    assert ALL.methods == ("GET", "HEAD")
    assert FIXED.methods == ("POST",)
    assert (b"allow", b"GET, HEAD") in ALL.not_allowed().headers


def test_the_agent_has_each_path_once_and_variables_at_the_end_of_it() -> None:
    paths = [route.path for route in every_route()]
    assert len(set(paths)) == len(paths) == 8
    for path in paths:
        _, *variables = path.split("{")
        assert all(variable.strip("/").endswith("}") for variable in variables)
