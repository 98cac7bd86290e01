"""docs/architecture.svg: what is plaintext lies on its side of the border, and that alone."""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree as ET

PICTURE = ET.parse(Path(__file__).parents[2] / "docs" / "architecture.svg").getroot()
SVG = "{http://www.w3.org/2000/svg}"


class Point(NamedTuple):
    x: float
    y: float


def boxes(kind: str) -> list[Point]:
    """The upper left corners of the boxes of one kind."""
    found = [box for box in PICTURE.iter(f"{SVG}rect") if box.get("class") == kind]
    return [Point(float(box.attrib["x"]), float(box.attrib["y"])) for box in found]


def corner() -> Point:
    """The border's: plaintext lies right of it and below it."""
    (border,) = [path for path in PICTURE.iter(f"{SVG}path") if path.get("class") == "border"]
    drawn = re.fullmatch(r"M(\d+) \d+V(\d+)H\d+", border.attrib["d"])
    assert drawn is not None
    return Point(float(drawn[1]), float(drawn[2]))


def is_plain(point: Point) -> bool:
    return point.x > corner().x and point.y > corner().y


def arrows() -> list[tuple[Point, Point]]:
    """Where each arrow, which goes straight, begins and ends."""
    found = []
    for path in PICTURE.iter(f"{SVG}path"):
        drawn = re.fullmatch(r"M(\d+) (\d+)([VH])(\d+)", path.attrib["d"])
        if drawn is not None:
            begin, end = Point(float(drawn[1]), float(drawn[2])), float(drawn[4])
            found.append((begin, begin._replace(**{"y" if drawn[3] == "V" else "x": end})))
    return found


def test_ciphertext_and_plaintext_lie_on_their_own_sides() -> None:
    assert len(boxes("cipher")) == 6
    assert not any(is_plain(box) for box in boxes("cipher"))
    assert len(boxes("plain")) == 4
    assert all(is_plain(box) for box in boxes("plain"))


def test_one_arrow_crosses_the_border_and_ends_in_decrypt() -> None:
    crossing = [(a, b) for a, b in arrows() if is_plain(a) != is_plain(b)]
    assert len(arrows()) == 10
    assert [b.x for _, b in crossing] == [860]
    titles = [text for text in PICTURE.iter(f"{SVG}text") if text.get("class") == "name"]
    assert [title.get("x") for title in titles if title.text == "decrypt"] == ["860"]
