"""Commands that ask the running agent: ``get``, ``keys``, ``secrets``, ``health``, ``ready``.

The last two are probes for containers that have neither a shell nor curl, and run every few
seconds: nothing is imported here that they can do without.
"""

from __future__ import annotations

import json
import math
import os
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from clef_agent.cli.failure import Failure, printable

if TYPE_CHECKING:
    from clef_agent.cli.endpoint import Agent, Answer

#: Just-in-time mode may first have to ask a source and a key service; design gives each 15 s.
_SECRETS_TIMEOUT_S = 35.0
_PROBE_TIMEOUT_S = 5.0
_POLL_S = 0.1

_OK, _UNAUTHORIZED, _NOT_FOUND, _CONFLICT, _UNAVAILABLE = 200, 401, 404, 409, 503

#: What to do about each reason that keeps an agent from serving.
_UNREADY_HINTS = {
    "not_loaded": "It has not accepted an artifact yet; its log says why.",
    "cache_expired": "It has not reached its source within CLEF_AGENT_CACHE_TTL; its log says why.",
    "artifact_expired": "Pack and upload a new artifact, with a later expiry.",
    "revoked": "The artifact was revoked on purpose; pack and upload a new one.",
}


def get(
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="NAMESPACE/KEY, NAMESPACE__KEY, or a KEY that only one namespace has.",
        ),
    ],
    raw: Annotated[
        bool, typer.Option("--raw", "-n", help="Without the line break after the value.")
    ] = False,
) -> None:
    """Print the value of one secret."""
    if not key:
        raise typer.BadParameter("it must not be empty", param_hint="KEY")
    agent = _agent()
    for path in _paths(key):
        answer = _ask(agent, path)
        if answer.status != _NOT_FOUND:
            break
    if answer.status == _NOT_FOUND:
        raise Failure(f"there is no secret {key}", "`clef-agent keys` lists those that there are.")
    if answer.status == _CONFLICT:
        raise Failure(
            f"several secrets are called {key}: {_candidates(answer)}",
            "Ask for one of them by that name.",
        )
    _demand_ok(agent, answer)
    value = answer.value.get("value") if isinstance(answer.value, dict) else None
    if not isinstance(value, str):
        raise Failure(f"the agent at {agent.endpoint} answered without a value")
    # As bytes: the terminal's encoding must not decide what a program reads.
    typer.echo(value.encode("utf-8", "surrogatepass"), nl=not raw)


def keys(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """List the names of all secrets, one a line."""
    agent = _agent()
    answer = _ask(agent, "/v1/keys")
    _demand_ok(agent, answer)
    if as_json:
        typer.echo(_rendered(answer.value))
    elif isinstance(answer.value, list):
        for name in answer.value:
            typer.echo(printable(str(name)))


def secrets(
    flat: Annotated[
        bool, typer.Option("--flat", help="As one object of NAMESPACE__KEY names.")
    ] = False,
) -> None:
    """Print all secrets as JSON, in the form in which they were packed."""
    agent = _agent()
    answer = _ask(agent, "/v1/secrets?format=flat" if flat else "/v1/secrets")
    if answer.status == _CONFLICT:
        raise Failure(
            f"names collide when they are flattened: {_candidates(answer)}",
            "Ask without --flat, or pack them under other names.",
        )
    _demand_ok(agent, answer)
    typer.echo(_rendered(answer.value))


def health() -> None:
    """Probe: exit 0 when the agent answers, whether or not it has secrets to serve."""
    agent = _agent()
    answer = agent.ask("/v1/health", timeout_s=_PROBE_TIMEOUT_S)
    _demand_ok(agent, answer)
    mode, revision = answer.text("mode") or "unknown", answer.text("revision") or "none yet"
    typer.echo(f"healthy (mode {printable(mode)}, revision {printable(revision)})")


def ready(
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="S", min=0.0, help="Try again for up to S seconds."),
    ] = 0.0,
) -> None:
    """Probe: exit 0 when the agent has secrets to serve, else say why not."""
    if math.isnan(wait):
        raise typer.BadParameter("it must be a number of seconds", param_hint="--wait")
    agent = _agent()
    wait_until_ready(
        lambda timeout_s: _unreadiness(agent, timeout_s),
        wait,
        now=time.monotonic,
        sleep=time.sleep,
    )
    typer.echo("ready")


def wait_until_ready(
    unreadiness: Callable[[float], Failure | None],
    wait_s: float,
    *,
    now: Callable[[], float],
    sleep: Callable[[float], None],
) -> None:
    """Returns when ``unreadiness``, asked with a timeout in seconds, finds nothing in the way.

    It is asked once, and again until ``wait_s`` seconds are over.

    Raises:
        Failure: what it found in the end.
    """
    deadline = now() + wait_s
    timeout_s = min(_PROBE_TIMEOUT_S, wait_s) if wait_s else _PROBE_TIMEOUT_S
    while (failure := unreadiness(timeout_s)) is not None:
        left_s = deadline - now()
        if left_s <= 0:
            raise failure
        sleep(min(_POLL_S, left_s))
        # An attempt that hangs must not outlast the waiting, and yet have a chance to succeed.
        timeout_s = min(_PROBE_TIMEOUT_S, max(deadline - now(), _POLL_S))


def _unreadiness(agent: Agent, timeout_s: float) -> Failure | None:
    """Why ``agent`` is not ready, if so; one that does not listen yet is not ready yet."""
    from clef_agent.cli.endpoint import AgentSilent

    try:
        answer = agent.ask("/v1/ready", timeout_s=timeout_s)
    except AgentSilent as silence:
        return silence
    if answer.status == _OK:
        return None
    reason = answer.text("reason")
    if answer.status != _UNAVAILABLE or not reason:
        return failure_of(agent, answer)
    return Failure(f"not ready: {reason}", _UNREADY_HINTS.get(reason, "See the agent's log."))


# --- asking -----------------------------------------------------------------------------------


def _agent() -> Agent:
    from clef_agent.cli.endpoint import Agent

    return Agent.from_env(os.environ)


def _ask(agent: Agent, path: str) -> Answer:
    return agent.ask(path, token=agent.token(), timeout_s=_SECRETS_TIMEOUT_S)


def _paths(key: str) -> list[str]:
    """Where ``key`` may be: with a slash it is most likely NAMESPACE/KEY, else a key with one."""
    whole = f"/v1/secrets/{quote(key, safe='')}"
    namespace, slash, name = key.partition("/")
    if not (slash and namespace and name):
        return [whole]
    return [f"/v1/secrets/{quote(namespace, safe='')}/{quote(name, safe='')}", whole]


def _demand_ok(agent: Agent, answer: Answer) -> None:
    if answer.status != _OK:
        raise failure_of(agent, answer)


def failure_of(agent: Agent, answer: Answer) -> Failure:
    """What an answer that nobody hoped for means, in words."""
    error, reason, detail = (answer.text(name) for name in ("error", "reason", "detail"))
    if answer.status == _UNAUTHORIZED:
        return _unauthorized(agent)
    if answer.status == _UNAVAILABLE:
        why = ": ".join(part for part in (reason or error, detail) if part)
        return Failure(
            f"the agent at {agent.endpoint} has nothing to serve: {why}",
            _UNREADY_HINTS.get(reason, "The agent's log says more."),
        )
    return Failure(
        f"the agent at {agent.endpoint} answered {answer.status}: {error or 'without a reason'}",
        "Check CLEF_ENDPOINT, and that the agent's version is not older than this one.",
    )


def _unauthorized(agent: Agent) -> Failure:
    places = agent.token_places()
    if agent.token() is None:
        return Failure(
            f"the agent at {agent.endpoint} asks for a token, and none was found",
            f"Set CLEF_AGENT_TOKEN or CLEF_AGENT_TOKEN_FILE as for the agent. Looked in: {places}.",
        )
    return Failure(
        f"the agent at {agent.endpoint} does not accept the token that was found",
        f"Is it another agent's, or of an earlier start? Looked in: {places}.",
    )


def _candidates(answer: Answer) -> str:
    members = answer.value.get("candidates") if isinstance(answer.value, dict) else None
    return ", ".join(map(str, members)) if isinstance(members, list) else "it does not say which"


def _rendered(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")
