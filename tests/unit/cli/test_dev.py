"""The source behind ``dev``: a file that is packed as it changes."""

from __future__ import annotations

import asyncio
import json
import time
from pathlib import Path

import pytest

from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, verify
from clef_agent.cli.dev import FileUnservable, PackedFile, ThrowAwayKeys
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.keys import parse_verify_key
from clef_agent.sources.base import Fetched, NotModified
from fakes import FakeFiles


def opened(fetched: Fetched | NotModified, keys: ThrowAwayKeys) -> object:
    """The payload of what was fetched, by way of every check."""
    assert isinstance(fetched, Fetched)
    policy = Policy(verify_key=parse_verify_key(keys.verify_key))
    verified = verify(parse(fetched.data), policy, wall=time.time())
    keyring = AgeKeyring(keys.identity, None, FakeFiles())
    secrets = asyncio.run(Decryptor(keyring, EnvelopeOpener({})).decrypt(verified))
    return json.loads(bytes(secrets.json))


def test_a_file_is_packed_anew_when_it_has_changed_and_only_then(tmp_path: Path) -> None:
    file, keys = tmp_path / "app.env", ThrowAwayKeys()
    file.write_text("KEY=one\n")
    source = PackedFile(file, keys)

    first = asyncio.run(source.fetch(None))
    assert opened(first, keys) == {"KEY": "one"}
    assert isinstance(first, Fetched)
    assert isinstance(asyncio.run(source.fetch(first.validator)), NotModified)

    file.write_text("KEY=another\n")
    assert opened(asyncio.run(source.fetch(first.validator)), keys) == {"KEY": "another"}


def test_the_sample_never_changes() -> None:
    keys = ThrowAwayKeys()
    source = PackedFile(None, keys)
    first = asyncio.run(source.fetch(None))
    assert isinstance(first, Fetched)
    assert opened(first, keys)
    assert isinstance(asyncio.run(source.fetch(first.validator)), NotModified)
    assert source.describe() == "a sample (packed in memory)"


@pytest.mark.parametrize("content", [None, "no assignment\n"])
def test_what_cannot_be_packed_says_what_to_do(tmp_path: Path, content: str | None) -> None:
    file = tmp_path / "app.env"
    if content is not None:
        file.write_text(content)
    with pytest.raises(FileUnservable) as caught:
        asyncio.run(PackedFile(file, ThrowAwayKeys()).fetch(None))
    assert str(file) in str(caught.value)
    assert "save it again" in caught.value.hint


def test_throw_away_keys_do_not_print() -> None:
    keys = ThrowAwayKeys()
    assert keys.identity not in repr(keys)
