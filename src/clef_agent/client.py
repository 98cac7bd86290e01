"""For applications: the secrets of the agent beside them, in Python.

::

    from clef_agent.client import ClefClient

    database_url = ClefClient().get("DATABASE_URL")

It needs the standard library and nothing else, of the agent neither. It loads little of that, since
probes load this: dataclasses would cost them as much as all the rest. No proxy variable is looked
at, no redirect is followed, and an endpoint that is neither this machine, https nor a Unix socket
is refused before a token is sent there.

::

    ClientError
    ├── EndpointRefused       CLEF_ENDPOINT is no address, or one that no token may be sent to
    ├── AgentUnreachable      nobody answers in time, or the answer broke off
    │   └── NobodyListens     there is no agent
    ├── AgentMisbehaved       what answers is no clef-agent
    ├── Unauthorized          the token is missing or wrong
    ├── SecretMissing         there is no such secret
    ├── SecretAmbiguous       several namespaces have it: ``candidates``
    └── SecretsUnavailable    the agent has nothing to serve now: ``reason``, ``retry_after_s``
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple, TypeAlias, TypeVar, cast

__all__ = [
    "AgentMisbehaved",
    "AgentUnreachable",
    "AsyncClefClient",
    "ClefClient",
    "ClientError",
    "EndpointRefused",
    "NobodyListens",
    "SecretAmbiguous",
    "SecretMissing",
    "SecretsUnavailable",
    "Unauthorized",
]

T = TypeVar("T")
Payload: TypeAlias = "dict[str, str] | dict[str, dict[str, str]]"

LOOPBACK: Final = "127.0.0.1"
DEFAULT_PORT: Final = 7779
_MAX_PORT: Final = 65535
#: More than any payload that fits into an artifact of 32 MiB.
MAX_ANSWER_BYTES: Final = 128 * 1024 * 1024
_DEFAULT_PORTS: Final = {"http": 80, "https": 443}
#: Before the one retry, in seconds; an agent that asks for no more than the longest is waited for.
_PAUSE_S: Final = 0.1
_MAX_PAUSE_S: Final = 2.0
_OK, _NOT_MODIFIED, _UNAUTHORIZED, _UNAVAILABLE = 200, 304, 401, 503


class ClientError(Exception):
    """Why there is no secret. No message holds one, or the token."""


class EndpointRefused(ClientError):
    """The endpoint is no address, or one that no token may be sent to."""


class AgentUnreachable(ClientError):
    """Nobody listens there, or nobody answers in time."""


class NobodyListens(AgentUnreachable):
    """There is no agent at the endpoint."""


class AgentMisbehaved(ClientError):
    """What answers there is no clef-agent."""


class Unauthorized(ClientError):
    """The agent does not accept the token, or was shown none."""


class SecretMissing(ClientError, KeyError):
    """The agent has no such secret."""

    __str__ = Exception.__str__  # a KeyError shows its message in quotes


class SecretAmbiguous(ClientError):
    """Several namespaces have a secret of that name; ``candidates`` are their full names."""

    def __init__(self, message: str, candidates: tuple[str, ...]) -> None:
        self.candidates = candidates
        super().__init__(message)


class SecretsUnavailable(ClientError):
    """The agent has nothing to serve now. ``reason`` is its word for why (``revoked``, ...)."""

    def __init__(self, message: str, *, reason: str, retry_after_s: float | None) -> None:
        self.reason = reason
        self.retry_after_s = retry_after_s
        super().__init__(message)


# --- where the agent is ---------------------------------------------------------------------------


class TcpEndpoint(NamedTuple):
    """A host and a port; ``base_path`` stands before ``/v1``, without a slash at its end."""

    host: str
    port: int
    tls: bool = False
    base_path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base_path}"

    @property
    def host_header(self) -> str:
        """What a request's ``Host`` is, an international name in its ASCII form."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        if not host.isascii():
            host = host.encode("idna").decode("ascii")
        is_usual = self.port == _DEFAULT_PORTS["https" if self.tls else "http"]
        return host if is_usual else f"{host}:{self.port}"

    def open(self, timeout_s: float) -> socket.socket:
        """A socket that is connected, each step of which may take ``timeout_s``.

        Raises:
            OSError: nobody listens there, or its certificate is not trusted.
        """
        address = (self.host, self.port)
        if self.host == LOOPBACK:
            # Looking a name up would load what turns international ones into ASCII.
            opened = _connected(socket.AF_INET, address, timeout_s)
        else:
            opened = socket.create_connection(address, timeout_s)
        if not self.tls:
            return opened
        import ssl  # few endpoints need it, and a probe feels it

        with opened:  # wrapped, it is another's; otherwise nobody's
            return ssl.create_default_context().wrap_socket(opened, server_hostname=self.host)

    @property
    def is_beside_us(self) -> bool:
        """Whether it is this machine and no other."""
        return is_loopback(self.host)


class UnixEndpoint(NamedTuple):
    """A Unix socket in the file system."""

    socket_path: str
    base_path: str = ""

    def __str__(self) -> str:
        return f"unix://{self.socket_path}"

    @property
    def host_header(self) -> str:
        """What a request's ``Host`` is."""
        return "localhost"

    def open(self, timeout_s: float) -> socket.socket:
        """A socket that is connected.

        Raises:
            OSError: nobody listens there.
        """
        return _connected(socket.AF_UNIX, self.socket_path, timeout_s)

    @property
    def is_beside_us(self) -> bool:
        """Whether it is this machine and no other."""
        return True


Endpoint: TypeAlias = TcpEndpoint | UnixEndpoint


def _connected(
    family: socket.AddressFamily, address: str | tuple[str, int], timeout_s: float
) -> socket.socket:
    opened = socket.socket(family, socket.SOCK_STREAM)
    try:
        opened.settimeout(timeout_s)
        opened.connect(address)
    except BaseException:
        opened.close()
        raise
    return opened


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that ``text``, a URL, names; ``localhost`` becomes ``127.0.0.1``.

    Raises:
        EndpointRefused: no such URL, or neither loopback, https nor a Unix socket.
    """
    from urllib.parse import unquote, urlsplit  # the default endpoint needs none of it

    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise EndpointRefused("it is not a valid address") from None
    if not text.isprintable() or " " in text or url.query or url.fragment:
        raise EndpointRefused("it is not a valid address")
    if url.username is not None or url.password is not None:
        raise EndpointRefused("it has userinfo, which is not used: take it out")
    if url.scheme == "unix" and not url.netloc and url.path.startswith("/"):
        return UnixEndpoint(unquote(url.path))
    if url.scheme not in _DEFAULT_PORTS or not host or port == 0:
        raise EndpointRefused("it is not a valid address")
    if url.scheme == "http" and not is_loopback(host):
        raise EndpointRefused(
            f"it names {host!a} over plain http, and a token is only sent to this machine or over"
            " https"
        )
    if host.lower() == "localhost":
        # A name is looked up, and what the lookup says is not ours to trust.
        host = LOOPBACK
    port = _DEFAULT_PORTS[url.scheme] if port is None else port
    return TcpEndpoint(host, port, tls=url.scheme == "https", base_path=url.path.rstrip("/"))


def is_loopback(host: str) -> bool:
    """Whether ``host``, as it stands in a URL without brackets, is this machine and no other.

    The agent has this too: the two share nothing, so that each loads what it needs alone.
    """
    if host.lower() == "localhost":
        return True
    import ipaddress  # the default endpoint needs none of it

    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- asking it ------------------------------------------------------------------------------------


class _Answer:
    def __init__(
        self, status: int, etag: str | None, retry_after_s: float | None, document: Any
    ) -> None:
        self.status = status
        self.etag = etag
        self.retry_after_s = retry_after_s
        self.document = document

    def text(self, name: str) -> str:
        member = self.document.get(name) if isinstance(self.document, dict) else None
        return member if isinstance(member, str) else ""


class _Held:
    """The last payload, and the ETag to ask by whether it is still the one."""

    def __init__(self, etag: str, payload: Payload) -> None:
        self.etag = etag
        self.payload = payload


class ClefClient:
    """Asks the agent. Can be used by several threads, and costs nothing until it is used.

    ``endpoint`` and ``token`` stand in for ``CLEF_ENDPOINT`` (default: ``http://127.0.0.1`` and
    ``CLEF_AGENT_PORT`` or 7779) and ``CLEF_AGENT_TOKEN`` or ``CLEF_AGENT_TOKEN_FILE``. A payload is
    kept, and asked for again by its ETag: as long as it is the same, it does not travel.

    With ``env_fallback``, :meth:`get` answers from ``env`` (``NAMESPACE__KEY`` where a namespace
    is given) where no agent is meant to be: neither an endpoint nor a token is configured, and
    nobody listens. An agent that is configured and cannot serve is an error, never an old value.

    Raises:
        EndpointRefused: the endpoint is none, or one that no token may be sent to.
    """

    def __init__(
        self,
        endpoint: str | None = None,
        token: str | None = None,
        *,
        env: Mapping[str, str] = os.environ,
        env_fallback: bool = True,
        timeout_s: float = 35.0,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        from threading import Lock  # a probe makes no client

        self._env = env
        named = ("CLEF_ENDPOINT", "CLEF_AGENT_TOKEN", "CLEF_AGENT_TOKEN_FILE")
        self._is_configured = (
            endpoint is not None or token is not None or any(name in env for name in named)
        )
        text = env.get("CLEF_ENDPOINT") if endpoint is None else endpoint
        self._endpoint = _default_endpoint(env) if text is None else parse_endpoint(text)
        self._given_token = token
        self._env_fallback = env_fallback
        self._timeout_s = timeout_s
        self._sleep = sleep
        self._lock = Lock()
        self._held: _Held | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({str(self._endpoint)!r})"

    def get(self, key: str, namespace: str | None = None) -> str:
        """The value of one secret: of ``key`` in ``namespace``, or of ``NAMESPACE__KEY``, or of a
        ``KEY`` that one namespace alone has.

        Raises:
            SecretMissing, SecretAmbiguous, SecretsUnavailable, Unauthorized, AgentUnreachable
        """
        try:
            payload = self._payload()
        except NobodyListens:
            name = key if namespace is None else f"{namespace}__{key}"
            if self._env_fallback and not self._is_configured and name in self._env:
                return self._env[name]
            raise
        return _found(payload, key, namespace)

    def get_all(self) -> Payload:
        """All secrets as they were packed: ``{namespace: {key: value}}``, or ``{key: value}``."""
        return cast("Payload", json.loads(json.dumps(self._payload())))

    def keys(self) -> list[str]:
        """The names of all secrets, ``NAMESPACE__KEY``, or ``KEY`` for a flat payload."""
        answer = self._asked("/v1/keys")
        return [str(name) for name in _listed(answer)]

    def health(self) -> dict[str, Any]:
        """What the agent says of itself: status, mode, revision, last refresh. Needs no token."""
        document = self._asked("/v1/health").document
        if not isinstance(document, dict):
            raise AgentMisbehaved(f"what answers at {self._endpoint} is not a clef-agent")
        return document

    # --- one request ------------------------------------------------------------------------------

    def _payload(self) -> Payload:
        with self._lock:
            held = self._held
        answer = self._asked("/v1/secrets", held.etag if held else None)
        if answer.status == _NOT_MODIFIED and held is not None:
            return held.payload
        payload = _checked(answer.document, self._endpoint)
        with self._lock:
            self._held = _Held(answer.etag, payload) if answer.etag else None
        return payload

    def _asked(self, path: str, etag: str | None = None) -> _Answer:
        """The answer to ``GET path``, asked twice where the first time may have been bad luck."""
        try:
            answer = self._ask(path, etag)
        except AgentUnreachable:
            self._sleep(_PAUSE_S)
            answer = self._ask(path, etag)
        asked_s = answer.retry_after_s
        is_soon = asked_s is not None and asked_s <= _MAX_PAUSE_S
        if answer.status == _UNAVAILABLE and asked_s is not None and is_soon:
            self._sleep(asked_s)
            answer = self._ask(path, etag)
        self._judge(answer)
        return answer

    def _ask(self, path: str, etag: str | None) -> _Answer:
        from http.client import HTTPConnection, HTTPException

        headers: dict[str, str | bytes] = {
            "Host": self._endpoint.host_header,
            "Accept": "application/json",
        }
        token = self._token()
        if token is not None:
            # As bytes: http.client would refuse what is beyond Latin-1.
            headers["Authorization"] = b"Bearer " + token.encode("utf-8")
        if etag is not None:
            headers["If-None-Match"] = etag
        connection = HTTPConnection("clef-agent")  # a name for nobody: its socket is ours
        try:
            connection.sock = self._endpoint.open(self._timeout_s)
            connection.request("GET", self._endpoint.base_path + path, headers=headers)
            response = connection.getresponse()
            body = response.read(MAX_ANSWER_BYTES + 1)
        except (ConnectionRefusedError, FileNotFoundError):
            raise NobodyListens(f"no agent listens at {self._endpoint}") from None
        except (OSError, HTTPException) as exc:
            from ssl import SSLError

            why = "its certificate is not trusted" if isinstance(exc, SSLError) else "no answer"
            raise AgentUnreachable(
                f"the agent at {self._endpoint} cannot be asked: {why} ({type(exc).__name__})"
            ) from None
        finally:
            connection.close()
        if response.length and len(body) <= MAX_ANSWER_BYTES:
            raise AgentUnreachable(f"the agent at {self._endpoint} broke off its answer")
        retry_after = response.headers.get("Retry-After", "")
        return _Answer(
            response.status,
            response.headers.get("ETag"),
            float(retry_after) if retry_after.isascii() and retry_after.isdecimal() else None,
            None if response.status == _NOT_MODIFIED else self._json(body),
        )

    def _json(self, body: bytes) -> Any:
        try:
            if len(body) <= MAX_ANSWER_BYTES:
                return json.loads(body)
        except (ValueError, RecursionError):
            pass
        raise AgentMisbehaved(f"what answers at {self._endpoint} is not a clef-agent") from None

    def _judge(self, answer: _Answer) -> None:
        if answer.status in (_OK, _NOT_MODIFIED):
            return
        if answer.status == _UNAUTHORIZED:
            raise Unauthorized(
                f"the agent at {self._endpoint} does not accept the token, or was shown none:"
                " set CLEF_AGENT_TOKEN or CLEF_AGENT_TOKEN_FILE as for the agent"
            )
        if answer.status == _UNAVAILABLE:
            reason = answer.text("reason") or "unavailable"
            raise SecretsUnavailable(
                f"the agent at {self._endpoint} has nothing to serve: {reason}",
                reason=reason,
                retry_after_s=answer.retry_after_s,
            )
        raise AgentMisbehaved(f"the agent at {self._endpoint} answered {answer.status}")

    def _token(self) -> str | None:
        token = self._given_token
        if token is None:
            token = self._env.get("CLEF_AGENT_TOKEN")
        path = self._env.get("CLEF_AGENT_TOKEN_FILE")
        if token is None and path is not None:
            try:
                with open(path, encoding="utf-8") as file:  # noqa: PTH123  # pathlib is an import more
                    token = file.read().removesuffix("\n")
            except (OSError, ValueError) as exc:
                raise Unauthorized(
                    f"CLEF_AGENT_TOKEN_FILE cannot be read ({type(exc).__name__})"
                ) from None
        if token is not None and not (token and token.isprintable()):
            # http.client would refuse it, too, but with its text.
            raise Unauthorized("the token is no single line of text")
        return token


class AsyncClefClient:
    """:class:`ClefClient` for asyncio: each call waits in a thread, and the loop goes on."""

    def __init__(
        self, endpoint: str | None = None, token: str | None = None, **options: Any
    ) -> None:
        self._client = ClefClient(endpoint, token, **options)

    def __repr__(self) -> str:
        return f"Async{self._client!r}"

    async def get(self, key: str, namespace: str | None = None) -> str:
        """See ClefClient."""
        return await _beside(lambda: self._client.get(key, namespace))

    async def get_all(self) -> Payload:
        """See ClefClient."""
        return await _beside(self._client.get_all)

    async def keys(self) -> list[str]:
        """See ClefClient."""
        return await _beside(self._client.keys)

    async def health(self) -> dict[str, Any]:
        """See ClefClient."""
        return await _beside(self._client.health)


async def _beside(call: Callable[[], T]) -> T:
    import asyncio  # whoever awaits has loaded it; probes and other programs do without

    return await asyncio.to_thread(call)


# --- what it answers ------------------------------------------------------------------------------


def _found(payload: Payload, key: str, namespace: str | None) -> str:
    """The secret that the agent itself would find by that name, by the same rules."""
    entries = list(_entries(payload))
    if namespace is not None:
        found = [entry for entry in entries if (entry.namespace, entry.key) == (namespace, key)]
    else:
        found = [entry for entry in entries if entry.full_name == key] or [
            entry for entry in entries if entry.key == key
        ]
    if not found:
        where = "" if namespace is None else f" in the namespace {namespace!a}"
        raise SecretMissing(f"the agent has no secret {key!a}{where}")
    if len(found) > 1:
        # Two that flatten to one name are told apart by a slash.
        names = sorted({entry.full_name for entry in found})
        if len(names) < len(found):
            names = sorted(f"{entry.namespace}/{entry.key}" for entry in found)
        raise SecretAmbiguous(f"several secrets are called {key!a}", tuple(names))
    return found[0].value


class _Entry(NamedTuple):
    namespace: str | None
    key: str
    value: str

    @property
    def full_name(self) -> str:
        return self.key if self.namespace is None else f"{self.namespace}__{self.key}"


def _entries(payload: Payload) -> Iterator[_Entry]:
    for outer, inner in payload.items():
        if isinstance(inner, str):
            yield _Entry(None, outer, inner)
        else:
            for key, value in inner.items():
                yield _Entry(outer, key, value)


def _checked(document: Any, endpoint: Endpoint) -> Payload:
    if isinstance(document, dict) and all(
        isinstance(inner, str)
        or (isinstance(inner, dict) and all(isinstance(value, str) for value in inner.values()))
        for inner in document.values()
    ):
        return document
    raise AgentMisbehaved(f"what answers at {endpoint} is not a clef-agent")


def _listed(answer: _Answer) -> list[Any]:
    if isinstance(answer.document, list):
        return answer.document
    raise AgentMisbehaved("the agent answered without a list")


def _default_endpoint(env: Mapping[str, str]) -> Endpoint:
    text = env.get("CLEF_AGENT_PORT", str(DEFAULT_PORT))
    port = int(text) if text.isascii() and text.isdecimal() and len(text) < 6 else 0  # noqa: PLR2004
    if not 0 < port <= _MAX_PORT:
        raise EndpointRefused("CLEF_AGENT_PORT is not a whole number from 1 to 65535")
    return TcpEndpoint(LOOPBACK, port)
