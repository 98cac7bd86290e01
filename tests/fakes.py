"""Stand-ins for the clock and the key service, throw-away keys, and makers of artifacts.

Everything here is made anew in each test run: no key lies in the repository.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import pyrage
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from clef_agent.artifact.pack import (
    Packing,
    Payload,
    ToKeyService,
    ToRecipients,
    WrappedKey,
    pack,
)
from clef_agent.artifact.parse import parse
from clef_agent.artifact.signing import EcdsaP256Signer, Ed25519Signer, Signer, signing_payload
from clef_agent.clock import Instant
from clef_agent.errors import ClefError, UnwrapFailed
from clef_agent.keys import encode_base64

Document: TypeAlias = "dict[str, Any]"

#: 2027-01-15T08:00:00Z, the moment at which fakes begin.
NOW = 1_800_000_000.0

IDENTITY = "api-gateway"
ENVIRONMENT = "production"
PAYLOAD: Payload = {
    "app": {"DATABASE_URL": "postgres://db/app", "API_KEY": "app-key"},
    "payments": {"STRIPE_KEY": "stripe-key"},
}

# --- keys -------------------------------------------------------------------------------------

_IDENTITY_KEY = pyrage.x25519.Identity.generate()
_OTHER_IDENTITY_KEY = pyrage.x25519.Identity.generate()
AGE_KEY = str(_IDENTITY_KEY)
AGE_RECIPIENT = str(_IDENTITY_KEY.to_public())
OTHER_AGE_KEY = str(_OTHER_IDENTITY_KEY)
OTHER_AGE_RECIPIENT = str(_OTHER_IDENTITY_KEY.to_public())

ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
OTHER_ED25519_KEY = ed25519.Ed25519PrivateKey.generate()
ECDSA_KEY = ec.generate_private_key(ec.SECP256R1())
ED25519_SIGNER = Ed25519Signer(ED25519_KEY)
OTHER_ED25519_SIGNER = Ed25519Signer(OTHER_ED25519_KEY)
ECDSA_SIGNER = EcdsaP256Signer(ECDSA_KEY)


def public_der(key: ed25519.Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> bytes:
    """The public half of ``key`` as DER SPKI."""
    return key.public_key().public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )


#: What CLEF_AGENT_VERIFY_KEY holds for ``ED25519_SIGNER`` and ``ECDSA_SIGNER``.
ED25519_VERIFY_KEY = encode_base64(public_der(ED25519_KEY))
ECDSA_VERIFY_KEY = encode_base64(public_der(ECDSA_KEY))

# --- protocols --------------------------------------------------------------------------------


class FakeClock:
    """A clock that stands still until it is told otherwise."""

    def __init__(self, wall: float = NOW, boot: float = 1_000.0) -> None:
        self.wall = wall
        self.boot = boot

    def now(self) -> Instant:
        return Instant(wall=self.wall, boot=self.boot)

    def advance(self, both: float = 0.0, *, wall: float = 0.0, boot: float = 0.0) -> None:
        """Moves both clocks by ``both`` seconds, and each by its own share on top."""
        self.wall += both + wall
        self.boot += both + boot


class FakeKeyService:
    """Wraps and unwraps (KeyWrapper, KeyUnwrapper); knows only the keys that it wrapped itself.

    ``failure`` is raised by the next unwraps for as long as it is set; ``handed_out`` holds the
    very buffers that were returned, so that a test can see them zeroed.
    """

    def __init__(
        self, provider: str = "aws", key_id: str = "arn:aws:kms:eu-west-1:1:key/k"
    ) -> None:
        self.provider = provider
        self.key_id = key_id
        self.failure: ClefError | None = None
        self.calls: list[tuple[str, bytes, str]] = []
        self.handed_out: list[bytearray] = []
        self._data_keys: dict[bytes, bytes] = {}

    def wrap(self, data_key: bytes) -> WrappedKey:
        wrapped = b"wrapped:" + hashlib.sha256(data_key).digest()
        self._data_keys[wrapped] = bytes(data_key)
        return WrappedKey(self.provider, self.key_id, wrapped, "SYMMETRIC_DEFAULT")

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        self.calls.append((key_id, wrapped_key, algorithm))
        if self.failure is not None:
            raise self.failure
        if wrapped_key not in self._data_keys:
            raise UnwrapFailed("this key did not wrap it")
        data_key = bytearray(self._data_keys[wrapped_key])
        self.handed_out.append(data_key)
        return data_key


class FakeUnwrapper:
    """A KeyUnwrapper that returns ``data_key`` whatever it is asked, or raises ``failure``."""

    def __init__(self, data_key: bytes = bytes(32), failure: ClefError | None = None) -> None:
        self.data_key = data_key
        self.failure = failure
        self.calls: list[tuple[str, bytes, str]] = []
        self.handed_out: list[bytearray] = []

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        self.calls.append((key_id, wrapped_key, algorithm))
        if self.failure is not None:
            raise self.failure
        data_key = bytearray(self.data_key)
        self.handed_out.append(data_key)
        return data_key


class FakeFiles:
    """A ``read_file`` over a mapping that a test may change; an OSError as value is raised."""

    def __init__(self, files: Mapping[str, bytes | OSError] | None = None) -> None:
        self.files: dict[str, bytes | OSError] = dict(files or {})
        self.reads: list[str] = []

    def __call__(self, path: str) -> bytes:
        self.reads.append(path)
        found = self.files.get(path)
        if found is None:
            raise FileNotFoundError(2, "No such file or directory", path)
        if isinstance(found, OSError):
            raise found
        return found


# --- artifacts --------------------------------------------------------------------------------


def packed(
    payload: Payload = PAYLOAD,
    *,
    packed_at: float = NOW,
    expires_at: float | None = None,
    signer: Signer | None = None,
    recipient: str = AGE_RECIPIENT,
    service: FakeKeyService | None = None,
    identity: str = IDENTITY,
    environment: str = ENVIRONMENT,
) -> bytes:
    """An artifact that is sound in every way; encrypted with age, or through ``service``."""
    return pack(
        payload,
        Packing(
            identity=identity,
            environment=environment,
            encryption=ToRecipients([recipient]) if service is None else ToKeyService(service),
            packed_at=packed_at,
            expires_at=expires_at,
            signer=signer,
        ),
    )


def changed(data: bytes, *changes: Callable[[Document], None], **fields: Any) -> bytes:
    """The artifact ``data`` with ``fields`` set and then ``changes`` applied to its JSON.

    Hash and signature stay as they are; see :func:`rehashed` and :func:`signed`.
    """
    document: Document = json.loads(data)
    document.update(fields)
    for change in changes:
        change(document)
    return json.dumps(document, ensure_ascii=False).encode("utf-8", "surrogatepass")


def without(data: bytes, *names: str) -> bytes:
    """The artifact ``data`` without the top-level fields ``names``."""
    document: Document = json.loads(data)
    return json.dumps({k: v for k, v in document.items() if k not in names}).encode()


def with_envelope(data: bytes, **fields: Any) -> bytes:
    """The artifact ``data`` with ``fields`` of its envelope set."""
    document: Document = json.loads(data)
    document["envelope"].update(fields)
    return json.dumps(document).encode()


def rehashed(data: bytes, ciphertext: bytes | str | None = None) -> bytes:
    """The artifact ``data``, with ``ciphertext`` (bytes become base64) if given, and its hash."""
    document: Document = json.loads(data)
    if ciphertext is not None:
        text = encode_base64(ciphertext) if isinstance(ciphertext, bytes) else ciphertext
        document["ciphertext"] = text
    document["ciphertextHash"] = hashlib.sha256(document["ciphertext"].encode()).hexdigest()
    return json.dumps(document).encode()


def signed(data: bytes, signer: Signer = ED25519_SIGNER) -> bytes:
    """The artifact ``data`` with a signature over what it says now."""
    signature = signer.sign(signing_payload(parse(data)))
    return changed(data, signature=encode_base64(signature), signatureAlgorithm=signer.algorithm)


def encrypted(plaintext: bytes, *, recipient: str = AGE_RECIPIENT) -> bytes:
    """An artifact around any ``plaintext``, JSON or not."""
    sealed = pyrage.encrypt(plaintext, [pyrage.x25519.Recipient.from_str(recipient)])
    return rehashed(packed(), sealed)


def shared(name: str) -> Path:
    """The folder or file ``name`` beside the repository; skips the test where it is absent."""
    path = Path(__file__).resolve().parents[2] / "shared" / name
    if not path.exists():
        pytest.skip(f"../shared/{name} is not there: the conformance vectors are kept apart")
    return path
