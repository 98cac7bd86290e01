"""Looks for secrets in the files that git tracks; exits with 1 where it finds one.

It says where, and of what kind, and never what. Nothing is sent anywhere: a key that is found is
not tried out.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from detect_secrets.core.scan import scan_file
from detect_secrets.settings import default_settings

#: What looks like a secret and is none, to the letter. An entry that nothing needs any more is an
#: error, too.
ALLOWED: Final = frozenset(
    (
        # The hash of a source archive, and the made-up id of a git object.
        "05eb2f5615503e72939a7224d68b4aff572c6b0438ee4a17d0a4b481f399362d",
        "5b1f1ee2b1c1a7c9a8fd32d2d9a1c0f6d7f0c111",
        # The key id in AWS's documentation, and the other half of one that is made up.
        "AKIAIOSFODNN7EXAMPLE",
        "the-secret",
        # What `clef-agent dev` serves when it is given nothing.
        "correct-horse",
        "battery-staple",
        "sample-api-key-7f3a",
        # What fakes on loopback serve, or take for a token.
        "app-key",
        "back",
        "rotated",
        # What must not be found in errors and logs.
        "hunter2",
        "hunter2-4711",
        "sEcReT-4711",
        # Userinfo in URLs of tests.
        "hush",
        "own-password",
        "p%3Aw",
        "p%40ss",
        "pass",
        "pass-secret",
        "pw",
    )
)

#: Verifying would mean to send what was found to whoever it might be a key of.
_VERIFYING: Final = "detect_secrets.filters.common.is_ignored_due_to_verification_policies"
#: Which detect-secrets does not know. Source: https://github.com/C2SP/C2SP/blob/main/age.md
_AGE_KEY: Final = re.compile(r"AGE-SECRET-KEY-(?:PQ-)?1[02-9AC-HJ-NP-Z]{40,}", re.IGNORECASE)


def main() -> int:
    """Prints what was found; returns the exit code."""
    listed = subprocess.run(["git", "ls-files", "-z"], capture_output=True, check=True, text=True)
    paths = [path for path in listed.stdout.split("\0") if Path(path).is_file()]
    used: set[str] = set()
    failed = False
    with default_settings() as settings:
        settings.disable_filters(_VERIFYING)
        for path in paths:
            for line, kind, value in _found_in(path):
                if value in ALLOWED:
                    used.add(value)
                else:
                    failed = True
                    sys.stderr.write(f"{path}:{line}: {kind}\n")
    if failed:
        sys.stderr.write(
            "That may be a secret. If so, it is known from now on: revoke it. If it is none, say so"
            " in ALLOWED of .ci/secret_scan.py, or behind the line: pragma: allowlist secret\n"
        )
    for value in sorted(ALLOWED - used):
        failed = True
        sys.stderr.write(f"nothing needs the entry {value!r} of ALLOWED any more\n")
    return 1 if failed else 0


def _found_in(path: str) -> Iterator[tuple[int, str, str]]:
    """Line, kind and value of what may be a secret in ``path``."""
    for secret in scan_file(path):
        yield secret.line_number, secret.type, secret.secret_value or ""
    text = Path(path).read_text("utf-8", "replace")
    for key in _AGE_KEY.finditer(text):
        yield text.count("\n", 0, key.start()) + 1, "age identity", key[0]


if __name__ == "__main__":
    sys.exit(main())
