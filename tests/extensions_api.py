"""Lambda's side of an extension: its API with all that it refuses, and its end of a sandbox.

The rules are those of the emulator that AWS publishes; what it does not do (freezing, the end of a
start that takes too long) a test does itself.

Source: https://docs.aws.amazon.com/lambda/latest/dg/runtimes-extensions-api.html and
https://github.com/aws/aws-lambda-runtime-interface-emulator (rapi/handler, core, rapid)
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final, Literal, TypeAlias

from agent_process import PATIENCE_S, eventually

State: TypeAlias = Literal[
    "started", "registered", "ready", "running", "init error", "exit error", "over"
]

#: From SHUTDOWN to SIGKILL, in seconds.
GRACE_S: Final = 2.0
_BASE: Final = "/2020-01-01/extension"


@dataclass(frozen=True)
class Asked:
    """One request of the extension's. ``at`` is a moment of the monotonic clock."""

    at: float
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int
    document: Mapping[str, Any]
    headers: Mapping[str, str] = field(default_factory=dict)
    content_type: str = "application/json"

    @classmethod
    def refusal(cls, error_type: str) -> Answer:
        return cls(403, {"errorType": error_type, "errorMessage": "no"})


@dataclass(frozen=True)
class Ending:
    """How a process ended: its exit code, and seconds since it was told to."""

    code: int
    took_s: float


class Sandbox:
    """One sandbox whose /opt/extensions holds one file, ``file``.

    ``is_managed`` makes it one of Managed Instances. ``on_registered`` is called before the answer
    to a registration goes out, for that is what the function's own start waits for.
    ``ahead_s`` is by how much the clock of the sandbox is ahead of ours.
    """

    def __init__(
        self,
        file: str = "clef-agent",
        *,
        is_managed: bool = False,
        on_registered: Callable[[], None] = lambda: None,
    ) -> None:
        self.file = file
        self.is_managed = is_managed
        self.on_registered = on_registered
        self.ahead_s = 0.0
        self.authority = ""
        self.asked: list[Asked] = []
        self.refusals: list[str] = []
        self.state: State = "started"
        self._identifier = str(uuid.uuid4())
        self._event: Answer | None = None
        self._stirred = threading.Condition()

    # --- what a test does -----------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_LAMBDA_RUNTIME_API": self.authority}

    @property
    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [asked.path for asked in self.asked]

    def of(self, path: str) -> list[Asked]:
        return [asked for asked in self.asked if asked.path == path]

    def wait_until_idle(self, *, patience_s: float = PATIENCE_S) -> None:
        """Until the extension waits for an event: from then on it may be frozen."""
        eventually(lambda: self.state == "ready", "a call of event/next", patience_s=patience_s)

    def begin_invocation(self, *, lasts_s: float = 30.0) -> None:
        """Tells the extension of an invocation that may last for ``lasts_s``."""
        arn = "arn:aws:lambda:eu-west-1:123456789012:function:f"
        document = {"requestId": str(uuid.uuid4()), "invokedFunctionArn": arn, "tracing": {}}
        self._tell(Answer(200, self._event_of("INVOKE", lasts_s) | document))

    def invoke(self, *, lasts_s: float = 30.0) -> float:
        """An invocation, until the extension is done with it; returns how long that took."""
        began = time.monotonic()
        self.begin_invocation(lasts_s=lasts_s)
        self.wait_until_idle()
        return time.monotonic() - began

    def tell_of(self, event_type: str) -> None:
        """An event that is none of those that there are."""
        self._tell(Answer(200, self._event_of(event_type, 1.0)))

    def shut_down(self, process: subprocess.Popen[bytes], reason: str = "spindown") -> Ending:
        """Ends the sandbox: the event, and SIGKILL to whoever is still there after two seconds.

        The event is delivered when it is asked for; the time runs anyhow.
        """
        began = time.monotonic()
        document = self._event_of("SHUTDOWN", GRACE_S) | {"shutdownReason": reason}
        self._tell(Answer(200, document, content_type="text/plain; charset=utf-8"), waits=False)
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
        return Ending(process.wait(PATIENCE_S), time.monotonic() - began)

    def _event_of(self, event_type: str, lasts_s: float) -> dict[str, Any]:
        deadline_ms = round((time.time() + self.ahead_s + lasts_s) * 1000)
        return {"eventType": event_type, "deadlineMs": deadline_ms}

    def _tell(self, event: Answer, *, waits: bool = True) -> None:
        if waits:
            self.wait_until_idle()
        with self._stirred:
            self._event = event
            if self.state == "ready":
                self.state = "running"
            self._stirred.notify_all()

    # --- what it answers ------------------------------------------------------------------------

    def answer(self, asked: Asked) -> Answer:
        self.asked.append(asked)
        if asked.path == "POST /register":
            answer = self._register(asked)
        elif "lambda-extension-identifier" not in asked.headers:
            answer = Answer.refusal("Extension.MissingExtensionIdentifier")
        elif asked.headers["lambda-extension-identifier"] != self._identifier:
            answer = Answer.refusal("Extension.UnknownExtensionIdentifier")
        elif asked.path == "GET /event/next":
            answer = self._next()
        elif asked.path == "POST /init/error":
            answer = self._fail(asked, "init error", ("registered", "init error"))
        elif asked.path == "POST /exit/error":
            answer = self._fail(asked, "exit error", ("registered", "running", "exit error"))
        else:
            answer = Answer(404, {})
        if answer.status not in (200, 202):
            self.refusals.append(str(answer.document.get("errorType")))
        return answer

    def _register(self, asked: Asked) -> Answer:
        name = asked.headers.get("lambda-extension-name")
        if not name:
            return Answer.refusal("Extension.InvalidExtensionName")
        # Whoever is not in /opt/extensions is taken for a part of the function's own process.
        is_refused = "SHUTDOWN" if name != self.file else "INVOKE" if self.is_managed else None
        events = asked.json["events"]
        if is_refused in events or not {"INVOKE", "SHUTDOWN"}.issuperset(events):
            return Answer.refusal("Extension.InvalidEventType")
        with self._stirred:
            if self.state != "started":
                return Answer.refusal("Extension.InvalidExtensionState")
            self.state = "registered"
        self.on_registered()
        document = {"functionName": "f", "functionVersion": "$LATEST", "handler": "f.handler"}
        return Answer(200, document, {"Lambda-Extension-Identifier": self._identifier})

    def _next(self) -> Answer:
        with self._stirred:
            if self.state not in ("registered", "running"):
                return Answer.refusal("Extension.InvalidExtensionState")
            self.state = "ready" if self._event is None else "running"
            self._stirred.wait_for(lambda: self._event or self.state == "over")
            event, self._event = self._event, None
            return event or Answer(500, {})

    def _fail(self, asked: Asked, state: State, allowed: tuple[State, ...]) -> Answer:
        if "lambda-extension-function-error-type" not in asked.headers:
            return Answer.refusal("Extension.MissingHeader")
        with self._stirred:
            if self.state not in allowed:
                return Answer.refusal("Extension.InvalidExtensionState")
            self.state = state
        return Answer(202, {"status": "OK"})

    def end(self) -> None:
        """Lets go of whoever still waits for an event."""
        with self._stirred:
            self.state = "over"
            self._stirred.notify_all()


@contextlib.contextmanager
def serving(sandbox: Sandbox) -> Iterator[Sandbox]:
    """``sandbox``, listening on a port of its own; it stops when the block is left."""

    class Handler(BaseHTTPRequestHandler):
        def _answer(self) -> None:
            length = int(self.headers.get("Content-Length") or 0)
            headers = {name.lower(): value for name, value in self.headers.items()}
            path = f"{self.command} {self.path.removeprefix(_BASE)}"
            asked = Asked(time.monotonic(), path, headers, self.rfile.read(length))
            answer = sandbox.answer(asked)
            body = json.dumps(answer.document).encode()
            with contextlib.suppress(ConnectionError):
                self.send_response(answer.status)
                for name, value in answer.headers.items():
                    self.send_header(name, value)
                self.send_header("Content-Type", answer.content_type)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        do_GET = do_POST = _answer  # noqa: N815  # their names there

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # its name there
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        sandbox.authority = f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        try:
            yield sandbox
        finally:
            sandbox.end()
            server.shutdown()
