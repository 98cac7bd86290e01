"""AWS Key Management Service.

Source: https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html and its neighbours
API_Encrypt.html and API_Sign.html
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from clef_agent.aws import Aws, AwsFailure, ClientKind, explain
from clef_agent.errors import UnwrapFailed, UnwrapUnavailable
from clef_agent.kms.base import DEADLINE_S, LANE_WIDTH, Wrapped
from clef_agent.lane import Lane, LaneBlocked

#: The region goes into the name of the host that is asked, so it must be one label of a name.
_ARN: Final = re.compile(
    r"arn:aws[a-z-]*:kms:(?P<region>[a-z0-9]+(?:-[a-z0-9]+)+):\d{12}:(?:key|alias)/[\w/-]{1,256}",
    re.ASCII,
)
_BARE_ID: Final = re.compile(r"(?:alias/)?[\w/-]{1,256}", re.ASCII)

SYMMETRIC: Final = "SYMMETRIC_DEFAULT"
_ALGORITHMS: Final = frozenset({SYMMETRIC, "RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"})

#: Answers that another attempt may change. The exception pages of each operation list them.
_TRANSIENT: Final = frozenset(
    {
        "DependencyTimeoutException",
        "KMSInternalException",
        "KeyUnavailableException",
        "ThrottlingException",
        "Throttling",
        "RequestLimitExceeded",
        # The credentials were replaced while the call was under way.
        "ExpiredTokenException",
    }
)
_THROTTLED: Final = 429
_SERVER_ERRORS: Final = range(500, 600)


class AwsKms:
    """Keys in AWS KMS, each asked for in its own region, by a client that is kept."""

    def __init__(self, aws: Aws) -> None:
        """Asks nobody yet."""
        self._aws = aws
        self._lane = Lane("AWS KMS", width=LANE_WIDTH)

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        """See KeyUnwrapper. One ``kms:Decrypt``."""
        _check(key_id)
        if algorithm not in _ALGORITHMS:
            raise UnwrapFailed("the envelope's algorithm is none that AWS KMS decrypts with")
        answer = await self._call(
            key_id, "decrypt", CiphertextBlob=wrapped_key, EncryptionAlgorithm=algorithm
        )
        return bytearray(answer["Plaintext"])

    async def wrap(self, key_id: str, data_key: bytes) -> Wrapped:
        """See KeyService. One ``kms:Encrypt``; the answer resolves an alias to the key's ARN."""
        _check(key_id)
        answer = await self._call(key_id, "encrypt", Plaintext=data_key)
        return Wrapped(answer["KeyId"], answer["CiphertextBlob"], SYMMETRIC)

    async def sign(self, key_id: str, digest: bytes) -> bytes:
        """An ASN.1 DER signature, ECDSA on P-256, over ``digest`` (SHA-256, 32 bytes).

        Raises:
            UnwrapFailed, UnwrapUnavailable: as for unwrapping.
        """
        _check(key_id)
        answer = await self._call(
            key_id,
            "sign",
            Message=digest,
            MessageType="DIGEST",
            SigningAlgorithm="ECDSA_SHA_256",
        )
        signature: bytes = answer["Signature"]
        return signature

    def warm_up(self) -> None:
        """Makes the client of the environment's own region. May block."""
        if self._aws.region() is not None:
            self._aws.client(ClientKind("kms", self._aws.region()))

    async def aclose(self) -> None:
        """Closes all connections."""
        self._aws.close()

    async def _call(self, key_id: str, operation: str, **parameters: Any) -> dict[str, Any]:
        call = partial(self._ask, key_id, operation, parameters)
        try:
            return await self._lane.run(call, deadline_s=DEADLINE_S)
        except LaneBlocked as exc:
            raise UnwrapUnavailable(f"AWS KMS does not answer: {exc}") from None

    def _ask(self, key_id: str, operation: str, parameters: dict[str, Any]) -> dict[str, Any]:
        try:
            client = self._aws.client(ClientKind("kms", _region(key_id) or self._own_region()))
            method: Callable[..., dict[str, Any]] = getattr(client, operation)
            return method(KeyId=key_id, **parameters)
        except Exception as exc:
            failure = explain(exc)
            if failure is None:
                raise
            # The cause is dropped: its traceback holds credentials and what was sent.
            raise _error(failure) from None

    def _own_region(self) -> str:
        region = self._aws.region()
        if region is None:
            raise UnwrapFailed(
                "the key id names no region, and none is configured: set AWS_REGION,"
                " or pack with the key's ARN"
            )
        return region


def _check(key_id: str) -> None:
    pattern = _ARN if key_id.startswith("arn:") else _BARE_ID
    if pattern.fullmatch(key_id) is None:
        raise UnwrapFailed("the key id is neither a KMS key's ARN, nor an id or alias of one")


def _region(key_id: str) -> str | None:
    match = _ARN.fullmatch(key_id)
    return match["region"] if match else None


def _error(failure: AwsFailure) -> UnwrapFailed:
    message = f"AWS KMS: {failure}"
    if failure.kind in ("unreachable", "no_credentials"):
        return UnwrapUnavailable(message)
    if failure.kind == "misconfigured":
        return UnwrapFailed(message)
    is_transient = failure.status == _THROTTLED or failure.status in _SERVER_ERRORS
    if failure.code in _TRANSIENT or is_transient:
        return UnwrapUnavailable(message)
    return UnwrapFailed(message)
