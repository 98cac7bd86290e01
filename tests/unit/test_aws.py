"""Failures of AWS's library in words of ours."""

from __future__ import annotations

import pytest
from botocore import exceptions as aws

from clef_agent.aws import Aws, ClientKind, explain

SECRET = "the-secret"


@pytest.mark.parametrize(
    ("exc", "kind"),
    [
        (aws.NoCredentialsError(), "no_credentials"),
        (aws.PartialCredentialsError(provider=SECRET, cred_var="x"), "no_credentials"),
        (aws.CredentialRetrievalError(provider="p", error_msg=SECRET), "no_credentials"),
        (aws.TokenRetrievalError(provider="p", error_msg=SECRET), "no_credentials"),
        (aws.UnauthorizedSSOTokenError(), "no_credentials"),
        (aws.SSOTokenLoadError(error_msg=SECRET), "no_credentials"),
        (aws.EndpointConnectionError(endpoint_url=SECRET), "unreachable"),
        (aws.ConnectTimeoutError(endpoint_url=SECRET), "unreachable"),
        (aws.ReadTimeoutError(endpoint_url=SECRET), "unreachable"),
        (aws.ConnectionClosedError(endpoint_url=SECRET), "unreachable"),
        (aws.ProxyConnectionError(proxy_url=SECRET), "unreachable"),
        (aws.SSLError(endpoint_url=SECRET, error=OSError(SECRET)), "unreachable"),
        (aws.IncompleteReadError(actual_bytes=1, expected_bytes=2), "unreachable"),
        (FileNotFoundError(2, SECRET), "no_credentials"),
        (ValueError(SECRET), "no_credentials"),
        (aws.NoRegionError(), "misconfigured"),
        (aws.ProfileNotFound(profile=SECRET), "misconfigured"),
        (aws.ConfigParseError(path=SECRET), "misconfigured"),
    ],
)
def test_a_failure_is_named_without_its_text(exc: Exception, kind: str) -> None:
    failure = explain(exc)
    assert failure is not None
    assert failure.kind == kind
    assert str(failure)
    assert SECRET not in str(failure)


def test_of_what_a_service_answers_the_code_is_kept() -> None:
    response = {
        "Error": {"Code": "AccessDenied", "Message": SECRET},
        "ResponseMetadata": {"HTTPStatusCode": 403, "HTTPHeaders": {"Retry-After": "3"}},
    }
    failure = explain(aws.ClientError(response, "GetObject"))  # type: ignore[arg-type]  # a part
    assert failure is not None
    assert (failure.kind, failure.code, failure.status) == ("answered", "AccessDenied", 403)
    assert failure.headers["retry-after"] == "3"
    assert SECRET not in str(failure) + repr(failure)


@pytest.mark.parametrize("code", ["a b", "x" * 65, "<html>", ""])
def test_a_code_that_is_none_is_not_shown(code: str) -> None:
    response = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": 500}}
    failure = explain(aws.ClientError(response, "GetObject"))  # type: ignore[arg-type]  # a part
    assert str(failure) == "status 500"


def test_what_is_not_of_aws_is_not_explained() -> None:
    assert explain(RuntimeError("x")) is None


def test_a_client_that_signs_waits_for_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_PROFILE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("AWS_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/dev/null")
    subject = Aws({"AWS_REGION": "eu-west-1"})
    with pytest.raises(aws.NoCredentialsError):
        subject.client(ClientKind("kms"))
    assert subject.client(ClientKind("s3", unsigned=True)) is subject.client(
        ClientKind("s3", unsigned=True)
    )


@pytest.mark.parametrize("service", ["s3", "kms"])
def test_each_client_gives_up_early(service: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIA")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "s")
    subject = Aws({"AWS_REGION": "eu-west-1"})
    kind = ClientKind(service)  # type: ignore[arg-type]  # one of them
    settings = subject.client(kind).meta.config
    assert settings.connect_timeout == 2
    assert settings.read_timeout == {"s3": 5, "kms": 3}[service]
    assert settings.retries["total_max_attempts"] == 2
    assert settings.retries["mode"] == "standard"
