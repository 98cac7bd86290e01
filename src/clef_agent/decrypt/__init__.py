"""From a proven artifact to plaintext: step 8 of the order of checks."""

from __future__ import annotations

import asyncio

from clef_agent.artifact.model import Artifact, Envelope
from clef_agent.artifact.verify import VerifiedArtifact
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener, open_envelope
from clef_agent.decrypt.secrets import Secrets, parse_payload, parsed_before, zero
from clef_agent.errors import DecryptFailed
from clef_agent.keys import decode_base64

__all__ = ["INLINE_MAX_CHARS", "Decryptor", "Secrets"]

#: Base64 characters up to which decrypting on the event loop takes well below a millisecond, less
#: than the way to a thread and back.
INLINE_MAX_CHARS = 32 * 1024


class Decryptor:
    """Opens verified artifacts with the agent's age keys and key services."""

    def __init__(self, age: AgeKeyring, envelopes: EnvelopeOpener) -> None:
        self._age = age
        self._envelopes = envelopes
        self._last_decoded: tuple[Artifact | None, bytes] = (None, b"")
        self._last_parsed: Artifact | None = None

    def reload_keys(self) -> str | None:
        """Reads the age key file anew; returns why it cannot be used, or None."""
        self._last_parsed = None
        return self._age.reload()

    async def decrypt(self, verified: VerifiedArtifact) -> Secrets:
        """The secrets in an artifact that has been proven.

        Raises:
            UnwrapFailed, UnwrapUnavailable, DecryptFailed, PayloadInvalid
        """
        secrets = self.decrypt_at_once(verified)
        if secrets is not None:
            return secrets
        artifact = verified.artifact
        envelope = artifact.envelope
        data_key = bytearray() if envelope is None else await self._envelopes.unwrap(envelope)
        try:
            if len(artifact.ciphertext) <= INLINE_MAX_CHARS:
                return self._open(envelope, self._decoded(artifact), data_key)
            return await asyncio.to_thread(
                lambda: self._open(envelope, _decode(artifact.ciphertext), data_key)
            )
        finally:
            zero(data_key)

    def decrypt_at_once(self, verified: VerifiedArtifact) -> Secrets | None:
        """As :meth:`decrypt`, where no key service is asked and no thread is needed; else None.

        Raises:
            DecryptFailed, PayloadInvalid
        """
        if not isinstance(verified, VerifiedArtifact):
            raise TypeError("decrypt takes what verify made, and nothing else")
        artifact = verified.artifact
        if artifact.envelope is not None or len(artifact.ciphertext) > INLINE_MAX_CHARS:
            return None
        plaintext = self._age.open(self._decoded(artifact))
        if artifact is self._last_parsed:
            # age commits to one key, and so to one plaintext; AES-GCM, by itself, does not.
            return parsed_before(plaintext)
        secrets = parse_payload(plaintext)
        self._last_parsed = artifact
        return secrets

    def _decoded(self, artifact: Artifact) -> bytes:
        """The bytes of a small ciphertext; in just-in-time mode the same one comes each time."""
        known, ciphertext = self._last_decoded
        if known is not artifact:
            ciphertext = _decode(artifact.ciphertext)
            self._last_decoded = (artifact, ciphertext)
        return ciphertext

    def _open(self, envelope: Envelope | None, ciphertext: bytes, data_key: bytearray) -> Secrets:
        if envelope is None:
            return parse_payload(self._age.open(ciphertext))
        return parse_payload(open_envelope(envelope, ciphertext, data_key))


def _decode(text: str) -> bytes:
    try:
        return decode_base64(text)
    except ValueError:
        raise DecryptFailed("the ciphertext is not base64") from None
