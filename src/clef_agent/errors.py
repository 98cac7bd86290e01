"""Everything that can go wrong, as one tree.

::

    ClefError
    ├── ConfigInvalid            the environment does not make a configuration
    ├── StartFailed              the process cannot begin to serve
    │   ├── PortInUse
    │   ├── ListenFailed
    │   └── TokenUnusable
    ├── ExtensionsApiFailed      Lambda does not answer an extension, or refuses it
    │   └── RegistrationRefused
    ├── SourceError              fetch_failed: no artifact came back
    │   ├── SourceUnreachable    network, TLS, timeout
    │   ├── SourceDenied         401, 403
    │   ├── SourceMissing        404, no such file
    │   ├── SourceBusy           429, 5xx; may carry a Retry-After
    │   ├── SourceTooLarge
    │   ├── SourceMisdirected    a redirect that must not be followed
    │   └── SourceUnusable       an answer that no retry will mend
    ├── ArtifactError            an artifact came back, and is refused
    │   ├── NotStrictJson, InvalidShape, UnsupportedVersion, MissingFields, IncompleteEnvelope
    │   ├── Revoked, HashMismatch, SignatureMissing, SignatureInvalid
    │   ├── IdentityMismatch, RolledBack, Expired
    │   └── UnwrapFailed, DecryptFailed, PayloadInvalid
    ├── DiskCopyUnusable         the copy on disk cannot be read or believed
    └── Unavailable              the agent holds nothing that it may serve
        ├── NotLoaded, CacheExpired, ArtifactExpired, ArtifactRevoked
        ├── AttemptFailed        a refresh or a decryption for this very request failed
        └── ShuttingDown, TooManyWaiters

What a program decides on stands in class attributes, never in the text: ``reason`` is the
machine-readable word, ``hint`` tells a person what to do, ``transient`` says whether the same
attempt may succeed later without anybody's help. No message holds a secret, a token or a query.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, TypeVar

E = TypeVar("E", bound=BaseException)


class ClefError(Exception):
    """Any failure that clef-agent knows by name."""

    reason: str = "error"
    hint: ClassVar[str] = ""
    transient: ClassVar[bool] = False


def without_frames(error: E) -> E:
    """``error``, letting go of the frames that it and its causes came through.

    A frame has locals, and the secrets held at that moment among them: an error that is kept to
    be told later would keep them, too, after they have been wiped.
    """
    pending: list[BaseException | None] = [error]
    while pending:
        passed = pending.pop()
        if passed is not None and passed.__traceback__ is not None:
            passed.__traceback__ = None
            pending += (passed.__cause__, passed.__context__)
    return error


# --- before serving ---------------------------------------------------------------------------


class ConfigInvalid(ClefError):
    """The environment has problems; all of them are in ``problems``, one sentence each."""

    reason = "config"
    hint = "Correct the variables named above; the README lists every variable and its rule."

    def __init__(self, problems: Sequence[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class StartFailed(ClefError):
    """The process cannot begin to serve."""

    reason = "start"


class PortInUse(StartFailed):
    """Another process holds the port. Serving elsewhere would hand it our clients' tokens."""

    reason = "port_in_use"
    hint = "Stop the other process (`ss -ltnp` names it), or set CLEF_AGENT_PORT to a free port."


class ListenFailed(StartFailed):
    """The listening socket cannot be made for another reason than a taken port."""

    reason = "listen"
    hint = "Check CLEF_AGENT_PORT and CLEF_AGENT_SOCKET, and the rights to bind them."


class TokenUnusable(StartFailed):
    """CLEF_AGENT_TOKEN_FILE exists, but holds no token that can be used."""

    reason = "token"
    hint = "Put one line of text into the file that CLEF_AGENT_TOKEN_FILE names, or remove it."


class ExtensionsApiFailed(ClefError):
    """Lambda's Extensions API gave no answer, or refused what an extension may ask for."""

    reason = "extensions_api"
    hint = "AWS_LAMBDA_RUNTIME_API is Lambda's own variable; it must not be set anywhere else."


class RegistrationRefused(ExtensionsApiFailed):
    """Lambda expects no extension of this name, or not any more."""

    hint = "The name must be that of the file in /opt/extensions; --extension-name sets another."


# --- sources ----------------------------------------------------------------------------------


class SourceError(ClefError):
    """The source gave no artifact. ``retry_after_s`` is what the source asked for, in seconds."""

    reason = "fetch_failed"

    def __init__(self, message: str, *, retry_after_s: float | None = None) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(message)


class SourceUnreachable(SourceError):
    """Network, name lookup, TLS, or the deadline."""

    hint = "Check the source's address, the network, and HTTPS_PROXY, NO_PROXY and SSL_CERT_FILE."
    transient = True


class SourceDenied(SourceError):
    """401 or 403: the credentials are missing, wrong, or not allowed to read this artifact."""

    hint = "Check the token's or the role's right to read the artifact."
    transient = True


class SourceMissing(SourceError):
    """404, or no such file: perhaps not packed yet."""

    hint = "Check the address, and that the artifact has been packed and uploaded."
    transient = True


class SourceBusy(SourceError):
    """429 or 5xx: the source asks for patience."""

    hint = "The source is overloaded or limits the rate; a running agent goes on trying."
    transient = True


class SourceTooLarge(SourceError):
    """The answer exceeds the size cap."""

    hint = "An artifact may have 32 MiB at most; check that the address names an artifact."


class SourceMisdirected(SourceError):
    """A redirect to a place that must not be followed."""

    hint = "Point the source at the final address."


class SourceUnusable(SourceError):
    """An answer, or a place, that no retry will mend."""

    hint = "Check that the source's address names a packed artifact."


# --- artifacts --------------------------------------------------------------------------------


class ArtifactError(ClefError):
    """An artifact was fetched and is refused."""

    reason = "artifact"
    hint = "Pack and upload the artifact again; `clef-agent verify` shows which check fails."


class NotStrictJson(ArtifactError):
    """Not UTF-8, not JSON, or JSON that two readers could understand differently."""

    reason = "json_parse"
    hint = "Check that the source's address names a packed artifact and not a page or a directory."


class InvalidShape(ArtifactError):
    """JSON, but not an object of the right types, or a date that is none."""

    reason = "invalid_shape"


class Revoked(ArtifactError):
    """The artifact carries ``revokedAt``.

    ``applies`` is false where the marker names another identity or environment than the one
    that this agent expects: then it is refused, but nothing is wiped.
    """

    reason = "revoked"
    hint = "The artifact was revoked on purpose; pack and upload a new one to serve again."

    def __init__(self, revoked_at: str, *, applies: bool = True) -> None:
        self.revoked_at = revoked_at
        self.applies = applies
        suffix = "" if applies else ", by a marker for another identity or environment"
        super().__init__(f"the artifact was revoked at {revoked_at}{suffix}")


class UnsupportedVersion(ArtifactError):
    """``version`` is not the number 1."""

    reason = "unsupported_version"
    hint = "Pack with a version of clef that writes format 1, or update clef-agent."


class MissingFields(ArtifactError):
    """A required field is absent, null or empty."""

    reason = "missing_fields"


class IncompleteEnvelope(ArtifactError):
    """``envelope`` is there, but a field of it is absent, null or empty."""

    reason = "incomplete_envelope"


class HashMismatch(ArtifactError):
    """``ciphertextHash`` is not the SHA-256 of the ciphertext's base64 text."""

    reason = "integrity"
    hint = "The artifact was altered or cut on its way; upload it again."


class SignatureMissing(ArtifactError):
    """A verify key is configured, and the artifact has no signature."""

    reason = "signature_missing"
    hint = "Sign the artifact when packing, or unset CLEF_AGENT_VERIFY_KEY if that is intended."


class SignatureInvalid(ArtifactError):
    """The signature was not made over this artifact by the holder of the verify key's twin."""

    reason = "signature_invalid"
    hint = "Check that CLEF_AGENT_VERIFY_KEY belongs to the signing key, and who can write there."


class IdentityMismatch(ArtifactError):
    """The artifact was packed for another identity or environment."""

    reason = "identity_mismatch"
    hint = "Check the source's address against CLEF_AGENT_EXPECT_IDENTITY and _ENVIRONMENT."


class RolledBack(ArtifactError):
    """``packedAt`` is older than an artifact accepted before, or lies in the future."""

    reason = "rollback"
    hint = "Pack anew: rollback protection accepts no artifact older than one already served."


class Expired(ArtifactError):
    """``expiresAt`` has passed."""

    reason = "expired"
    hint = "Pack and upload a new artifact, with a later expiry."

    def __init__(self, expires_at: str) -> None:
        self.expires_at = expires_at
        super().__init__(f"the artifact expired at {expires_at}")


class UnwrapFailed(ArtifactError):
    """The key service did not unwrap the data key."""

    reason = "kms_unwrap"
    hint = "Check the key, its state, and the agent's right to decrypt with it."


class UnwrapUnavailable(UnwrapFailed):
    """The key service could not be asked, or asked for patience; another attempt may succeed."""

    hint = "The key service is unreachable or overloaded; a running agent goes on trying."
    transient = True


class DecryptFailed(ArtifactError):
    """No key opens the ciphertext, or the ciphertext was altered."""

    reason = "decrypt"
    hint = "Check that the artifact was packed for the recipient of CLEF_AGENT_AGE_KEY(_FILE)."


class PayloadInvalid(ArtifactError):
    """The plaintext is not an object of strings, or of objects of strings."""

    reason = "payload_parse"
    hint = "Pack again: a payload is {namespace: {key: value}} or {key: value}, values strings."


class DiskCopyUnusable(ClefError):
    """There is a copy of the artifact on disk, but it cannot be read or believed."""

    reason = "disk_copy"
    hint = "It is made anew after the next successful fetch; nothing needs to be done."


# --- serving ----------------------------------------------------------------------------------


class Unavailable(ClefError):
    """Nothing may be served now. Answered with 503.

    ``detail`` is the last refresh's failure, ``retry_after_s`` when it may be worth asking again.
    """

    reason = "unavailable"

    def __init__(
        self, message: str, *, detail: str | None = None, retry_after_s: float | None = None
    ) -> None:
        self.detail = detail
        self.retry_after_s = retry_after_s
        super().__init__(message)


class NotLoaded(Unavailable):
    """No artifact has been accepted since the start."""

    reason = "not_loaded"


class CacheExpired(Unavailable):
    """The TTL has passed since the last successful refresh."""

    reason = "cache_expired"


class ArtifactExpired(Unavailable):
    """``expiresAt`` of the artifact held has passed."""

    reason = "artifact_expired"


class ArtifactRevoked(Unavailable):
    """The source says that the artifact is revoked."""

    reason = "revoked"


class AttemptFailed(Unavailable):
    """A refresh or a decryption made for this very request failed; ``reason`` is the failure's."""

    def __init__(self, failure: ClefError, *, retry_after_s: float | None = None) -> None:
        self.failure = failure
        self.reason = failure.reason
        super().__init__("the attempt failed", detail=str(failure), retry_after_s=retry_after_s)


class ShuttingDown(Unavailable):
    """The process drains."""

    reason = "shutting_down"


class TooManyWaiters(Unavailable):
    """As many requests as can be kept already wait for a change."""

    reason = "too_many_waiters"


class RefreshTooSoon(ClefError):
    """A refresh was asked for sooner than it may be. Answered with 429."""

    reason = "rate_limited"

    def __init__(self, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__("a refresh was asked for too soon")
