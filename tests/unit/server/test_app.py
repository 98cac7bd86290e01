from __future__ import annotations

from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from clef_agent import errors
from clef_agent.cache.memory import WhyNot
from clef_agent.refresh import Refreshed
from fakes import PAYLOAD
from server_fakes import BEARER, Face, FakeProvider

GETS = (
    "/v1/health",
    "/v1/ready",
    "/v1/secrets",
    "/v1/secrets?format=flat",
    "/v1/secrets/app__API_KEY",
    "/v1/secrets/app/API_KEY",
    "/v1/keys",
    "/v1/metrics",
)
REASONS: list[tuple[WhyNot, str]] = [
    (errors.NotLoaded, "not_loaded"),
    (errors.CacheExpired, "cache_expired"),
    (errors.ArtifactExpired, "artifact_expired"),
    (errors.ArtifactRevoked, "revoked"),
]


def face_of(payload: Any = PAYLOAD) -> Face:
    return Face(FakeProvider(payload))


@pytest.mark.parametrize("target", GETS)
def test_every_answer_says_what_it_is_and_that_it_is_not_to_be_stored(target: str) -> None:
    answer = face_of().read(target)
    assert answer.status == 200
    assert answer.header(b"cache-control") == b"no-store"
    assert answer.header(b"content-length") == b"%d" % len(answer.body)
    is_json = target != "/v1/metrics"
    assert (answer.header(b"content-type") == b"application/json") is is_json


@pytest.mark.parametrize("target", GETS)
def test_head_is_answered_where_get_is(target: str) -> None:
    face = face_of()
    get, head = face.read(target), face.read(target, method="HEAD")
    assert head.status == 200
    if target != "/v1/metrics":
        assert head.headers == get.headers


# --- health and readiness ---------------------------------------------------------------------


def test_health_tells_the_state() -> None:
    assert face_of().answer("/v1/health").json == {
        "status": "ok",
        "mode": "cached",
        "revision": "r1",
        "lastRefreshAt": 1_800_000_000_000,
        "expired": False,
    }


@pytest.mark.parametrize("why_not", [why_not for why_not, _ in REASONS])
def test_health_is_200_while_the_process_serves(why_not: WhyNot) -> None:
    provider = FakeProvider()
    provider.mode, provider.revision, provider.last_success_ms = "jit", None, None
    provider.why_not = why_not
    provider.wipe(why_not("gone"))
    answer = Face(provider).answer("/v1/health")
    assert answer.status == 200
    assert answer.json == {
        "status": "ok",
        "mode": "jit",
        "revision": None,
        "lastRefreshAt": None,
        "expired": why_not in (errors.CacheExpired, errors.ArtifactExpired),
    }


def test_ready_is_200_while_secrets_may_be_served() -> None:
    answer = face_of().answer("/v1/ready")
    assert (answer.status, answer.json) == (200, {"ready": True})


@pytest.mark.parametrize(("why_not", "reason"), REASONS)
def test_not_ready_says_why(why_not: WhyNot, reason: str) -> None:
    provider = FakeProvider()
    provider.why_not = why_not
    answer = Face(provider).answer("/v1/ready")
    assert (answer.status, answer.json) == (503, {"ready": False, "reason": reason})


# --- one secret -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "value"),
    [
        ("app__API_KEY", "app-key"),
        ("API_KEY", "app-key"),
        ("app/API_KEY", "app-key"),
        ("payments/STRIPE_KEY", "stripe-key"),
        ("%41PI_KEY", "app-key"),
        ("app%5F%5FAPI_KEY", "app-key"),
    ],
)
def test_a_secret_is_found_by_its_full_name_its_bare_key_or_its_namespace(
    path: str, value: str
) -> None:
    answer = face_of().read(f"/v1/secrets/{path}")
    assert (answer.status, answer.json) == (200, {"value": value})


@pytest.mark.parametrize(
    "path",
    [
        "app",
        "app__",
        "__API_KEY",
        "api_key",
        "API_KEY%00",
        "payments__API_KEY",
        "payments/API_KEY",
        "app/app__API_KEY",
        "app%2FAPI_KEY",  # a slash that is part of a key is not the one of the route
        "app%252FAPI_KEY",
        "API%255FKEY",
        "API+KEY",
        "%FF",
        "%C0%AE",
        "%ED%A0%80",
        "%FF/API_KEY",
        "app/%FF",
        "..",
        ".",
        "json",
    ],
)
def test_a_secret_that_is_not_there_is_404(path: str) -> None:
    answer = face_of().read(f"/v1/secrets/{path}")
    assert (answer.status, answer.json) == (404, {"error": "Not found"})


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ("a/b", "a%2Fb"),
        ("a/b", "a%2fb"),
        ("a%2Fb", "a%252Fb"),
        ("100%", "100%25"),
        ("100%", "100%"),
        ("%zz", "%zz"),
        ("a b", "a%20b"),
        ("a+b", "a+b"),
        ("a+b", "a%2Bb"),
        ("schlüssel", "schl%C3%BCssel"),
        ("🔑", "%F0%9F%94%91"),
        ("..", "%2E%2E"),
        ("..", ".."),
        ("a?b", "a%3Fb"),
        ("a#b", "a%23b"),
        ("\n", "%0A"),
        ("\x00", "%00"),
        ('"', "%22"),
    ],
)
def test_a_key_is_percent_decoded_once(key: str, path: str) -> None:
    flat, nested = face_of({key: "it"}), face_of({"ns": {key: "it"}})
    assert flat.read(f"/v1/secrets/{path}").json == {"value": "it"}
    assert nested.read(f"/v1/secrets/{path}").json == {"value": "it"}
    assert nested.read(f"/v1/secrets/ns__{path}").json == {"value": "it"}
    assert nested.read(f"/v1/secrets/ns/{path}").json == {"value": "it"}
    assert face_of({key: {"K": "it"}}).read(f"/v1/secrets/{path}/K").json == {"value": "it"}


def test_a_value_is_served_to_the_letter() -> None:
    value = 'quote " back \\ tab \t null \x00 ü 🔑 \u2028 </script>'
    assert face_of({"a": {"K": value}}).read("/v1/secrets/K").json == {"value": value}
    assert face_of({"K": ""}).read("/v1/secrets/K").json == {"value": ""}


def test_a_bare_key_in_several_namespaces_is_409_with_candidates() -> None:  # case 9
    face = face_of({"a": {"KEY": "1", "X": "x"}, "b": {"KEY": "2"}, "c": {"OTHER": "3"}})
    answer = face.read("/v1/secrets/KEY")
    assert answer.status == 409
    assert answer.json["candidates"] == ["a__KEY", "b__KEY"]
    assert b'"1"' not in answer.body
    assert answer.header(b"cache-control") == b"no-store"
    for name, value in (("a__KEY", "1"), ("b__KEY", "2"), ("b/KEY", "2")):
        assert face.read(f"/v1/secrets/{name}").json == {"value": value}


def test_names_that_flatten_to_one_are_told_apart_by_a_slash() -> None:
    face = face_of({"a__b": {"c": "1"}, "a": {"b__c": "2"}})
    answer = face.read("/v1/secrets/a__b__c")
    assert (answer.status, answer.json["candidates"]) == (409, ["a__b/c", "a/b__c"])
    assert face.read("/v1/secrets/a__b/c").json == {"value": "1"}
    assert face.read("/v1/secrets/a/b__c").json == {"value": "2"}
    flat = face.read("/v1/secrets?format=flat")
    assert (flat.status, flat.json["candidates"]) == (409, ["a__b/c", "a/b__c"])
    assert face.read("/v1/secrets").status == 200


# --- the payload ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("payload", "flat"),
    [
        ({"a": {"K": "1"}, "b": {"K": "2"}}, {"a__K": "1", "b__K": "2"}),
        ({"K": "ab", "L": "cd"}, {"K": "ab", "L": "cd"}),
        ({"K": "1", "a": {"K": "2"}}, {"K": "1", "a__K": "2"}),
        ({"a": {}}, {}),
        ({}, {}),
    ],
)
def test_a_payload_is_served_as_packed_and_flat(payload: Any, flat: Any) -> None:  # case 8
    face = face_of(payload)
    assert face.read("/v1/secrets").json == payload
    assert face.read("/v1/secrets?format=nested").json == payload
    assert face.read("/v1/secrets?format=flat").json == flat
    assert face.read("/v1/keys").json == list(flat)
    for name, value in flat.items():
        assert face.read(f"/v1/secrets/{name}").json == {"value": value}


# --- refusals ---------------------------------------------------------------------------------

WITH_SECRETS = ("/v1/secrets", "/v1/secrets/app__API_KEY", "/v1/secrets/app/API_KEY", "/v1/keys")


@pytest.mark.parametrize("target", WITH_SECRETS)
@pytest.mark.parametrize(("why_not", "reason"), REASONS)
def test_nothing_to_serve_is_503_with_reason_detail_and_retry_after(
    target: str, why_not: WhyNot, reason: str
) -> None:  # case 10
    provider = FakeProvider()
    provider.wipe(why_not("not now", detail="no route to the source", retry_after_s=0.2))
    answer = Face(provider).read(target)
    assert answer.status == 503
    assert answer.json == {
        "error": "not now",
        "reason": reason,
        "detail": "no route to the source",
    }
    assert answer.header(b"retry-after") == b"1"
    assert answer.header(b"cache-control") == b"no-store"


@pytest.mark.parametrize("target", WITH_SECRETS)
def test_what_cannot_be_decrypted_is_503_with_the_artifacts_reason(target: str) -> None:
    provider = FakeProvider()
    provider.failure = errors.AttemptFailed(errors.UnwrapFailed("the key is disabled"))
    answer = Face(provider).read(target)
    assert (answer.status, answer.json["reason"]) == (503, "kms_unwrap")
    assert answer.json["detail"] == "the key is disabled"
    assert answer.header(b"retry-after") == b"1"


def test_the_token_is_asked_for_before_anything_is_opened() -> None:
    provider = FakeProvider()
    for target in WITH_SECRETS:
        Face(provider).answer(target)
    assert provider.opens == 0


# --- refreshing on demand ---------------------------------------------------------------------


@pytest.mark.parametrize("changed", [True, False])
def test_a_refresh_says_what_came_of_it(changed: bool) -> None:
    provider = FakeProvider()
    provider.refreshed = Refreshed("r2", changed=changed)
    answer = Face(provider).read("/v1/refresh", method="POST")
    assert (answer.status, answer.json) == (200, {"revision": "r2", "changed": changed})


def test_a_refresh_too_soon_is_429_with_the_rest_of_the_wait() -> None:
    provider = FakeProvider()
    provider.failure = errors.RefreshTooSoon(41.2)
    answer = Face(provider).read("/v1/refresh", method="POST")
    assert (answer.status, answer.header(b"retry-after")) == (429, b"42")
    assert answer.json["reason"] == "rate_limited"


@pytest.mark.parametrize(
    ("failure", "reason"),
    [
        (errors.SourceUnreachable("no route"), "fetch_failed"),
        (errors.SignatureInvalid("made by another"), "signature_invalid"),
        (errors.Revoked("2027-01-15T08:00:00Z"), "revoked"),
    ],
)
def test_a_failed_refresh_is_503_with_its_reason(failure: errors.ClefError, reason: str) -> None:
    provider = FakeProvider()
    provider.failure = errors.AttemptFailed(failure, retry_after_s=2.0)
    answer = Face(provider).read("/v1/refresh", method="POST")
    assert (answer.status, answer.header(b"retry-after")) == (503, b"2")
    assert (answer.json["reason"], answer.json["detail"]) == (reason, str(failure))


# --- metrics and faults -----------------------------------------------------------------------


def test_metrics_are_prometheus_text_and_name_no_key() -> None:
    face = face_of()
    face.read("/v1/secrets/app__API_KEY")
    face.answer("/v1/health")
    answer = face.answer("/v1/metrics")
    assert answer.header(b"content-type") == b"text/plain; version=0.0.4; charset=utf-8"
    samples = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(answer.body.decode())
        for sample in family.samples
    }
    assert samples["clef_agent_requests_total", "/v1/secrets/{key}", "200"] == 1
    assert samples["clef_agent_requests_total", "/v1/health", "200"] == 1
    assert samples["clef_agent_ready",] == 1
    for secret in ("API_KEY", "app-key", "payments", "stripe"):
        assert secret.encode() not in answer.body


@pytest.mark.parametrize("target", [*WITH_SECRETS, "/v1/refresh"])
def test_a_fault_of_ours_is_500_in_json_without_its_text(
    target: str, caplog: pytest.LogCaptureFixture
) -> None:
    provider = FakeProvider()
    provider.failure = KeyError("app-key")
    method = "POST" if target == "/v1/refresh" else "GET"
    answer = Face(provider).answer(target, BEARER, method=method)
    assert (answer.status, answer.json) == (500, {"error": "Internal error"})
    assert answer.header(b"cache-control") == b"no-store"
    assert "KeyError at server_fakes.py:" in caplog.text
    assert "app-key" not in caplog.text
