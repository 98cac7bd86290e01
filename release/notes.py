"""The notes of a release: its section of the changelog.

They come first in a release, and are where one ends that nobody meant: a tag that is not the
package's version, a version that the changelog does not know.
"""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path


def notes(changelog: str, version: str) -> str:
    """What ``changelog`` says of ``version``, without its heading.

    Raises:
        ValueError: nothing.

    Source: https://keepachangelog.com/en/1.1.0/
    """
    heading = rf"^## \[?{re.escape(version)}\]?(?: [^\n]*)?\n"
    section = re.search(rf"{heading}(.*?)(?=^## |\Z)", changelog, re.MULTILINE | re.DOTALL)
    if section is None or not section[1].strip():
        raise ValueError(f"the changelog has no section for {version}, or an empty one")
    return f"{section[1].strip()}\n"


def check_tag(tag: str, version: str) -> None:
    """Demands that ``tag`` is that of ``version``.

    Raises:
        ValueError: it is another one.
    """
    if tag != f"v{version}":
        raise ValueError(f"the tag is {tag}, the package's version {version}")


def main(version: str, target: Path) -> None:
    """Writes the notes of ``version`` to ``target``. On GitHub, the tag is looked at, too."""
    check_tag(os.environ.get("GITHUB_REF_NAME", f"v{version}"), version)
    changelog = Path(__file__).parents[1] / "CHANGELOG.md"
    text = notes(changelog.read_text(encoding="utf-8"), version)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    try:
        main(sys.argv[1], Path(sys.argv[2]))
    except ValueError as exc:
        sys.exit(f"no release: {exc}")
