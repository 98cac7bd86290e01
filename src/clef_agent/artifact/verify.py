""":class:`Artifact` to :class:`VerifiedArtifact`: steps 4 to 7 of the order of checks.

4. ``ciphertextHash``
5. signature, where a verify key is configured
6. identity, environment, and rollback where protection is on
7. ``expiresAt``
"""

from __future__ import annotations

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from clef_agent.artifact.model import Artifact, Expectation, RollbackMark
from clef_agent.artifact.signing import signing_payload
from clef_agent.errors import (
    Expired,
    HashMismatch,
    IdentityMismatch,
    RolledBack,
    SignatureInvalid,
    SignatureMissing,
)
from clef_agent.keys import decode_base64

if TYPE_CHECKING:
    from clef_agent.keys import VerifyKey

#: How far a packer's clock may run ahead of ours, in seconds.
MAX_AHEAD_S = 300

_MADE_BY_VERIFY = object()


@dataclass(frozen=True, slots=True)
class Policy:
    """What an artifact must prove: ``verify_key`` None means that a signature is not asked for."""

    verify_key: VerifyKey | None = field(default=None, repr=False)
    expected: Expectation = Expectation()
    rollback_protection: bool = False


class VerifiedArtifact:
    """An artifact that passed every check but decryption. Only :func:`verify` makes one."""

    __slots__ = ("_artifact",)

    def __init__(self, artifact: Artifact, *, proof: object) -> None:
        if proof is not _MADE_BY_VERIFY:
            raise TypeError("only verify() makes a VerifiedArtifact")
        self._artifact = artifact

    @property
    def artifact(self) -> Artifact:
        """What was proven; it cannot be exchanged for another."""
        return self._artifact


def verify(
    artifact: Artifact, policy: Policy, *, wall: float, mark: RollbackMark | None = None
) -> VerifiedArtifact:
    """Proof that ``artifact`` may be decrypted at ``wall`` (seconds since 1970 UTC).

    ``mark`` is the newest artifact accepted before; it counts where protection is on.

    Raises:
        HashMismatch, SignatureMissing, SignatureInvalid, IdentityMismatch, RolledBack, Expired:
            in the order of the checks.
    """
    _check_hash(artifact)
    if policy.verify_key is not None:
        _check_signature(artifact, policy.verify_key)
    if not policy.expected.allows(artifact.identity, artifact.environment):
        raise IdentityMismatch("it was packed for another identity or environment")
    if policy.rollback_protection:
        _check_rollback(artifact, wall, mark)
    if artifact.expires_at is not None and artifact.has_expired(wall):
        raise Expired(artifact.expires_at.text)
    return VerifiedArtifact(artifact, proof=_MADE_BY_VERIFY)


def _check_hash(artifact: Artifact) -> None:
    # The base64 text is hashed, not the bytes behind it. Anything beyond ASCII cannot be base64,
    # but must still be hashed as the packer would have.
    found = hashlib.sha256(artifact.ciphertext.encode("utf-8")).hexdigest()
    if not hmac.compare_digest(found.encode(), artifact.ciphertext_hash.lower().encode()):
        raise HashMismatch("ciphertextHash is not the SHA-256 of the ciphertext's text")


def _check_signature(artifact: Artifact, key: VerifyKey) -> None:
    """The algorithm follows from the key alone: what the artifact claims would let it choose."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519

    if not artifact.signature:
        raise SignatureMissing("a verify key is configured, and it is not signed")
    payload = signing_payload(artifact)
    try:
        signature = decode_base64(artifact.signature)
        if isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, payload)
        else:
            key.verify(signature, payload, ec.ECDSA(hashes.SHA256()))
    except (ValueError, InvalidSignature):
        raise SignatureInvalid("its signature was not made by the expected key") from None


def _check_rollback(artifact: Artifact, wall: float, mark: RollbackMark | None) -> None:
    packed_at = artifact.packed_at.wall
    if packed_at > wall + MAX_AHEAD_S:
        raise RolledBack(f"packedAt lies more than {MAX_AHEAD_S // 60} minutes in the future")
    if mark is None:
        return
    if packed_at < mark.packed_at:
        raise RolledBack("it is older than an artifact accepted before")
    if mark.revoked and packed_at == mark.packed_at:
        raise RolledBack("it is no newer than the artifact that was revoked")
