"""The probes: ``clef-agent health`` and ``clef-agent ready``, and what an answer means in words.

They run every few seconds in containers that have neither a shell nor curl. So that a probe costs
little more than the interpreter's start, nothing here imports the command line's library, and
:func:`run` serves their plain forms without it.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

from clef_agent.cli.endpoint import Agent, AgentSilent, Answer
from clef_agent.cli.failure import FAILED, Failure, printable, report, unwritten
from clef_agent.errors import ClefError

_TIMEOUT_S: Final = 5.0
_POLL_S: Final = 0.1
_OK, _UNAUTHORIZED, _UNAVAILABLE = 200, 401, 503
#: As the command line's library has it, and shells.
_INTERRUPTED: Final = 130

#: What to do about each reason that keeps an agent from serving.
_UNREADY_HINTS = {
    "not_loaded": "It has not accepted an artifact yet; its log says why.",
    "cache_expired": "It has not reached its source within CLEF_AGENT_CACHE_TTL; its log says why.",
    "artifact_expired": "Pack and upload a new artifact, with a later expiry.",
    "revoked": "The artifact was revoked on purpose; pack and upload a new one.",
}


def run(name: str) -> int:
    """Runs the probe ``name``, says what it found, and returns the process's exit code."""
    try:
        print(health() if name == "health" else ready(0.0), flush=True)
    except (Failure, ClefError) as failure:
        report(failure)
        return FAILED
    except OSError as exc:
        if (unsaid := unwritten(exc)) is not None:
            report(unsaid)
        return FAILED
    except KeyboardInterrupt:
        return _INTERRUPTED
    return 0


def agent() -> Agent:
    """The agent that the environment names.

    Raises:
        Failure: what names it is no endpoint.
    """
    return Agent.from_env(os.environ)


def health() -> str:
    """What an agent that answers says of itself, secrets or none.

    Raises:
        Failure: none answers.
    """
    asked = agent()
    answer = asked.ask("/v1/health", timeout_s=_TIMEOUT_S)
    demand_ok(asked, answer)
    mode, revision = answer.text("mode") or "unknown", answer.text("revision") or "none yet"
    return f"healthy (mode {printable(mode)}, revision {printable(revision)})"


def ready(wait_s: float) -> str:
    """Returns when the agent has secrets to serve, for which it is given ``wait_s``.

    Raises:
        Failure: why it has none.
    """
    asked = agent()
    wait_until_ready(
        lambda timeout_s: _unreadiness(asked, timeout_s),
        wait_s,
        now=time.monotonic,
        sleep=time.sleep,
    )
    return "ready"


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
    timeout_s = min(_TIMEOUT_S, wait_s) if wait_s else _TIMEOUT_S
    while (failure := unreadiness(timeout_s)) is not None:
        left_s = deadline - now()
        if left_s <= 0:
            raise failure
        sleep(min(_POLL_S, left_s))
        # An attempt that hangs must not outlast the waiting, and yet have a chance to succeed.
        timeout_s = min(_TIMEOUT_S, max(deadline - now(), _POLL_S))


def _unreadiness(agent: Agent, timeout_s: float) -> Failure | None:
    """Why ``agent`` is not ready, if so; one that does not listen yet is not ready yet."""
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


def demand_ok(agent: Agent, answer: Answer) -> None:
    """Passes what ``agent`` answered with 200.

    Raises:
        Failure: it answered with something else; says what that means.
    """
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
