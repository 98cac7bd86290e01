"""The running agent, asked over HTTP: by the literal loopback address, or over a Unix socket.

The bearer token travels with most requests. So no proxy variable is looked at, no redirect is
followed, and an address that is neither this machine nor https is refused before anything is
sent. A probe imports this module every few seconds, so it imports little.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from clef_agent import client
from clef_agent.cli import http_get
from clef_agent.cli.failure import Failure
from clef_agent.client import (
    DEFAULT_PORT,
    LOOPBACK,
    MAX_ANSWER_BYTES,
    Endpoint,
    TcpEndpoint,
    UnixEndpoint,
)

_MAX_PORT = 65535
_MULTIPLE_CHOICES, _NOT_MODIFIED, _BAD_REQUEST = 300, 304, 400
_ENDPOINT_HINT = (
    "Set CLEF_ENDPOINT to http://127.0.0.1:PORT, https://HOST or unix:///PATH, or unset it."
)


class AgentSilent(Failure):
    """Nobody listens there, or nobody answers in time; a moment later somebody may."""


class Answer:
    """A status and a body of JSON, already parsed; ``body`` is as it came, empty for a 304."""

    def __init__(self, status: int, body: bytes, value: object, etag: str | None) -> None:
        self.status = status
        self.body = body
        self.value = value
        self.etag = etag

    def text(self, name: str) -> str:
        """The member ``name`` of a JSON object if that is text, else ""."""
        member = self.value.get(name) if isinstance(self.value, dict) else None
        return member if isinstance(member, str) else ""


class Agent:
    """The agent at ``endpoint``, and the environment in which its token is looked for."""

    def __init__(self, endpoint: Endpoint, env: Mapping[str, str]) -> None:
        self.endpoint = endpoint
        self.env = env

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Agent:
        """The agent that ``CLEF_ENDPOINT`` names, else the one at ``CLEF_AGENT_PORT``.

        Raises:
            Failure: the endpoint is none, or one that no token may be sent to.
        """
        text = env.get("CLEF_ENDPOINT")
        if text is None:
            return cls(TcpEndpoint(LOOPBACK, _agent_port(env)), env)
        return cls(parse_endpoint(text), env)

    def token(self) -> str | None:
        """The agent's token, if it can be found.

        Raises:
            TokenUnusable: one was configured, and cannot be used.
        """
        from clef_agent.token_file import configured_token, find_token

        if not self.endpoint.is_beside_us:
            # What an agent on this machine left for its neighbours is nothing to send elsewhere.
            return configured_token(self.env)
        return find_token(env=self.env, port=self._token_port)

    def token_places(self) -> str:
        """Where :meth:`token` looks, in words."""
        from clef_agent.token_file import token_paths

        if "CLEF_AGENT_TOKEN" in self.env:
            return "CLEF_AGENT_TOKEN"
        places = ["CLEF_AGENT_TOKEN (not set)"]
        token_file = self.env.get("CLEF_AGENT_TOKEN_FILE")
        named = "not set" if token_file is None else token_file
        places.append(f"CLEF_AGENT_TOKEN_FILE ({named})")
        if self.endpoint.is_beside_us:
            places.extend(token_paths(self.env, self._token_port))
        return ", ".join(places)

    def ask(
        self, path: str, *, token: str | None = None, etag: str | None = None, timeout_s: float
    ) -> Answer:
        """The answer to ``GET path``, whatever its status, but for a redirect.

        With ``etag`` it is 304 while the answer would be the one that had it.

        Raises:
            AgentSilent: nobody listens there, or nobody answers in time.
            Failure: what answers is no clef-agent.
        """
        headers = {"Accept": b"application/json"}
        if token is not None:
            headers["Authorization"] = b"Bearer " + token.encode("utf-8")
        if etag is not None:
            headers["If-None-Match"] = etag.encode("latin-1")
        try:
            response = http_get.get(
                self.endpoint, path, headers, timeout_s=timeout_s, max_bytes=MAX_ANSWER_BYTES
            )
        except OSError as exc:
            raise self._no_answer(exc) from exc
        except http_get.NotHttp as exc:
            raise self._stranger(str(exc)) from exc
        except http_get.TooLong as exc:
            raise self._stranger("its answer is larger than any artifact's") from exc
        status, etag = response.status, response.headers.get("etag")
        if status == _NOT_MODIFIED:
            return Answer(status, b"", None, etag)
        if _MULTIPLE_CHOICES <= status < _BAD_REQUEST:
            raise self._stranger(f"it answered with a redirect ({status}), which is not followed")
        return Answer(status, response.body, self._json(response.body), etag)

    def _json(self, body: bytes) -> object:
        try:
            value: object = json.loads(body)
        except (ValueError, RecursionError):
            raise self._stranger("its answer is not JSON") from None
        return value

    def _no_answer(self, exc: OSError) -> Failure:
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
        return AgentSilent(
            f"the agent at {self.endpoint} cannot be asked: {exc.strerror or exc}",
            "Check CLEF_ENDPOINT, and this user's right to connect there.",
        )

    def _stranger(self, why: str) -> Failure:
        return Failure(
            f"what answers at {self.endpoint} is not a clef-agent: {why}",
            "Check CLEF_ENDPOINT and CLEF_AGENT_PORT; `ss -ltnp` names who listens there.",
        )

    @property
    def _token_port(self) -> int:
        if isinstance(self.endpoint, UnixEndpoint):
            return _agent_port(self.env)
        return self.endpoint.port


def parse_endpoint(text: str) -> Endpoint:
    """The endpoint that ``text``, a URL, names.

    Raises:
        Failure: no such URL, or one that no token may be sent to.
    """
    try:
        return client.parse_endpoint(text)
    except client.EndpointRefused as exc:
        raise Failure(f"CLEF_ENDPOINT is refused: {exc}", _ENDPOINT_HINT) from None


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
