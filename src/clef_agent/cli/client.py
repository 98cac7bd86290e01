"""Commands that ask the running agent: ``get``, ``keys``, ``secrets``, ``health``, ``ready``."""

from __future__ import annotations

import json
import math
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from clef_agent.cli import probe
from clef_agent.cli.failure import Failure, printable

if TYPE_CHECKING:
    from clef_agent.cli.endpoint import Agent, Answer

#: Just-in-time mode may first have to ask a source and a key service; design gives each 15 s.
_SECRETS_TIMEOUT_S = 35.0
_NOT_FOUND, _CONFLICT = 404, 409


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
    agent = probe.agent()
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
    probe.demand_ok(agent, answer)
    value = answer.value.get("value") if isinstance(answer.value, dict) else None
    if not isinstance(value, str):
        raise Failure(f"the agent at {agent.endpoint} answered without a value")
    # As bytes: the terminal's encoding must not decide what a program reads.
    typer.echo(value.encode("utf-8", "surrogatepass"), nl=not raw)


def keys(
    as_json: Annotated[bool, typer.Option("--json", help="As a JSON array.")] = False,
) -> None:
    """List the names of all secrets, one a line."""
    agent = probe.agent()
    answer = _ask(agent, "/v1/keys")
    probe.demand_ok(agent, answer)
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
    agent = probe.agent()
    answer = _ask(agent, "/v1/secrets?format=flat" if flat else "/v1/secrets")
    if answer.status == _CONFLICT:
        raise Failure(
            f"names collide when they are flattened: {_candidates(answer)}",
            "Ask without --flat, or pack them under other names.",
        )
    probe.demand_ok(agent, answer)
    typer.echo(_rendered(answer.value))


def health() -> None:
    """Probe: exit 0 when the agent answers, whether or not it has secrets to serve."""
    typer.echo(probe.health())


def ready(
    wait: Annotated[
        float,
        typer.Option("--wait", metavar="S", min=0.0, help="Try again for up to S seconds."),
    ] = 0.0,
) -> None:
    """Probe: exit 0 when the agent has secrets to serve, else say why not."""
    if math.isnan(wait):
        raise typer.BadParameter("it must be a number of seconds", param_hint="--wait")
    typer.echo(probe.ready(wait))


# --- asking -----------------------------------------------------------------------------------


def _ask(agent: Agent, path: str) -> Answer:
    return agent.ask(path, token=agent.token(), timeout_s=_SECRETS_TIMEOUT_S)


def _paths(key: str) -> list[str]:
    """Where ``key`` may be: with a slash it is most likely NAMESPACE/KEY, else a key with one."""
    whole = f"/v1/secrets/{quote(key, safe='')}"
    namespace, slash, name = key.partition("/")
    if not (slash and namespace and name):
        return [whole]
    return [f"/v1/secrets/{quote(namespace, safe='')}/{quote(name, safe='')}", whole]


def _candidates(answer: Answer) -> str:
    members = answer.value.get("candidates") if isinstance(answer.value, dict) else None
    return ", ".join(map(str, members)) if isinstance(members, list) else "it does not say which"


def _rendered(value: object) -> bytes:
    return json.dumps(value, ensure_ascii=False, indent=2).encode("utf-8", "surrogatepass")
