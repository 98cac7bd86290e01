"""The way to AWS: botocore's session with its whole credential chain, its clients, its failures.

boto3 is a façade over botocore that this agent would load and never use. Importing this module
imports neither; everything here may block, and is called beside the event loop.

Source: https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

if TYPE_CHECKING:
    from botocore.config import Config
    from botocore.session import Session

ServiceName: TypeAlias = Literal["s3", "kms"]

#: Seconds for a connection, and for each read from it. botocore alone would wait 60 s for either.
CONNECT_TIMEOUT_S: Final = 2.0
READ_TIMEOUTS_S: Final[Mapping[ServiceName, float]] = {"s3": 5.0, "kms": 3.0}
#: The first one included.
ATTEMPTS: Final = 2
#: Answers that a Retry-After goes with.
#: Source: https://www.rfc-editor.org/rfc/rfc9110#section-10.2.3
_PATIENCE: Final = frozenset({403, 429, 500, 502, 503, 504})
#: Where nothing gives credentials, the chain is walked again after so many seconds: its last link,
#: the metadata service, takes a second to be found missing.
_LOOK_AGAIN_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class ClientKind:
    """What tells one client from another. ``region`` None: as the environment has it.

    ``unsigned`` sends no credentials. ``s3`` holds botocore's options for S3 (addressing style,
    dualstack and so on), ``use_fips`` and ``use_dualstack`` choose among a region's endpoints.
    """

    service: ServiceName
    region: str | None = None
    unsigned: bool = False
    use_fips: bool = False
    use_dualstack: bool = False
    s3: tuple[tuple[str, str], ...] = ()


class Aws:
    """botocore's session and its clients, made when they are first wanted and kept.

    Can be used by several threads. ``env`` is the process's environment; botocore itself reads
    that of the process, the shared configuration files, and the metadata services.
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self._lock = threading.Lock()
        self._session: Session | None = None
        self._clients: dict[ClientKind, Any] = {}
        self._look_again_at = 0.0

    def region(self) -> str | None:
        """``AWS_REGION``, then ``AWS_DEFAULT_REGION``, then the profile's; None without any."""
        with self._lock:
            return self._region()

    def has_credentials(self) -> bool:
        """Whether the chain ends at credentials of any kind.

        Where it does not, it is walked again a minute later: a role may be attached meanwhile.
        """
        with self._lock:
            return self._has_credentials()

    def wants_path_style(self) -> bool:
        """Whether buckets belong into the path: at an endpoint of the operator's own, for whose
        host no name with a bucket before it may resolve, unless a profile says otherwise.
        """
        with self._lock:
            own = self._env.get("AWS_ENDPOINT_URL_S3") or self._env.get("AWS_ENDPOINT_URL")
            style = self._opened().get_scoped_config().get("s3", {})
            return bool(own) and not (isinstance(style, dict) and "addressing_style" in style)

    def client(self, kind: ClientKind) -> Any:
        """The client of that kind.

        One that signs is made once there are credentials, for it would keep their absence.

        Raises:
            Exception: botocore's own; :func:`explain` tells what it amounts to.
        """
        with self._lock:
            client = self._clients.get(kind)
            if client is None:
                if not (kind.unsigned or self._has_credentials()):
                    from botocore.exceptions import NoCredentialsError

                    raise NoCredentialsError
                client = self._clients[kind] = self._opened().create_client(
                    kind.service,
                    region_name=kind.region or self._region(),
                    config=_config(kind),
                )
                _restrain(client.meta.events)
            return client

    def close(self) -> None:
        """Closes all connections."""
        with self._lock:
            clients, self._clients = self._clients, {}
        for client in clients.values():
            client.close()

    def _has_credentials(self) -> bool:
        if time.monotonic() < self._look_again_at:
            return False
        found = self._opened().get_credentials() is not None
        self._look_again_at = 0.0 if found else time.monotonic() + _LOOK_AGAIN_S
        return found

    def _region(self) -> str | None:
        region: str | None = (
            self._env.get("AWS_REGION")
            or self._env.get("AWS_DEFAULT_REGION")
            or self._opened().get_config_variable("region")
        )
        return region

    def _opened(self) -> Session:
        if self._session is None:
            from botocore.session import Session

            from clef_agent.aws_descriptions import LeanDescriptions

            session = Session()
            session.get_component("data_loader").file_loader = LeanDescriptions()
            # botocore has a variable of its own for this, which goes first.
            certificates = self._env.get("SSL_CERT_FILE")
            if certificates and not session.get_config_variable("ca_bundle"):
                session.set_config_variable("ca_bundle", certificates)
            self._session = session
        return self._session


def _config(kind: ClientKind) -> Config:
    from botocore import UNSIGNED
    from botocore.config import Config

    from clef_agent import __version__

    options: dict[str, Any] = {
        "connect_timeout": CONNECT_TIMEOUT_S,
        "read_timeout": READ_TIMEOUTS_S[kind.service],
        "retries": {"total_max_attempts": ATTEMPTS, "mode": "standard"},
        "user_agent_extra": f"clef-agent/{__version__}",
    }
    if kind.unsigned:
        options["signature_version"] = UNSIGNED
    if kind.use_fips:
        options["use_fips_endpoint"] = True
    if kind.use_dualstack:
        options["use_dualstack_endpoint"] = True
    if kind.s3:
        options["s3"] = dict(kind.s3)
    return Config(**options)


def _restrain(events: Any) -> None:
    """Keeps botocore from two things that it does beside what it is asked for."""
    events.register("before-call.s3.HeadBucket", _stay_where_it_is)
    events.register("needs-retry.s3", _leave_in_peace)


def _stay_where_it_is(params: dict[str, Any], **_: Any) -> None:
    """Lets no question for a bucket's region be redirected itself.

    botocore asks it where a redirect names no region; answered by such a redirect, it asks again,
    until Python's stack is full.

    Source: botocore.utils.S3RegionRedirectorv2.redirect_from_error
    """
    params["context"].setdefault("s3_redirect", {})["redirected"] = True


def _leave_in_peace(response: Any, operation: Any, **_: Any) -> None:
    """Makes no second attempt where the answer says when to come back: botocore reads a header of
    Amazon's own only.
    """
    from botocore.exceptions import ClientError

    if response is None:
        return
    http, parsed = response
    if http.status_code in _PATIENCE and "retry-after" in http.headers:
        raise ClientError(parsed, operation.name)


# --- what went wrong ----------------------------------------------------------------------------

Kind: TypeAlias = Literal["answered", "unreachable", "no_credentials", "misconfigured"]


@dataclass(frozen=True, slots=True)
class AwsFailure:
    """What a failed call amounts to; ``str()`` of it is safe to log.

    ``code`` and ``status`` are the service's where it answered, else "" and 0; ``words`` are ours
    where it did not. ``headers`` have lower-case names.
    """

    kind: Kind
    words: str = ""
    code: str = ""
    status: int = 0
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)

    def __str__(self) -> str:
        return self.words or self.code or f"status {self.status}"


def explain(exc: Exception) -> AwsFailure | None:
    """What ``exc``, raised by a client or by making one, amounts to; None where it is not AWS's.

    Texts are not repeated, a service's own neither: they hold URLs, the output of programs that
    print credentials, and whatever a service repeats of a request.

    Source: https://docs.aws.amazon.com/botocore/latest/reference/ (botocore.exceptions)
    """
    from botocore import exceptions as aws
    from urllib3.exceptions import HTTPError

    if isinstance(exc, aws.ClientError):
        return _answered(exc)
    name = type(exc).__name__
    # In this order: some are kinds of what comes later.
    kinds: tuple[tuple[Any, Kind, str], ...] = (
        (aws.NoCredentialsError, "no_credentials", "no AWS credentials were found"),
        (_of(aws, _NO_CREDENTIALS), "no_credentials", f"no AWS credentials could be had ({name})"),
        (aws.SSLError, "unreachable", "TLS failed, or the certificate is not trusted"),
        (
            (aws.HTTPClientError, aws.ConnectionError),
            "unreachable",
            _UNREACHABLE.get(name, f"no answer ({name})"),
        ),
        (
            (aws.IncompleteReadError, aws.FlexibleChecksumError, aws.ChecksumError, HTTPError),
            "unreachable",
            f"the answer broke off, or came altered or too slowly ({name})",
        ),
        (aws.NoRegionError, "misconfigured", "no AWS region is known: set AWS_REGION"),
        (aws.BotoCoreError, "misconfigured", f"AWS cannot be asked so ({name})"),
        # botocore wraps what the network does, but not what reading a token's file or a
        # credential program's output does.
        (
            (OSError, ValueError, KeyError),
            "no_credentials",
            f"no AWS credentials could be had ({name})",
        ),
    )
    return next((AwsFailure(kind, words) for of, kind, words in kinds if isinstance(exc, of)), None)


_CODE: Final = re.compile(r"[A-Za-z0-9.]{1,64}", re.ASCII)
#: Names, because not all of them are there in each version of botocore.
_NO_CREDENTIALS: Final = (
    "PartialCredentialsError",
    "CredentialRetrievalError",
    "MetadataRetrievalError",
    "TokenRetrievalError",
    "NoAuthTokenError",
    "SSOError",
    "LoginError",
    "UnauthorizedSSOTokenError",
    "RefreshWithMFAUnsupportedError",
    "UnknownCredentialError",
    "MissingDependencyException",
)
_UNREACHABLE: Final = {
    "ConnectTimeoutError": "no connection in time",
    "ReadTimeoutError": "no answer in time",
    "EndpointConnectionError": "no connection to the endpoint",
    "ConnectionClosedError": "the connection was closed before an answer came",
    "ProxyConnectionError": "the proxy does not let the request pass",
}


def _of(module: Any, names: tuple[str, ...]) -> tuple[type[Exception], ...]:
    return tuple(getattr(module, name) for name in names if hasattr(module, name))


def _answered(exc: Any) -> AwsFailure:
    response: Mapping[str, Any] = exc.response
    code = str(response.get("Error", {}).get("Code") or "")
    about = response.get("ResponseMetadata", {})
    return AwsFailure(
        "answered",
        code=code if _CODE.fullmatch(code) else "",
        status=int(about.get("HTTPStatusCode") or 0),
        headers={str(k).lower(): str(v) for k, v in about.get("HTTPHeaders", {}).items()},
    )
