"""Azure Key Vault and Managed HSM.

Source: https://learn.microsoft.com/en-us/rest/api/keyvault/keys/unwrap-key/unwrap-key and
https://learn.microsoft.com/en-us/azure/key-vault/general/about-keys-secrets-certificates#dns-suffixes-for-object-identifiers
"""

from __future__ import annotations

import base64
import binascii
import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal
from urllib.parse import urlsplit

from clef_agent.errors import UnwrapFailed, UnwrapUnavailable
from clef_agent.kms.base import LANE_WIDTH, Wrapped
from clef_agent.kms.rest import Rest, accepted, beside
from clef_agent.lane import Lane
from clef_agent.web.address import Address, parse_url

_WHO: Final = "Azure Key Vault"
_API_VERSION: Final = "7.4"
#: What packing asks for.
ALGORITHM: Final = "RSA-OAEP-256"
#: Keys of a Managed HSM can be symmetric, too. RSA1_5 is broken (Bleichenbacher), and left out.
_ALGORITHMS: Final = frozenset({ALGORITHM, "RSA-OAEP", "A128KW", "A192KW", "A256KW"})

#: The domains that Microsoft alone gives names under, in each of its clouds. A token goes to no
#: other host: it would open every key that the agent may use.
_DOMAINS: Final = frozenset(
    {
        "vault.azure.net",
        "managedhsm.azure.net",
        "vault.azure.cn",
        "managedhsm.azure.cn",
        "vault.usgovcloudapi.net",
        "managedhsm.usgovcloudapi.net",
        "vault.microsoftazure.de",
        "managedhsm.microsoftazure.de",
    }
)
#: Where the tokens of these clouds come from; any other authority is a private cloud's.
_AUTHORITIES: Final = (
    "login.microsoftonline.com",
    "login.microsoftonline.us",
    "login.chinacloudapi.cn",
    "login.microsoftonline.de",
)
_HOST: Final = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.(?P<domain>[a-z0-9.]+)")
_PATH: Final = re.compile(r"/keys/[0-9A-Za-z-]{1,127}(?:/[0-9A-Za-z]{1,64})?/?")
_CODE: Final = re.compile(r"[A-Za-z]{1,64}")
_UNAUTHORIZED: Final = 401
#: A token is replaced so long before it ends, in seconds.
_EARLY_S: Final = 300


@dataclass(frozen=True, slots=True)
class _Key:
    """A key's id, taken apart: ``path`` is below the vault, version included where it has one."""

    host: str
    domain: str
    path: str


class AzureKeys:
    """Keys in a vault or an HSM, asked for with whatever credentials azure-identity finds."""

    def __init__(
        self,
        endpoint: str | None,
        certificates: str | None = None,
        authority: str | None = None,
    ) -> None:
        """Asks nobody yet. ``endpoint`` stands in for the vault's; ``certificates`` is a CA file.

        ``authority`` (AZURE_AUTHORITY_HOST) is where tokens come from, None for the public cloud.
        It never follows from an envelope: whoever writes the store would choose who gets to see
        the agent's credentials.
        """
        self._endpoint = endpoint
        self._rest = Rest()
        self._lane = Lane(_WHO, width=LANE_WIDTH)
        self._tokens = _Tokens(certificates, authority)

    async def unwrap(self, key_id: str, wrapped_key: bytes, algorithm: str) -> bytearray:
        """See KeyUnwrapper. One ``unwrapkey``; a key id without a version means the latest."""
        key = _key(key_id)
        if algorithm not in _ALGORITHMS:
            raise UnwrapFailed("the envelope's algorithm is none that Azure unwraps keys with")
        answer = await self._call(key, "unwrapkey", algorithm, wrapped_key)
        return bytearray(_value(answer))

    async def wrap(self, key_id: str, data_key: bytes) -> Wrapped:
        """See KeyService. One ``wrapkey``; the answer names the version that was used, so that the
        envelope still opens when the key has another.
        """
        answer = await self._call(_key(key_id), "wrapkey", ALGORITHM, data_key)
        resolved = answer.get("kid")
        return Wrapped(resolved if isinstance(resolved, str) else key_id, _value(answer), ALGORITHM)

    def warm_up(self) -> None:
        """Nothing: whether it will be asked is not known before an artifact is there."""

    async def aclose(self) -> None:
        """Closes all connections."""
        await self._rest.aclose()

    async def _call(
        self, key: _Key, verb: Literal["unwrapkey", "wrapkey"], algorithm: str, data: bytes
    ) -> Mapping[str, Any]:
        base = parse_url(self._endpoint or f"https://{key.host}")[0]
        target = f"{base.target.rstrip('/')}{key.path}/{verb}?api-version={_API_VERSION}"
        address = Address(base.scheme, base.host, base.port, target)
        document = {"alg": algorithm, "value": _encoded(data)}
        for is_fresh in (False, True):
            tokens = partial(self._tokens.bearer, key.domain, fresh=is_fresh)
            token = await beside(self._lane, tokens, _WHO)
            reply = await self._rest.post(address, {"authorization": token}, document)
            if reply.status != _UNAUTHORIZED:
                break
        return accepted(reply, _WHO, _code(reply.document))


class _Tokens:
    """Access tokens, by azure-identity: environment, workload identity, managed identity, CLI."""

    def __init__(self, certificates: str | None, authority: str | None) -> None:
        self._certificates = certificates
        self._authority = authority
        self._lock = threading.Lock()
        self._credential: Any = None
        self._held: dict[str, tuple[str, int]] = {}

    def bearer(self, domain: str, *, fresh: bool) -> str:
        """The ``Authorization`` header for vaults in ``domain``; ``fresh``: of a new token.

        Raises:
            UnwrapFailed, UnwrapUnavailable: no token can be had.
        """
        with self._lock:
            token, expires_on = self._held.get(domain, ("", 0))
            if fresh:
                # It keeps its tokens, too, for as long as they should be good.
                self._credential = None
            if fresh or expires_on - _EARLY_S < time.time():
                token, expires_on = self._acquired(domain)
                self._held[domain] = token, expires_on
        return f"Bearer {token}"

    def _acquired(self, domain: str) -> tuple[str, int]:
        try:
            from azure.core.exceptions import AzureError
        except ModuleNotFoundError:
            raise UnwrapFailed(
                "the envelope's key lies in Azure Key Vault, and its library is not installed:"
                ' pip install "clef-agent[azure]"'
            ) from None
        try:
            token = self._opened().get_token(f"https://{domain}/.default")
        except (AzureError, ValueError) as exc:
            # Its text holds what each identity endpoint answered.
            raise UnwrapUnavailable(
                f"{_WHO}: no access token could be had ({type(exc).__name__}): check the managed"
                " identity, or AZURE_TENANT_ID, AZURE_CLIENT_ID and what goes with them"
            ) from None
        return token.token, token.expires_on

    def _opened(self) -> Any:
        if self._credential is None:
            from azure.identity import DefaultAzureCredential

            options: dict[str, Any] = {"retry_total": 1, "connection_timeout": 2, "read_timeout": 4}
            authority = self._authority
            if authority and not any(known in authority for known in _AUTHORITIES):
                # Microsoft's public cloud knows nothing of a private one, and may be out of reach.
                options["disable_instance_discovery"] = True
            if self._certificates:
                options["connection_verify"] = self._certificates
            self._credential = DefaultAzureCredential(**options)
        return self._credential


def _key(key_id: str) -> _Key:
    """The key that ``key_id`` names, in a vault of Microsoft's.

    Raises:
        UnwrapFailed: it names none, or one elsewhere.
    """
    try:
        url = urlsplit(key_id)
        is_plain = url.scheme == "https" and url.port in (None, 443) and "@" not in url.netloc
    except ValueError:
        is_plain = False
    host = _HOST.fullmatch(url.hostname or "") if is_plain else None
    if host is None or host["domain"] not in _DOMAINS or not key_id.isascii():
        raise UnwrapFailed("the key id is no https URL of an Azure Key Vault or Managed HSM")
    if _PATH.fullmatch(url.path) is None or url.query or url.fragment:
        raise UnwrapFailed("the key id is not https://VAULT/keys/NAME/VERSION")
    return _Key(host[0], host["domain"], url.path.rstrip("/"))


def _encoded(data: bytes) -> str:
    """base64url without padding, as JSON Web Keys have it. Source: RFC 7515, appendix C"""
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode("ascii")


def _value(answer: Mapping[str, Any]) -> bytes:
    text = answer.get("value")
    padded = text + "=" * (-len(text) % 4) if isinstance(text, str) else "no base64"
    try:
        return base64.b64decode(padded, altchars=b"-_", validate=True)
    except (ValueError, binascii.Error):
        raise UnwrapFailed(f"{_WHO} answered without a value that is base64url") from None


def _code(document: Mapping[str, Any]) -> str:
    """The service's words for a refusal: its code, and the one within, which says more."""
    error = document.get("error")
    codes: list[str] = []
    while isinstance(error, dict) and len(codes) < 2:  # noqa: PLR2004  # the outer and the inner
        code = error.get("code")
        if isinstance(code, str) and _CODE.fullmatch(code):
            codes.append(code)
        error = error.get("innererror")
    return ", ".join(codes)
