"""botocore's descriptions of services, without what this agent never reads.

botocore keeps what it has read for as long as its clients live: half of it is the manual, and the
table of endpoints lists hundreds of services. Together they are ten megabytes.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any, Final

from botocore.loaders import JSONFileLoader

#: What endpoints are looked up for: the sources and keys, and where credentials come from.
SERVICES: Final = frozenset({"s3", "kms", "sts", "oidc", "portal.sso", "sso", "signin"})


class LeanDescriptions(JSONFileLoader):
    """Reads a description as its superclass does, and leaves out what is not needed on the way.

    Dropped while it is parsed, and not afterwards: the whole of it never is in memory.
    """

    def load_file(self, file_path: str) -> Any:
        """What ``file_path`` with ``.json`` or ``.json.gz`` holds, or None where neither is."""
        plain, packed = Path(f"{file_path}.json"), Path(f"{file_path}.json.gz")
        if plain.is_file():
            return _lean(plain.read_bytes())
        if packed.is_file():
            return _lean(gzip.decompress(packed.read_bytes()))
        return None


def _lean(description: bytes) -> Any:
    return json.loads(description, object_hook=_without_the_unread)


def _without_the_unread(part: dict[str, Any]) -> dict[str, Any]:
    if isinstance(part.get("documentation"), str):  # else it is a member that is called so
        part["documentation"] = ""  # and not gone: botocore asks for it here and there
    if "services" in part and "dnsSuffix" in part:  # a partition in the table of endpoints
        services = part["services"]
        part["services"] = {name: services[name] for name in SERVICES & services.keys()}
    return part
