"""Which route a request takes.

A table of our own: a framework's takes a tenth of a start to load, and has its own view of what
needs a token.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from clef_agent.server.replies import Reply, json_reply

if TYPE_CHECKING:
    from clef_agent.server.asgi import Receive, Scope


class Request(NamedTuple):
    """One request. ``values`` stood where its route's path has variables, percent-encoded."""

    scope: Scope
    receive: Receive
    values: Sequence[str]


Handler: TypeAlias = Callable[[Request], Awaitable[Reply]]


class Route(NamedTuple):
    """What answers requests for ``path``, which may end in variables: ``{name}`` is one segment,
    and not empty. ``method`` GET stands for HEAD too.
    """

    method: str
    path: str
    handler: Handler
    needs_token: bool = True

    @property
    def methods(self) -> tuple[str, ...]:
        """All that are answered, sorted."""
        return ("GET", "HEAD") if self.method == "GET" else (self.method,)

    def values_in(self, path: str) -> Sequence[str] | None:
        """What ``path`` has for the variables, of which there is one at the least; None where it is
        no path of this route.
        """
        fixed, *variables = self.path.split("{")
        if not path.startswith(fixed):
            return None
        # No further than it takes: anybody may send a path of thousands of slashes.
        values = path[len(fixed) :].split("/", len(variables))
        return values if len(values) == len(variables) and all(values) else None

    def not_allowed(self) -> Reply:
        """The reply to any other method."""
        allow = (b"allow", ", ".join(self.methods).encode())
        return json_reply(405, {"error": "Method not allowed"}, headers=(allow,))


class Routes:
    """Routes, no two of them for the same path."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._fixed = {route.path: route for route in routes if "{" not in route.path}
        self._variable = [route for route in routes if "{" in route.path]

    def find(self, path: str) -> tuple[Route, Sequence[str]] | None:
        """The route for ``path``, and the values of its variables.

        ``path`` is what stood in the request line: percent-decoding comes later, so that ``%2F``
        can be a part of a key.
        """
        fixed = self._fixed.get(path)
        if fixed is not None:
            return fixed, ()
        for route in self._variable:
            values = route.values_in(path)
            if values is not None:
                return route, values
        return None
