"""Opens AES-256-GCM envelopes with a data key that a key service unwraps.

Source: NIST SP 800-38D (GCM)
"""

from __future__ import annotations

from collections.abc import Mapping

from clef_agent.artifact.model import Envelope
from clef_agent.decrypt.secrets import Plaintext, zero
from clef_agent.errors import DecryptFailed, UnwrapFailed
from clef_agent.keys import decode_base64
from clef_agent.kms.base import KeyUnwrapper

DATA_KEY_BYTES = 32
IV_BYTES = 12
#: GCM allows tags down to 4 bytes, which a forger needs 2^32 attempts for. Only full ones pass.
TAG_BYTES = 16

#: No key service wraps 32 bytes into more, and AWS KMS takes no more. What is longer is not even
#: looked at: its checksum alone would hold the event loop.
#: Source: https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html (CiphertextBlob)
MAX_WRAPPED_KEY_BYTES = 6144


class EnvelopeOpener:
    """Opens envelopes through the key services in ``unwrappers``, by their provider's name."""

    def __init__(self, unwrappers: Mapping[str, KeyUnwrapper]) -> None:
        self._unwrappers = unwrappers

    async def unwrap(self, envelope: Envelope) -> bytearray:
        """The data key, in a buffer that the caller zeroes.

        Raises:
            UnwrapFailed, UnwrapUnavailable: no such provider, or as the provider says.
            DecryptFailed: what came back is no AES-256 key.
        """
        unwrapper = self._unwrappers.get(envelope.provider)
        if unwrapper is None:
            known = ", ".join(sorted(self._unwrappers)) or "none"
            raise UnwrapFailed(
                f"its envelope names a key service that this agent does not have (has: {known})"
            )
        try:
            wrapped_key = decode_base64(envelope.wrapped_key)
        except ValueError:
            raise UnwrapFailed("the envelope's wrappedKey is not base64") from None
        if len(wrapped_key) > MAX_WRAPPED_KEY_BYTES:
            raise UnwrapFailed(
                f"the envelope's wrappedKey has more than {MAX_WRAPPED_KEY_BYTES} bytes"
            )
        data_key = await unwrapper.unwrap(envelope.key_id, wrapped_key, envelope.algorithm)
        if len(data_key) != DATA_KEY_BYTES:
            zero(data_key)
            raise DecryptFailed(f"the data key does not have {DATA_KEY_BYTES} bytes")
        return data_key


def open_envelope(envelope: Envelope, ciphertext: bytes, data_key: bytearray) -> Plaintext:
    """The plaintext of ``ciphertext`` (without the tag) under ``data_key``.

    Raises:
        DecryptFailed: a wrong length of iv or tag, or a tag that does not fit.
    """
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        iv, auth_tag = decode_base64(envelope.iv), decode_base64(envelope.auth_tag)
    except ValueError:
        raise DecryptFailed("the envelope's iv or authTag is not base64") from None
    if len(iv) != IV_BYTES or len(auth_tag) != TAG_BYTES:
        raise DecryptFailed(f"iv must have {IV_BYTES} bytes and authTag {TAG_BYTES}")
    plaintext = Plaintext(len(ciphertext))
    try:
        # Not decrypt(), whose answer is a bytes object, which nobody can overwrite.
        AESGCM(data_key).decrypt_into(iv, ciphertext + auth_tag, None, plaintext)
    except InvalidTag:
        raise DecryptFailed("the ciphertext does not belong to this key, iv and tag") from None
    return plaintext
