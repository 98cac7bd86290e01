"""Google Cloud Key Management Service.

Source: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys/decrypt
and https://cloud.google.com/kms/docs/data-integrity-guidelines
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
from collections.abc import Mapping
from functools import partial
from typing import Any, Final, Literal

from clef_agent.errors import UnwrapFailed, UnwrapUnavailable
from clef_agent.kms.base import LANE_WIDTH, Wrapped
from clef_agent.kms.rest import Rest, accepted, beside
from clef_agent.lane import Lane
from clef_agent.web.address import Address, parse_url

ALGORITHM: Final = "GOOGLE_SYMMETRIC_ENCRYPTION"
_DEFAULT_ENDPOINT: Final = "https://cloudkms.googleapis.com"
_SCOPE: Final = "https://www.googleapis.com/auth/cloudkms"
_WHO: Final = "Google Cloud KMS"

#: Source: https://cloud.google.com/kms/docs/resource-hierarchy#retrieve_resource_id
_NAME: Final = re.compile(
    r"projects/[a-z0-9][a-z0-9.:-]*/locations/[a-z0-9-]+/keyRings/[A-Za-z0-9_-]{1,63}"
    r"/cryptoKeys/[A-Za-z0-9_-]{1,63}"
)
_STATUS_WORD: Final = re.compile(r"[A-Z_]{1,64}")
_UNAUTHENTICATED: Final = 401
#: No key has more, wrapped or not.
_MAX_KEY_BYTES: Final = 6144
#: How often a call is made whose answer was altered on its way.
_ATTEMPTS: Final = 3
#: For one request of google-auth, in seconds; its own default is two minutes.
_TOKEN_TIMEOUT_S: Final = 4.0


class GcpKms:
    """Keys in Cloud KMS, asked for with whatever credentials google-auth finds."""

    def __init__(self, endpoint: str | None, certificates: str | None = None) -> None:
        """Asks nobody yet. ``endpoint`` stands in for Google's; ``certificates`` is a CA file."""
        self._base = parse_url(endpoint or _DEFAULT_ENDPOINT)[0]
        self._rest = Rest()
        self._lane = Lane(_WHO, width=LANE_WIDTH)
        self._tokens = _Tokens(certificates)

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        """See KeyUnwrapper. One ``:decrypt``, whose checksums are compared both ways."""
        _check(key_id)
        if algorithm != ALGORITHM:
            raise UnwrapFailed("the envelope's algorithm is not that of Cloud KMS")
        return await self._whole(key_id, "decrypt", "ciphertext", wrapped_key, "plaintext")

    async def wrap(self, key_id: str, data_key: bytes) -> Wrapped:
        """See KeyService. One ``:encrypt``."""
        _check(key_id)
        wrapped = await self._whole(key_id, "encrypt", "plaintext", data_key, "ciphertext")
        return Wrapped(key_id, bytes(wrapped), ALGORITHM)

    def warm_up(self) -> None:
        """Nothing: whether it will be asked is not known before an artifact is there."""

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._rest.aclose()

    async def _whole(
        self,
        name: str,
        verb: Literal["decrypt", "encrypt"],
        given: str,
        data: bytes,
        wanted: str,
    ) -> bytearray:
        """The field ``wanted`` of the answer to ``data``, as many attempts as it takes to have it
        unaltered.
        """
        document = {given: base64.b64encode(data).decode(), f"{given}Crc32c": str(crc32c(data))}
        target = f"{self._base.target.rstrip('/')}/v1/{name}:{verb}"
        address = Address(self._base.scheme, self._base.host, self._base.port, target)
        for _ in range(_ATTEMPTS):
            answer = await self._call(address, document)
            found = _unaltered(answer, wanted)
            if found is not None:
                return found
        raise UnwrapUnavailable(f"{_WHO}: the answer was altered on its way, {_ATTEMPTS} times")

    async def _call(self, address: Address, document: Mapping[str, object]) -> Mapping[str, Any]:
        for is_fresh in (False, True):
            tokens = partial(self._tokens.headers, address, fresh=is_fresh)
            credentials = await beside(self._lane, tokens, _WHO)
            reply = await self._rest.post(address, credentials, document)
            if reply.status != _UNAUTHENTICATED:
                break
        return accepted(reply, _WHO, _status_word(reply.document))


class _Tokens:
    """Access tokens, by google-auth: from a file, a metadata server, a federation."""

    def __init__(self, certificates: str | None) -> None:
        self._certificates = certificates
        self._lock = threading.Lock()
        self._credentials: Any = None
        self._request: Any = None

    def headers(self, address: Address, *, fresh: bool) -> dict[str, str]:
        """The headers that authorise a call; with a ``fresh`` token, whatever the last one's age.

        Raises:
            UnwrapFailed, UnwrapUnavailable: no token can be had.
        """
        try:
            import requests  # noqa: F401  # what google-auth asks through
            from google.auth import exceptions
        except ModuleNotFoundError:
            raise UnwrapFailed(
                "the envelope's key lies in Google Cloud KMS, and its library is not installed:"
                ' pip install "clef-agent[gcp]"'
            ) from None
        headers: dict[str, str] = {}
        with self._lock:
            try:
                self._open()
                if fresh:
                    self._credentials.refresh(self._request)
                self._credentials.before_request(self._request, "POST", str(address), headers)
            except exceptions.DefaultCredentialsError:
                raise UnwrapUnavailable(
                    f"{_WHO}: no Google credentials were found (GOOGLE_APPLICATION_CREDENTIALS,"
                    " or a metadata server)"
                ) from None
            except exceptions.GoogleAuthError as exc:
                # Its text holds what the token endpoint answered.
                words = f"{_WHO}: no access token could be had ({type(exc).__name__})"
                if isinstance(exc, exceptions.TransportError) or exc.retryable:
                    raise UnwrapUnavailable(words) from None
                raise UnwrapFailed(words) from None
        return headers

    def _open(self) -> None:
        if self._credentials is not None:
            return
        import google.auth
        import requests
        from google.auth.transport.requests import Request

        session = requests.Session()
        if self._certificates:
            session.verify = self._certificates
        self._request = partial(Request(session), timeout=_TOKEN_TIMEOUT_S)
        self._credentials, _ = google.auth.default(scopes=[_SCOPE], request=self._request)


def _check(name: str) -> None:
    if _NAME.fullmatch(name) is None:
        raise UnwrapFailed(
            "the key id is not projects/*/locations/*/keyRings/*/cryptoKeys/*, as Cloud KMS has it"
        )


def _unaltered(answer: Mapping[str, Any], field: str) -> bytearray | None:
    """The bytes of ``field``, or None where they do not have the checksum that they came with."""
    try:
        data = bytearray(base64.b64decode(answer[field], validate=True))
        checksum = int(answer[f"{field}Crc32c"])
    except (KeyError, TypeError, ValueError, binascii.Error):
        return None
    if len(data) > _MAX_KEY_BYTES:
        return None  # neither a key nor a wrapped one, and long to look at
    return data if crc32c(data) == checksum else None


def _status_word(document: Mapping[str, Any]) -> str:
    error = document.get("error")
    word = error.get("status") if isinstance(error, dict) else None
    return word if isinstance(word, str) and _STATUS_WORD.fullmatch(word) else ""


def crc32c(data: bytes | bytearray) -> int:
    """The CRC-32C (Castagnoli) of ``data``.

    Source: https://www.rfc-editor.org/rfc/rfc9260#appendix-A; the polynomial is reflected
    """
    crc = 0xFFFFFFFF
    for octet in data:
        crc ^= octet
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc ^ 0xFFFFFFFF
