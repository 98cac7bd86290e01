"""Packs the folder build as a Lambda layer: the same folder gives the same bytes.

Lambda unpacks it to /opt and runs every file of /opt/extensions; a file's name is its extension's.
Source: https://docs.aws.amazon.com/lambda/latest/dg/packaging-layers.html
"""

from __future__ import annotations

import sys
import zipfile
from pathlib import Path

_EXTENSION = "clef-agent"
_HERE = Path(__file__).parent
#: The earliest that a zip can say.
_TIME = (1980, 1, 1, 0, 0, 0)


def pack(folder: Path, target: Path) -> None:
    """Writes ``target`` with ``folder`` as clef-agent/, and the script that starts it."""
    files = {
        f"{_EXTENSION}/{path.relative_to(folder)}": path
        for path in folder.rglob("*")
        if path.is_file()
    }
    files[f"extensions/{_EXTENSION}"] = _HERE / "extension.sh"
    with zipfile.ZipFile(target, "w") as layer:
        for name, path in sorted(files.items()):
            entry = zipfile.ZipInfo(name, _TIME)
            runs = path.stat().st_mode & 0o100 or name.startswith("extensions/")
            entry.external_attr = (0o100755 if runs else 0o100644) << 16
            entry.create_system = 3  # Unix, or the mode is not read
            layer.writestr(entry, path.read_bytes(), zipfile.ZIP_DEFLATED, compresslevel=9)


if __name__ == "__main__":
    pack(Path(sys.argv[1]), Path(sys.argv[2]))
