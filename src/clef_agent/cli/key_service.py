"""Key services as packing wants them: what wraps the data key, and what signs."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import Coroutine, Mapping
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar

from clef_agent.cli.failure import Failure
from clef_agent.errors import ConfigInvalid, UnwrapFailed
from clef_agent.log import silence_libraries

if TYPE_CHECKING:
    from clef_agent.artifact.pack import WrappedKey
    from clef_agent.kms.base import KeyService

T = TypeVar("T")

Provider: TypeAlias = Literal["aws", "gcp", "azure"]

_RIGHTS: Final = {
    "aws": "kms:Encrypt",
    "gcp": "roles/cloudkms.cryptoKeyEncrypter",
    "azure": "the key permission wrapKey",
}


class KeyServiceWrapper:
    """A KeyWrapper with the key ``key_id`` of ``provider``."""

    def __init__(self, provider: Provider, key_id: str) -> None:
        self._provider = provider
        self._key_id = key_id

    def wrap(self, data_key: bytes) -> WrappedKey:
        """See KeyWrapper.

        Raises:
            Failure: the service does not wrap it.
        """
        from clef_agent.artifact.pack import WrappedKey

        async def wrapped() -> WrappedKey:
            service = _services()[self._provider]
            try:
                found = await service.wrap(self._key_id, data_key)
            finally:
                await service.aclose()
            return WrappedKey(self._provider, found.key_id, found.wrapped_key, found.algorithm)

        return _run(wrapped(), f"It takes {_RIGHTS[self._provider]} on the key of --kms-key-id.")


class AwsKmsSigner:
    """A Signer whose private key, ECC_NIST_P256, never leaves AWS KMS."""

    algorithm = "ECDSA_SHA256"

    def __init__(self, key_id: str) -> None:
        self._key_id = key_id

    def sign(self, payload: bytes) -> bytes:
        """ASN.1 DER.

        Raises:
            Failure: KMS does not sign it.
        """
        from clef_agent.aws import Aws
        from clef_agent.kms.aws import AwsKms

        # The digest alone is sent: KMS takes no message over 4 KiB.
        digest = hashlib.sha256(payload).digest()

        async def signature() -> bytes:
            service = AwsKms(Aws(os.environ))
            try:
                return await service.sign(self._key_id, digest)
            finally:
                await service.aclose()

        return _run(
            signature(),
            "It takes kms:Sign on the key of --signing-kms-key-id, which must be ECC_NIST_P256.",
        )


def _services() -> Mapping[str, KeyService]:
    from clef_agent.aws import Aws
    from clef_agent.config.reader import Reader
    from clef_agent.wiring import make_key_services

    try:
        endpoint = Reader(os.environ, lambda _: b"").kms_endpoint()
    except ConfigInvalid as exc:
        raise Failure(str(exc), exc.hint) from None
    return make_key_services(endpoint, Aws(os.environ), os.environ)


def _run(work: Coroutine[Any, Any, T], hint: str) -> T:
    silence_libraries()
    try:
        return asyncio.run(work)
    except UnwrapFailed as exc:
        raise Failure(str(exc), hint) from None
