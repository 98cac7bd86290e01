from __future__ import annotations

import asyncio
import hashlib
import json
import traceback
import zlib
from dataclasses import dataclass
from pathlib import Path

import pyrage
import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, verify
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.errors import ArtifactError, DecryptFailed
from clef_agent.keys import KeyMalformed
from fakes import (
    AGE_KEY,
    AGE_RECIPIENT,
    OTHER_AGE_KEY,
    OTHER_AGE_RECIPIENT,
    FakeFiles,
    encrypted,
    packed,
    rehashed,
    shared,
)

KEY_FILE = "/run/keys/age.txt"


def sealed(plaintext: bytes = b"{}", *recipients: str) -> bytes:
    keys = [pyrage.x25519.Recipient.from_str(r) for r in recipients or (AGE_RECIPIENT,)]
    ciphertext: bytes = pyrage.encrypt(plaintext, keys)
    return ciphertext


def keyring(inline: str | None = None, *, file: bytes | None = None) -> AgeKeyring:
    if file is None:
        return AgeKeyring(inline, None, FakeFiles())
    return AgeKeyring(inline, KEY_FILE, FakeFiles({KEY_FILE: file}))


#: Made once: pyrage adds a stanza of random length to each file.
SEALED = sealed(b'{"a":"b"}')


def test_an_inline_identity_opens() -> None:
    assert keyring(AGE_KEY).open(sealed(b"text")) == b"text"


def test_every_identity_is_tried_and_not_the_first_only() -> None:
    # case 26
    both = f"# old\n{OTHER_AGE_KEY}\n# new\n{AGE_KEY}\n"
    assert keyring(both).open(sealed()) == b"{}"
    assert keyring(file=both.encode()).open(sealed()) == b"{}"
    assert keyring(OTHER_AGE_KEY, file=AGE_KEY.encode()).open(sealed()) == b"{}"
    assert keyring(AGE_KEY, file=OTHER_AGE_KEY.encode()).open(sealed()) == b"{}"


def test_any_of_several_recipients_opens() -> None:
    ciphertext = sealed(b"x", OTHER_AGE_RECIPIENT, AGE_RECIPIENT)
    assert keyring(AGE_KEY).open(ciphertext) == b"x"
    assert keyring(OTHER_AGE_KEY).open(ciphertext) == b"x"


def test_a_key_rotated_on_disk_needs_no_restart() -> None:
    # case 26
    files = FakeFiles({KEY_FILE: OTHER_AGE_KEY.encode()})
    ring = AgeKeyring(None, KEY_FILE, files)
    with pytest.raises(DecryptFailed):
        ring.open(sealed())
    files.files[KEY_FILE] = AGE_KEY.encode()
    assert ring.open(sealed()) == b"{}"
    reads = len(files.reads)
    assert ring.open(sealed()) == b"{}"
    assert len(files.reads) == reads, "a key that fits needs no look at the disk"


@pytest.mark.parametrize(
    "broken", [PermissionError(13, "Permission denied"), b"", b"\xff", b"half a k"]
)
def test_a_key_file_that_breaks_later_leaves_the_keys_of_before(broken: bytes | OSError) -> None:
    # case 26
    files = FakeFiles({KEY_FILE: AGE_KEY.encode()})
    ring = AgeKeyring(None, KEY_FILE, files)
    files.files[KEY_FILE] = broken
    problem = ring.reload()
    assert problem is not None
    assert problem.startswith("CLEF_AGENT_AGE_KEY_FILE ")
    assert ring.open(sealed()) == b"{}"
    with pytest.raises(DecryptFailed, match=r"age cannot open it.*CLEF_AGENT_AGE_KEY_FILE"):
        ring.open(sealed(b"{}", OTHER_AGE_RECIPIENT))


def test_a_key_file_that_appears_later_is_found() -> None:
    files = FakeFiles()
    ring = AgeKeyring(None, KEY_FILE, files)
    with pytest.raises(DecryptFailed, match="CLEF_AGENT_AGE_KEY_FILE cannot be read"):
        ring.open(sealed())
    files.files[KEY_FILE] = AGE_KEY.encode()
    assert ring.open(sealed()) == b"{}"


def test_no_age_key_at_all_is_said_so() -> None:
    ring = AgeKeyring(None, None, FakeFiles())
    assert ring.reload() is None
    with pytest.raises(DecryptFailed, match="no age key is configured"):
        ring.open(sealed())


def test_a_malformed_inline_key_is_no_keyring() -> None:
    with pytest.raises(KeyMalformed):
        keyring("AGE-SECRET-KEY-1")


@pytest.mark.parametrize(
    "ciphertext",
    [
        b"",
        b"age-encryption.org/v1",
        b"age-encryption.org/v1\n",
        b"age-encryption.org/v2\n-> X25519 x\n",
        b"-----BEGIN AGE ENCRYPTED FILE-----\n",
        sealed()[:-1],
        sealed()[:-17],
        sealed() + b"\0",
        b" " + sealed(),
        b"{}",
    ],
)
def test_what_is_no_sound_binary_age_file_is_not_opened(ciphertext: bytes) -> None:
    with pytest.raises(DecryptFailed):
        keyring(AGE_KEY).open(ciphertext)


def test_no_error_of_a_keyring_shows_a_key() -> None:
    ring = keyring(AGE_KEY, file=OTHER_AGE_KEY.encode())
    with pytest.raises(DecryptFailed) as caught:
        ring.open(sealed(b"{}", str(pyrage.x25519.Identity.generate().to_public())))
    rendered = "".join(traceback.format_exception(caught.value)) + repr(ring)
    assert AGE_KEY not in rendered
    assert OTHER_AGE_KEY not in rendered


@given(st.data())
def test_any_mangled_age_file_is_opened_or_refused_by_name(draw: st.DataObject) -> None:
    mangled = bytearray(SEALED)
    for _ in range(draw.draw(st.integers(1, 4))):
        at = draw.draw(st.integers(0, len(mangled) - 1))
        mangled[at : at + draw.draw(st.integers(0, 3))] = draw.draw(st.binary(max_size=4))
    try:
        found = keyring(AGE_KEY).open(bytes(mangled))
    except DecryptFailed:
        return
    assert found == b'{"a":"b"}'


# --- the vectors of C2SP/CCTV -------------------------------------------------------------------

_FOLDER = Path(__file__).resolve().parents[4] / "shared" / "cctv-age"
_NAMES = sorted(path.name for path in _FOLDER.iterdir()) if _FOLDER.exists() else ["absent"]

#: Vectors that expect success, and why they are refused here all the same.
REFUSED = {
    # The artifact format holds a binary age file.
    "armor_crlf": "armored",
    "armor_full_last_line": "armored",
    "armor_no_eol": "armored",
    "armor_whitespace_outside": "armored",
    "armor_x25519": "armored",
    "armor_scrypt": "armored",
    "armor_hybrid": "armored",
    # Configuration takes X25519 identities; a passphrase has no variable.
    "scrypt": "passphrase",
    # pyrage 1.4 has no mlkem768x25519 (str4d/rage#632); its identities are refused at start.
    "hybrid": "post-quantum",
    "hybrid_and_x25519": "post-quantum",
    "hybrid_grease": "post-quantum",
    "hybrid_multiple_recipients": "post-quantum",
}

#: Vectors that expect failure, and that pyrage opens all the same.
OPENED = {
    # It takes a stanza whose last line is full, where the specification wants an empty one after
    # it. The header's MAC covers what is read, so nobody but the sender can make such a file.
    "stanza_missing_body",
    "stanza_missing_final_line",
}


@dataclass(frozen=True)
class Vector:
    expect: str
    payload: str | None
    identities: str
    body: bytes


def vector(name: str) -> Vector:
    header, _, body = (shared("cctv-age") / name).read_bytes().partition(b"\n\n")
    fields: dict[str, list[str]] = {}
    for line in header.decode().splitlines():
        key, _, value = line.partition(": ")
        fields.setdefault(key, []).append(value)
    if fields.get("compressed") == ["zlib"]:
        body = zlib.decompress(body)
    return Vector(
        expect=fields["expect"][0],
        payload=fields.get("payload", [None])[0],
        identities="\n".join(fields.get("identity", [])),
        body=body,
    )


def ring_for(found: Vector) -> AgeKeyring:
    """A keyring with the vector's identities, or ours where pyrage does not take them."""
    try:
        return AgeKeyring(found.identities or AGE_KEY, None, FakeFiles())
    except KeyMalformed:
        return keyring(AGE_KEY)


@pytest.mark.parametrize("name", _NAMES)
def test_each_cctv_vector_is_opened_or_refused_as_it_expects(name: str) -> None:
    found = vector(name)
    ring = ring_for(found)
    if (found.expect == "success" and name not in REFUSED) or name in OPENED:
        digest = hashlib.sha256(ring.open(found.body)).hexdigest()
        assert found.payload in (None, digest)
    else:
        with pytest.raises(DecryptFailed):
            ring.open(found.body)


@pytest.mark.parametrize("name", _NAMES)
def test_each_cctv_vector_in_an_artifact_is_refused_by_name(name: str) -> None:
    found = vector(name)
    verified = verify(parse(rehashed(packed(), found.body or b"\0")), Policy(), wall=0)
    decryptor = Decryptor(ring_for(found), EnvelopeOpener({}))
    with pytest.raises(ArtifactError) as caught:
        asyncio.run(decryptor.decrypt(verified))
    opened = (found.expect == "success" and name not in REFUSED) or name in OPENED
    assert caught.value.reason == ("payload_parse" if opened else "decrypt")


def test_deviations_are_named_vectors_of_the_right_kind() -> None:
    shared("cctv-age")
    assert len(_NAMES) == 143
    assert {vector(name).expect for name in REFUSED} == {"success"}
    assert "success" not in {vector(name).expect for name in OPENED}


def test_the_whole_way_opens_what_is_packed() -> None:
    verified = verify(parse(encrypted(b'{"a":"b"}')), Policy(), wall=0)
    secrets = asyncio.run(Decryptor(keyring(AGE_KEY), EnvelopeOpener({})).decrypt(verified))
    assert json.loads(bytes(secrets.json)) == {"a": "b"}
