from __future__ import annotations

import asyncio
import json
import os
import threading

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st

from clef_agent import decrypt
from clef_agent.artifact.pack import Payload
from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, verify
from clef_agent.decrypt import Decryptor, Secrets
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.decrypt.secrets import parse_payload
from clef_agent.errors import ArtifactError, ClefError, UnwrapFailed, UnwrapUnavailable
from clef_agent.keys import decode_base64, encode_base64
from clef_agent.kms.base import KeyUnwrapper
from fakes import (
    AGE_KEY,
    ECDSA_KEY,
    ECDSA_SIGNER,
    ED25519_KEY,
    ED25519_SIGNER,
    NOW,
    PAYLOAD,
    FakeFiles,
    FakeKeyService,
    FakeUnwrapper,
    encrypted,
    packed,
    rehashed,
    with_envelope,
)


def decryptor_with(unwrapper: KeyUnwrapper | None = None) -> Decryptor:
    """One that has the age key of ``fakes``, and ``unwrapper`` for AWS."""
    services = {} if unwrapper is None else {"aws": unwrapper}
    return Decryptor(AgeKeyring(AGE_KEY, None, FakeFiles()), EnvelopeOpener(services))


def opened(data: bytes, unwrapper: KeyUnwrapper, policy: Policy | None = None) -> Secrets:
    verified = verify(parse(data), policy or Policy(), wall=NOW)
    return asyncio.run(decryptor_with(unwrapper).decrypt(verified))


def reason(data: bytes, unwrapper: KeyUnwrapper) -> str:
    with pytest.raises(ArtifactError) as caught:
        opened(data, unwrapper)
    return caught.value.reason


def test_an_envelope_opens_with_the_key_that_its_service_unwraps() -> None:
    service = FakeKeyService()
    data = packed(service=service)
    envelope = json.loads(data)["envelope"]
    assert json.loads(bytes(opened(data, service).json)) == PAYLOAD
    assert service.calls == [
        (envelope["keyId"], decode_base64(envelope["wrappedKey"]), envelope["algorithm"])
    ]


def test_a_wrapped_key_that_no_service_made_is_shown_to_none() -> None:
    service = FakeKeyService()
    data = with_envelope(packed(service=service), wrappedKey=encode_base64(b"x" * 6145))
    assert reason(data, service) == "kms_unwrap"
    assert service.calls == []


def test_only_a_verified_artifact_is_decrypted() -> None:
    # case 1
    artifact = parse(packed())
    decryptor = decryptor_with()
    with pytest.raises(TypeError):
        asyncio.run(decryptor.decrypt(artifact))  # type: ignore[arg-type]


def test_the_data_key_is_zeroed_whatever_comes_of_it() -> None:
    service = FakeKeyService()
    data = packed(service=service)
    opened(data, service)
    reason(rehashed(data, b"another"), service)
    assert len(service.handed_out) == 2
    assert all(buffer == bytes(32) for buffer in service.handed_out)
    short = FakeUnwrapper(b"k" * 16)
    reason(data, short)
    assert short.handed_out == [bytearray(16)]


@pytest.mark.parametrize("size", [0, 1, 15, 16, 24, 31, 33, 64])
def test_a_data_key_of_another_length_is_refused(size: int) -> None:
    # case 7
    assert reason(packed(service=FakeKeyService()), FakeUnwrapper(b"k" * size)) == "decrypt"


@pytest.mark.parametrize("size", [1, 4, 8, 12, 13, 14, 15, 17, 32])
def test_a_tag_of_another_length_is_refused(size: int) -> None:
    # case 7
    service = FakeKeyService()
    data = packed(service=service)
    tag = decode_base64(json.loads(data)["envelope"]["authTag"]) * 2
    assert reason(with_envelope(data, authTag=encode_base64(tag[:size])), service) == "decrypt"


@pytest.mark.parametrize("size", [1, 7, 8, 11, 13, 16, 128])
def test_an_iv_of_another_length_is_refused(size: int) -> None:
    # case 7
    service = FakeKeyService()
    key, iv = os.urandom(32), os.urandom(size)
    sealed = AESGCM(key).encrypt(iv, b"{}", None) if size >= 8 else bytes(18)  # GCM's own limit
    data = rehashed(packed(service=service), sealed[:-16])
    data = with_envelope(data, iv=encode_base64(iv), authTag=encode_base64(sealed[-16:]))
    assert reason(data, FakeUnwrapper(key)) == "decrypt"


@pytest.mark.parametrize("name", ["iv", "authTag"])
@pytest.mark.parametrize("text", ["!", "é", "A", "=", " "])
def test_an_iv_or_tag_that_is_no_base64_is_refused(name: str, text: str) -> None:
    service = FakeKeyService()
    assert reason(with_envelope(packed(service=service), **{name: text}), service) == "decrypt"


def test_a_tag_or_key_or_iv_that_does_not_fit_is_refused() -> None:
    service = FakeKeyService()
    data = packed(service=service)
    for name, size in (("iv", 12), ("authTag", 16)):
        assert reason(with_envelope(data, **{name: encode_base64(bytes(size))}), service) == (
            "decrypt"
        )
    assert reason(data, FakeUnwrapper(bytes(32))) == "decrypt"


@pytest.mark.parametrize("provider", ["gcp", "azure", "AWS", "aws ", "vault"])
def test_a_key_service_that_the_agent_does_not_have_is_kms_unwrap(provider: str) -> None:
    service = FakeKeyService()
    assert reason(with_envelope(packed(service=service), provider=provider), service) == (
        "kms_unwrap"
    )
    assert service.calls == []


def test_a_wrapped_key_that_is_no_base64_is_kms_unwrap() -> None:
    service = FakeKeyService()
    data = with_envelope(packed(service=service), wrappedKey="no base64")
    assert reason(data, service) == "kms_unwrap"
    assert service.calls == []


@pytest.mark.parametrize("failure", [UnwrapFailed("denied"), UnwrapUnavailable("throttled")])
def test_what_the_key_service_says_is_passed_on(failure: ClefError) -> None:
    service = FakeKeyService()
    data = packed(service=service)
    service.failure = failure
    with pytest.raises(UnwrapFailed) as caught:
        opened(data, service)
    assert caught.value is failure


@pytest.mark.parametrize("text", ["!", "é", "AAAA\n", "A"])
def test_a_ciphertext_that_is_no_base64_is_decrypt(text: str) -> None:
    assert reason(rehashed(packed(), text), FakeUnwrapper()) == "decrypt"


@pytest.mark.parametrize("service", [None, FakeKeyService()])
def test_everything_may_be_url_safe_and_unpadded(service: FakeKeyService | None) -> None:
    # case 28
    def url_safe(text: str) -> str:
        return text.replace("+", "-").replace("/", "_").rstrip("=")

    data = packed(service=service)
    document = json.loads(data)
    data = rehashed(data, url_safe(document["ciphertext"]))
    if service is not None:
        names = ("wrappedKey", "iv", "authTag")
        data = with_envelope(data, **{n: url_safe(document["envelope"][n]) for n in names})
    assert json.loads(bytes(opened(data, service or FakeUnwrapper()).json)) == PAYLOAD


def test_keys_are_read_anew_on_demand() -> None:
    files = FakeFiles({"/k": AGE_KEY.encode()})
    decryptor = Decryptor(AgeKeyring(None, "/k", files), EnvelopeOpener({}))
    reads = len(files.reads)
    decryptor.reload_keys()
    assert len(files.reads) == reads + 1


def test_a_payload_is_looked_through_once_for_as_long_as_artifact_and_keys_are_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    parsed: list[bytes] = []

    def parse_once_more(plaintext: bytearray) -> Secrets:
        parsed.append(bytes(plaintext))
        return parse_payload(plaintext)

    monkeypatch.setattr(decrypt, "parse_payload", parse_once_more)
    decryptor = decryptor_with()

    def parses_of(data: bytes, *, times: int = 3) -> int:
        verified, before = verify(parse(data), Policy(), wall=NOW), len(parsed)
        for _ in range(times):
            secrets = asyncio.run(decryptor.decrypt(verified))
            assert json.loads(bytes(secrets.json)) == PAYLOAD
            assert secrets.find("app__API_KEY") is not None
        return len(parsed) - before

    assert parses_of(packed()) == 1
    assert parses_of(packed()) == 1, "another artifact, be it equal"
    verified = verify(parse(packed()), Policy(), wall=NOW)
    for _ in range(2):
        decryptor.reload_keys()
        before = len(parsed)
        asyncio.run(decryptor.decrypt(verified))
        assert len(parsed) == before + 1


def test_a_payload_from_an_envelope_is_looked_through_each_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # AES-GCM alone lets one ciphertext have a plaintext for each of several keys.
    monkeypatch.setattr(decrypt, "parsed_before", None)
    service = FakeKeyService()
    decryptor = decryptor_with(service)
    verified = verify(parse(packed(service=service)), Policy(), wall=NOW)
    for _ in range(3):
        assert json.loads(bytes(asyncio.run(decryptor.decrypt(verified)).json)) == PAYLOAD


def test_a_payload_that_is_refused_is_refused_each_time() -> None:
    decryptor = decryptor_with()
    verified = verify(parse(encrypted(b'{"a":1}')), Policy(), wall=NOW)
    for _ in range(3):
        with pytest.raises(ArtifactError):
            asyncio.run(decryptor.decrypt(verified))


def test_a_large_ciphertext_is_opened_beside_the_loop() -> None:
    # The key file is read anew in the thread that decrypts.
    threads: list[threading.Thread] = []

    def read_file(_: str) -> bytes:
        threads.append(threading.current_thread())
        return AGE_KEY.encode()

    keyring = AgeKeyring(None, "/k", read_file)
    decryptor = Decryptor(keyring, EnvelopeOpener({}))
    padding = b"\0" * (decrypt.INLINE_MAX_CHARS // 4 * 3)
    for ciphertext in (b"age-encryption.org/v1\nx", b"age-encryption.org/v1\n" + padding):
        verified = verify(parse(rehashed(packed(), ciphertext)), Policy(), wall=NOW)
        with pytest.raises(ArtifactError):
            asyncio.run(decryptor.decrypt(verified))
    start, small, large = threads
    assert start is small is threading.main_thread()
    assert large is not threading.main_thread()


any_payload = st.dictionaries(
    st.text(max_size=20),
    st.text(max_size=200) | st.dictionaries(st.text(max_size=20), st.text(max_size=200)),
    max_size=5,
) | st.integers(0, 200_000).map(lambda size: {"BIG": "é" * size})


@given(any_payload, st.booleans(), st.sampled_from([None, "ed25519", "ecdsa"]))
def test_any_payload_comes_back_as_it_was_packed(
    payload: Payload, with_service: bool, signing: str | None
) -> None:
    service = FakeKeyService()
    signer = {"ed25519": ED25519_SIGNER, "ecdsa": ECDSA_SIGNER, None: None}[signing]
    key = {"ed25519": ED25519_KEY.public_key(), "ecdsa": ECDSA_KEY.public_key(), None: None}[
        signing
    ]
    data = packed(payload, service=service if with_service else None, signer=signer)
    secrets = opened(data, service, Policy(verify_key=key))
    assert json.loads(bytes(secrets.json)) == payload
