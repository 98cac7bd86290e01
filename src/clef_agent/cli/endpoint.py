"""The running agent, asked over HTTP: by the literal loopback address, or over a Unix socket.

The bearer token travels with most requests. So no proxy variable is looked at, no redirect is
followed, and an address that is neither this machine nor https is refused before anything is
sent. ``http.client`` does none of the three by itself, and is what a probe can afford to import.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import TypeAlias
from urllib.parse import unquote, urlsplit

from clef_agent.cli.failure import Failure, printable
from clef_agent.config import DEFAULT_PORT, is_loopback
from clef_agent.token_file import configured_token, find_token, token_paths

#: More than any payload that fits into an artifact of 32 MiB.
_MAX_ANSWER_BYTES = 128 * 1024 * 1024
_MAX_PORT = 65535
_DEFAULT_PORTS = {"http": 80, "https": 443}
_ENDPOINT_HINT = (
    "Set CLEF_ENDPOINT to http://127.0.0.1:PORT, https://HOST or unix:///PATH, or unset it."
)


class AgentSilent(Failure):
    """Nobody listens there, or nobody answers in time; a moment later somebody may."""


@dataclass(frozen=True, slots=True)
class TcpEndpoint:
    """A host and a port; ``base_path`` stands before ``/v1``, without a slash at its end."""

    host: str
    port: int
    tls: bool = False
    base_path: str = ""

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'https' if self.tls else 'http'}://{host}:{self.port}{self.base_path}"

    def connection(self, timeout_s: float) -> HTTPConnection:
        """A connection that is not open yet."""
        kind = HTTPSConnection if self.tls else HTTPConnection
        return kind(self.host, self.port, timeout=timeout_s)


@dataclass(frozen=True, slots=True)
class UnixEndpoint:
    """A Unix socket in the file system."""

    socket_path: str
    base_path: str = ""

    def __str__(self) -> str:
        return f"unix://{self.socket_path}"

    def connection(self, timeout_s: float) -> HTTPConnection:
        """A connection that is not open yet."""
        return _UnixConnection(self.socket_path, timeout_s)


Endpoint: TypeAlias = TcpEndpoint | UnixEndpoint


class _UnixConnection(HTTPConnection):
    def __init__(self, socket_path: str, timeout_s: float) -> None:
        super().__init__("localhost", timeout=timeout_s)
        self._socket_path = socket_path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._socket_path)


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and a body of JSON, already parsed; ``body`` is as it came."""

    status: int
    body: bytes = field(repr=False)
    value: object = field(repr=False)

    def text(self, name: str) -> str:
        """The member ``name`` of a JSON object if that is text, else ""."""
        member = self.value.get(name) if isinstance(self.value, dict) else None
        return member if isinstance(member, str) else ""


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent at ``endpoint``, and the environment in which its token is looked for."""

    endpoint: Endpoint
    env: Mapping[str, str] = field(repr=False)

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Agent:
        """The agent that ``CLEF_ENDPOINT`` names, else the one at ``CLEF_AGENT_PORT``.

        Raises:
            Failure: the endpoint is none, or one that no token may be sent to.
        """
        text = env.get("CLEF_ENDPOINT")
        if text is None:
            return cls(TcpEndpoint("127.0.0.1", _agent_port(env)), env)
        return cls(parse_endpoint(text), env)

    def token(self) -> str | None:
        """The agent's token, if it can be found.

        Raises:
            TokenUnusable: one was configured, and cannot be used.
        """
        if not self._is_beside_us:
            # What an agent on this machine left for its neighbours is nothing to send elsewhere.
            return configured_token(self.env)
        return find_token(env=self.env, port=self._token_port)

    def token_places(self) -> str:
        """Where :meth:`token` looks, in words."""
        if "CLEF_AGENT_TOKEN" in self.env:
            return "CLEF_AGENT_TOKEN"
        places = ["CLEF_AGENT_TOKEN (not set)"]
        token_file = self.env.get("CLEF_AGENT_TOKEN_FILE")
        named = "not set" if token_file is None else token_file
        places.append(f"CLEF_AGENT_TOKEN_FILE ({named})")
        if self._is_beside_us:
            places.extend(token_paths(self.env, self._token_port))
        return ", ".join(places)

    def ask(self, path: str, *, token: str | None = None, timeout_s: float) -> Answer:
        """The answer to ``GET path``, whatever its status, but for a redirect.

        Raises:
            AgentSilent: nobody listens there, or nobody answers in time.
            Failure: what answers is no clef-agent.
        """
        headers: dict[str, str | bytes] = {"Accept": "application/json"}
        if token is not None:
            # As bytes: http.client would refuse what is beyond Latin-1.
            headers["Authorization"] = b"Bearer " + token.encode("utf-8")
        connection = self.endpoint.connection(timeout_s)
        try:
            connection.request("GET", self.endpoint.base_path + path, headers=headers)
            response = connection.getresponse()
            status, body = response.status, response.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, HTTPException) as exc:
            raise self._no_answer(exc) from exc
        finally:
            connection.close()
        if HTTPStatus.MULTIPLE_CHOICES <= status < HTTPStatus.BAD_REQUEST:
            raise self._stranger(f"it answered with a redirect ({status}), which is not followed")
        return Answer(status, body, self._json(body))

    def _json(self, body: bytes) -> object:
        if len(body) > _MAX_ANSWER_BYTES:
            raise self._stranger("its answer is larger than any artifact's")
        try:
            value: object = json.loads(body)
        except (ValueError, RecursionError):
            raise self._stranger("its answer is not JSON") from None
        return value

    def _no_answer(self, exc: OSError | HTTPException) -> Failure:
        if isinstance(exc, (ConnectionRefusedError, FileNotFoundError)):
            return AgentSilent(
                f"no agent listens at {self.endpoint}",
                "Start one: `clef-agent dev` serves a sample, `clef-agent` what CLEF_AGENT_SOURCE"
                " names. CLEF_AGENT_PORT or CLEF_ENDPOINT say where to ask.",
            )
        if isinstance(exc, TimeoutError):
            return AgentSilent(
                f"the agent at {self.endpoint} does not answer in time",
                "Look at the agent's log: perhaps its source or its key service hangs.",
            )
        if isinstance(exc, OSError):
            return AgentSilent(
                f"the agent at {self.endpoint} cannot be asked: {exc.strerror or exc}",
                "Check CLEF_ENDPOINT, and this user's right to connect there.",
            )
        return self._stranger("its answer is not HTTP")

    def _stranger(self, why: str) -> Failure:
        return Failure(
            f"what answers at {self.endpoint} is not a clef-agent: {why}",
            "Check CLEF_ENDPOINT and CLEF_AGENT_PORT; `ss -ltnp` names who listens there.",
        )

    @property
    def _is_beside_us(self) -> bool:
        return isinstance(self.endpoint, UnixEndpoint) or is_loopback(self.endpoint.host)

    @property
    def _token_port(self) -> int:
        if isinstance(self.endpoint, UnixEndpoint):
            return _agent_port(self.env)
        return self.endpoint.port


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that ``text``, a URL, names; ``localhost`` becomes ``127.0.0.1``.

    Raises:
        Failure: no such URL, or neither loopback, https nor a Unix socket.
    """
    try:
        url = urlsplit(text)
        host, port = url.hostname or "", url.port
    except ValueError:
        raise Failure("CLEF_ENDPOINT is not a valid address", _ENDPOINT_HINT) from None
    if not text.isprintable() or " " in text or url.query or url.fragment:
        raise Failure("CLEF_ENDPOINT is not a valid address", _ENDPOINT_HINT)
    if url.username is not None or url.password is not None:
        raise Failure(
            "CLEF_ENDPOINT has userinfo, which is not used",
            "Take it out; the token comes from CLEF_AGENT_TOKEN or CLEF_AGENT_TOKEN_FILE.",
        )
    if url.scheme == "unix" and not url.netloc and url.path.startswith("/"):
        return UnixEndpoint(unquote(url.path))
    if url.scheme not in _DEFAULT_PORTS or not host or port == 0:
        raise Failure("CLEF_ENDPOINT is not a valid address", _ENDPOINT_HINT)
    if url.scheme == "http" and not is_loopback(host):
        raise Failure(
            f"CLEF_ENDPOINT names {printable(host)} over plain http,"
            " and a token is only sent to this machine or over https",
            _ENDPOINT_HINT,
        )
    if host.lower() == "localhost":
        # A name is looked up, and what the lookup says is not ours to trust.
        host = "127.0.0.1"
    port = _DEFAULT_PORTS[url.scheme] if port is None else port
    return TcpEndpoint(host, port, tls=url.scheme == "https", base_path=url.path.rstrip("/"))


def _agent_port(env: Mapping[str, str]) -> int:
    text = env.get("CLEF_AGENT_PORT", str(DEFAULT_PORT))
    if not (text.isascii() and text.isdecimal() and len(text) <= len(str(_MAX_PORT))):
        port = 0
    else:
        port = int(text)
    if not 1 <= port <= _MAX_PORT:
        raise Failure(
            f"CLEF_AGENT_PORT must be a whole number from 1 to {_MAX_PORT}",
            "Set it to the port that the agent was started with.",
        )
    return port
