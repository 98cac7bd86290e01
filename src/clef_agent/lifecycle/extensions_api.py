"""Lambda's Extensions API, as plain calls that block.

They are made beside the event loop. http.client knows no proxies, which have no business between
Lambda and its extensions, and sets no timeout that nobody asked for.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html
"""

from __future__ import annotations

import http.client
import json
from collections.abc import Mapping
from contextlib import closing
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from clef_agent.errors import ExtensionsApiFailed, RegistrationRefused

EventType: TypeAlias = Literal["INVOKE", "SHUTDOWN"]

_BASE: Final = "/2020-01-01/extension"
_NAME: Final = "Lambda-Extension-Name"
_IDENTIFIER: Final = "Lambda-Extension-Identifier"
_ERROR_TYPE: Final = "Lambda-Extension-Function-Error-Type"
#: Lambda's word for an event that an extension cannot have: INVOKE on Managed Instances, and
#: SHUTDOWN for an extension that it takes for a part of the function's own process.
_EVENT_REFUSED: Final = "Extension.InvalidEventType"

#: The other side is this machine's own, and the whole of a failed start has ten seconds.
_TIMEOUT_S: Final = 3.0
_ACCEPTED: Final = (200, 202)
#: No event comes near it. The API is trusted, but not with all of the function's memory.
_MAX_ANSWER_BYTES: Final = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Invoke:
    """A function's invocation begins; it is cut at ``deadline_ms``, since 1970, where known."""

    deadline_ms: float | None


@dataclass(frozen=True, slots=True)
class Shutdown:
    """The sandbox ends: at ``deadline_ms`` by force. ``reason`` is Lambda's word, in lower case."""

    reason: str
    deadline_ms: float | None


@dataclass(frozen=True, slots=True)
class Unknown:
    """An event of a type that was not there when this was written."""

    type: str


Event: TypeAlias = Invoke | Shutdown | Unknown


class ExtensionsApi:
    """The API at ``authority`` (``host:port``), for the extension whose file is called ``name``.

    Each call has a connection of its own: none is kept that a freeze could leave dead.
    ``timeout_s`` is for all calls but ``next_event``, in seconds.
    """

    def __init__(self, authority: str, name: str, *, timeout_s: float = _TIMEOUT_S) -> None:
        self._authority = authority
        self._name = name
        self._timeout_s = timeout_s
        self._identifier: str | None = None

    @property
    def is_registered(self) -> bool:
        """Whether Lambda knows this extension by now."""
        return self._identifier is not None

    def register(self) -> frozenset[EventType]:
        """Makes this extension known; returns the events that it will get.

        INVOKE is refused on Managed Instances, where a sandbox serves many invocations at once
        and is not frozen between them.

        Raises:
            RegistrationRefused: Lambda expects no extension of that name, or not now.
            ExtensionsApiFailed: no usable answer.
        """
        for events in (("INVOKE", "SHUTDOWN"), ("SHUTDOWN",)):
            answer = self._ask(
                "POST",
                "/register",
                {_NAME: self._name},
                {"events": events},
                timeout_s=self._timeout_s,
            )
            if answer.refusal != _EVENT_REFUSED:
                break
        if answer.refusal:
            raise RegistrationRefused(
                f"Lambda refuses the extension {self._name!r} ({answer.refusal})"
            )
        self._identifier = answer.headers.get(_IDENTIFIER.lower())
        if not self._identifier:
            raise ExtensionsApiFailed("Lambda registered the extension without an identifier")
        return frozenset(events)

    def next_event(self) -> Event:
        """The next event, which may be a freeze of days away: there is no timeout.

        Asking for it says that all is done for the last one. Lambda may freeze the process then.

        Raises:
            ExtensionsApiFailed: there will be no more events.
        """
        answer = self._ask("GET", "/event/next", self._identity(), None, timeout_s=None)
        if answer.refusal:
            raise ExtensionsApiFailed(f"Lambda refuses the next event ({answer.refusal})")
        return parse_event(answer.document())

    def init_error(self, error_type: str, message: str) -> None:
        """Tells that the start failed; legal between ``register`` and the first ``next_event``.

        Raises:
            ExtensionsApiFailed: it could not be told.
        """
        self._report("/init/error", error_type, message)

    def exit_error(self, error_type: str, message: str) -> None:
        """Tells that the extension is about to end, out of turn. Raises as ``init_error`` does."""
        self._report("/exit/error", error_type, message)

    def _report(self, path: str, error_type: str, message: str) -> None:
        document = {"errorMessage": message, "errorType": error_type, "stackTrace": ()}
        headers = {**self._identity(), _ERROR_TYPE: error_type}
        answer = self._ask("POST", path, headers, document, timeout_s=self._timeout_s)
        if answer.refusal:
            raise ExtensionsApiFailed(f"Lambda refuses the report of a failure ({answer.refusal})")

    def _identity(self) -> dict[str, str]:
        assert self._identifier is not None  # else it has not been registered
        return {_IDENTIFIER: self._identifier}

    def _ask(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        document: object | None,
        *,
        timeout_s: float | None,
    ) -> _Answer:
        body = None if document is None else json.dumps(document).encode()
        try:
            connection = http.client.HTTPConnection(self._authority, timeout=timeout_s)
            with closing(connection):
                connection.request(method, _BASE + path, body, dict(headers))
                response = connection.getresponse()
                return _Answer(
                    response.status,
                    {name.lower(): value for name, value in response.getheaders()},
                    response.read(_MAX_ANSWER_BYTES),
                )
        except (OSError, http.client.HTTPException, ValueError) as exc:
            why = exc.strerror if isinstance(exc, OSError) and exc.strerror else type(exc).__name__
            raise ExtensionsApiFailed(f"Lambda's Extensions API gives no answer: {why}") from exc


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def refusal(self) -> str:
        """Lambda's word for why it refuses, or "" where it does not."""
        if self.status in _ACCEPTED:
            return ""
        try:
            error_type = self.document().get("errorType")
        except ExtensionsApiFailed:
            error_type = None
        return error_type if isinstance(error_type, str) and error_type else f"HTTP {self.status}"

    def document(self) -> Mapping[str, Any]:
        """The body, which is JSON whatever Content-Type says: SHUTDOWN comes as text/plain.

        Raises:
            ExtensionsApiFailed: it is no JSON object.
        """
        try:
            document = json.loads(self.body)
        except ValueError:
            document = None
        if not isinstance(document, dict):
            raise ExtensionsApiFailed(
                "Lambda's Extensions API answers with something else than JSON"
            )
        return document


def parse_event(document: Mapping[str, Any]) -> Event:
    """The event that ``document`` is; what it lacks is not known, and no error."""
    kind = document.get("eventType")
    deadline = document.get("deadlineMs")
    deadline_ms = float(deadline) if isinstance(deadline, int | float) and deadline > 0 else None
    match str(kind).upper():
        case "INVOKE":
            return Invoke(deadline_ms)
        case "SHUTDOWN":
            # "Timeout", "SPINDOWN", "spindown": the spelling depends on who sends it.
            return Shutdown(str(document.get("shutdownReason") or "unknown").lower(), deadline_ms)
    return Unknown(str(kind))
