"""The artifacts of another implementation, each through the whole way from bytes to values."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from pathlib import Path
from typing import Any

import pytest

from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, verify
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.errors import ArtifactError
from clef_agent.keys import parse_verify_key
from fakes import FakeFiles, FakeUnwrapper, shared

_MANIFEST = Path(__file__).resolve().parents[4] / "shared" / "vectors" / "manifest.json"
MANIFEST: dict[str, Any] = (
    json.loads(_MANIFEST.read_bytes()) if _MANIFEST.exists() else {"cases": [None]}
)


def served(data: bytes, case: dict[str, Any]) -> object:
    """What the agent would serve for ``data``."""
    key = MANIFEST["verifyKeys"][case["verifyKey"]] if "verifyKey" in case else None
    policy = Policy(verify_key=parse_verify_key(key) if key else None)
    unwrapper = FakeUnwrapper(base64.b64decode(case.get("dek", "")))
    decryptor = Decryptor(
        AgeKeyring(MANIFEST["ageKey"], None, FakeFiles()),
        EnvelopeOpener(dict.fromkeys(("aws", "gcp", "azure"), unwrapper)),
    )
    verified = verify(parse(data), policy, wall=time.time())
    secrets = asyncio.run(decryptor.decrypt(verified))
    assert all(not any(buffer) for buffer in unwrapper.handed_out), "a data key was left behind"
    return json.loads(bytes(secrets.json))


@pytest.mark.parametrize(
    "case", MANIFEST["cases"], ids=lambda case: case["name"] if case else "absent"
)
def test_each_vector_is_served_or_refused_as_its_manifest_says(case: dict[str, Any]) -> None:
    data = (shared("vectors") / case["file"]).read_bytes()
    expected = case["expect"]
    if "values" in expected:
        assert served(data, case) == expected["values"]
    else:
        with pytest.raises(ArtifactError) as caught:
            served(data, case)
        assert caught.value.reason == expected["reject"]


def test_all_vectors_are_there() -> None:
    shared("vectors")
    assert len(MANIFEST["cases"]) == 59
