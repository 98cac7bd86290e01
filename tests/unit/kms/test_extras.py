"""Without the library of a key service, the error names what to install."""

from __future__ import annotations

import subprocess
import sys

import pytest

_PROGRAM = """
import asyncio, sys
sys.modules[{absent!r}] = None  # as if it were not installed
from clef_agent.errors import UnwrapFailed
from clef_agent.kms.azure import AzureKeys
from clef_agent.kms.gcp import GcpKms
try:
    asyncio.run({service}(None).unwrap({key_id!r}, b"wrapped", {algorithm!r}))
except UnwrapFailed as exc:
    print(exc.reason, exc)
"""


@pytest.mark.parametrize(
    ("absent", "service", "key_id", "algorithm", "extra"),
    [
        (
            "google.auth",
            "GcpKms",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k",
            "GOOGLE_SYMMETRIC_ENCRYPTION",
            "clef-agent[gcp]",
        ),
        (
            "requests",
            "GcpKms",
            "projects/p/locations/global/keyRings/r/cryptoKeys/k",
            "GOOGLE_SYMMETRIC_ENCRYPTION",
            "clef-agent[gcp]",
        ),
        (
            "azure.core",
            "AzureKeys",
            "https://v.vault.azure.net/keys/k/1",
            "RSA-OAEP-256",
            "clef-agent[azure]",
        ),
    ],
)
def test_a_missing_library_is_named_by_its_extra(
    absent: str, service: str, key_id: str, algorithm: str, extra: str
) -> None:
    program = _PROGRAM.format(absent=absent, service=service, key_id=key_id, algorithm=algorithm)
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, timeout=60
    )
    assert done.stdout.startswith(b"kms_unwrap ")
    assert f'pip install "{extra}"' in done.stdout.decode()
