"""The description that is shipped cannot drift: it is held against what the server answers."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import jsonschema
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from clef_agent import errors
from clef_agent.config import DEFAULT_PORT
from clef_agent.errors import ClefError
from clef_agent.refresh import Refreshed
from clef_agent.server.secrets_endpoint import MAX_WAIT_S, MIN_WAIT_S
from server_fakes import BEARER, Answer, Face, FakeProvider, every_route

TEXT = (files("clef_agent.server") / "openapi.json").read_text("utf-8")
DOCUMENT: dict[str, Any] = json.loads(TEXT)
COLLIDING = {"a": {"KEY": "1"}, "b": {"KEY": "2"}}
FLAT_COLLIDING = {"a__b": {"c": "1"}, "a": {"b__c": "2"}}
KNOWN = (b"if-none-match", b"*")
STRANGER = (b"host", b"evil.example")


def resolved(node: dict[str, Any]) -> dict[str, Any]:
    while "$ref" in node:
        found: Any = DOCUMENT
        for name in node["$ref"].removeprefix("#/").split("/"):
            found = found[name]
        node = found
    return node


def operations() -> Iterator[tuple[str, str, dict[str, Any]]]:
    for path, methods in DOCUMENT["paths"].items():
        for method, operation in methods.items():
            yield method.upper(), path, operation


def conforms(instance: object, schema: dict[str, Any]) -> None:
    root = {**schema, "components": DOCUMENT["components"]}
    jsonschema.Draft202012Validator(root).validate(instance)


def check(answer: Answer, described: dict[str, Any]) -> None:
    """Headers and body are as ``described``, and there are no others."""
    described = resolved(described)
    headers = {name.decode(): value.decode() for name, value in answer.headers}
    free = {"content-type", "content-length"}
    names = {name.lower(): resolved(header) for name, header in described["headers"].items()}
    assert set(headers) - free == set(names)
    for name, header in names.items():
        conforms(headers[name], header["schema"])
    content = described.get("content")
    if content is None:
        assert answer.body == b""
        return
    ((media_type, media),) = content.items()
    assert headers["content-type"].partition(";")[0] == media_type
    conforms(answer.json if "json" in media_type else answer.body.decode(), media["schema"])


@dataclass(frozen=True)
class Asking:
    """A request that is answered with ``status``, and the provider that makes it so."""

    status: int
    path: str
    target: str
    provider: FakeProvider
    method: str = "GET"
    headers: tuple[tuple[bytes, bytes], ...] = (BEARER,)
    host: bool = True

    def answer(self) -> Answer:
        face = Face(self.provider)
        how = {"method": self.method, "host": self.host}
        return asyncio.run(face.ask(self.target, *self.headers, **how))  # type: ignore[arg-type]  # two keywords


def failing(failure: Exception) -> FakeProvider:
    provider = FakeProvider()
    provider.failure = failure
    return provider


def not_ready() -> FakeProvider:
    provider = FakeProvider()
    provider.why_not = errors.CacheExpired
    return provider


def never_refreshed() -> FakeProvider:
    provider = FakeProvider()
    provider.revision = provider.last_success_ms = None
    provider.why_not = errors.NotLoaded
    return provider


def refreshing(*, changed: bool) -> FakeProvider:
    provider = FakeProvider()
    provider.refreshed = Refreshed("r2", changed=changed)
    return provider


UNAVAILABLE = (
    errors.NotLoaded("nothing", detail="why", retry_after_s=1.5),
    errors.CacheExpired("too old"),
    errors.ArtifactRevoked("revoked"),
    errors.ShuttingDown("draining"),
    errors.TooManyWaiters("too many"),
    errors.AttemptFailed(errors.SourceUnreachable("no route")),
    errors.AttemptFailed(errors.DecryptFailed("no key opens it")),
)

ONE, IN_NAMESPACE = "/v1/secrets/{key}", "/v1/secrets/{namespace}/{key}"
ASKED = {
    "/v1/secrets": "/v1/secrets",
    ONE: "/v1/secrets/API_KEY",
    IN_NAMESPACE: "/v1/secrets/app/API_KEY",
    "/v1/keys": "/v1/keys",
    "/v1/refresh": "/v1/refresh",
    "/v1/health": "/v1/health",
    "/v1/ready": "/v1/ready",
    "/v1/metrics": "/v1/metrics",
}
OPEN = ("/v1/health", "/v1/ready", "/v1/metrics")


def method_of(path: str) -> str:
    return "POST" if path == "/v1/refresh" else "GET"


def askings() -> Iterator[Asking]:
    for path, target in ASKED.items():
        method = method_of(path)
        yield Asking(200, path, target, FakeProvider(), method)
        yield Asking(403, path, target, FakeProvider(), method, (STRANGER,), host=False)
        if path in OPEN:
            continue
        yield Asking(401, path, target, FakeProvider(), method, ())
        for failure in UNAVAILABLE:
            yield Asking(503, path, target, failing(failure), method)
    flat = "/v1/secrets?format=flat"
    yield Asking(200, "/v1/secrets", flat, FakeProvider())
    yield Asking(200, "/v1/secrets", "/v1/secrets", FakeProvider({"KEY": "flat"}))
    yield Asking(200, "/v1/secrets", "/v1/secrets", FakeProvider({"A": "b", "c": {"D": "e"}}))
    yield Asking(304, "/v1/secrets", "/v1/secrets", FakeProvider(), headers=(BEARER, KNOWN))
    yield Asking(304, "/v1/secrets", flat, FakeProvider(), headers=(BEARER, KNOWN))
    yield Asking(400, "/v1/secrets", "/v1/secrets?format=xml", FakeProvider())
    yield Asking(400, "/v1/secrets", f"/v1/secrets?wait={MAX_WAIT_S + 1}", FakeProvider())
    yield Asking(400, "/v1/secrets", f"/v1/secrets?wait={MIN_WAIT_S - 1}", FakeProvider())
    yield Asking(409, "/v1/secrets", flat, FakeProvider(FLAT_COLLIDING))
    yield Asking(404, ONE, "/v1/secrets/none", FakeProvider())
    yield Asking(409, ONE, "/v1/secrets/KEY", FakeProvider(COLLIDING))
    yield Asking(404, IN_NAMESPACE, "/v1/secrets/app/none", FakeProvider())
    too_soon = failing(errors.RefreshTooSoon(0.4))
    yield Asking(429, "/v1/refresh", "/v1/refresh", too_soon, "POST")
    yield Asking(200, "/v1/refresh", "/v1/refresh", refreshing(changed=True), "POST")
    yield Asking(200, "/v1/health", "/v1/health", never_refreshed())
    yield Asking(503, "/v1/ready", "/v1/ready", not_ready())
    yield Asking(503, "/v1/ready", "/v1/ready", never_refreshed())


def test_the_description_is_valid() -> None:
    OpenAPIV31SpecValidator(DOCUMENT).validate()
    assert DOCUMENT["servers"] == [{"url": f"http://127.0.0.1:{DEFAULT_PORT}"}]
    assert json.dumps(DOCUMENT, indent=2) + "\n" == TEXT


def test_every_route_and_method_is_described_and_no_other() -> None:
    served = set()
    for route in every_route():
        methods = set(route.methods)
        assert ("HEAD" in methods) == ("GET" in methods), "the description says so in words"
        served |= {(method, route.path) for method in methods - {"HEAD"}}
    assert {(method, path) for method, path, _ in operations()} == served


def test_path_parameters_are_those_of_the_path() -> None:
    for _, path, operation in operations():
        names = {p["name"] for p in operation.get("parameters", ()) if p["in"] == "path"}
        assert names == set(re.findall(r"{(\w+)}", path))


@pytest.mark.parametrize(
    "asking",
    [*askings()],
    ids=lambda asking: f"{asking.method} {asking.target} {asking.status}",
)
def test_each_answer_is_as_described(asking: Asking) -> None:
    answer = asking.answer()
    assert answer.status == asking.status
    operation = DOCUMENT["paths"][asking.path][asking.method.lower()]
    check(answer, operation["responses"][str(answer.status)])


def test_every_status_that_is_described_has_been_seen() -> None:
    described = {
        (method, path, int(status))
        for method, path, operation in operations()
        for status in operation["responses"]
    }
    assert {(a.method, a.path, a.status) for a in askings()} == described


def test_every_query_parameter_has_its_bounds() -> None:
    parameters = {p["name"]: p for p in DOCUMENT["paths"]["/v1/secrets"]["get"]["parameters"]}
    assert list(parameters) == ["format", "wait", "If-None-Match"]
    wait = parameters["wait"]["schema"]
    assert (wait["minimum"], wait["maximum"]) == (MIN_WAIT_S, MAX_WAIT_S)
    for kind in parameters["format"]["schema"]["enum"]:
        assert Face(FakeProvider()).read(f"/v1/secrets?format={kind}").status == 200


def test_the_bearer_token_is_asked_for_where_the_description_says() -> None:
    for method, path, operation in operations():
        status = Face(FakeProvider()).answer(ASKED[path], method=method).status
        assert (status == 401) == bool(operation["security"])


def reasons(*roots: type[ClefError]) -> set[str]:
    """What instances of ``roots`` and below say, but for the roots of the two families."""
    found: set[str] = set()
    for root in roots:
        if root not in (errors.Unavailable, errors.ArtifactError, errors.AttemptFailed):
            found.add(root.reason)
        found |= reasons(*root.__subclasses__())
    return found


def test_every_reason_of_the_error_tree_is_described_and_no_other() -> None:
    schemas = DOCUMENT["components"]["schemas"]
    described = schemas["Unavailable"]["properties"]["reason"]["enum"]
    families = (errors.Unavailable, errors.SourceError, errors.ArtifactError)
    # A revoked artifact and an agent that is wiped for it have one word.
    assert sorted(described) == sorted(reasons(*families))
    not_ready_for = schemas["NotReady"]["properties"]["reason"]["enum"]
    why_not = (
        errors.NotLoaded,
        errors.CacheExpired,
        errors.ArtifactExpired,
        errors.ArtifactRevoked,
    )
    assert not_ready_for == [error.reason for error in why_not]
