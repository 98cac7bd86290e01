from __future__ import annotations

import traceback
from collections.abc import Mapping
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from hypothesis import example, given
from hypothesis import strategies as st

from clef_agent import config
from clef_agent.config import (
    VARIABLES,
    Config,
    Credential,
    FileSourceConfig,
    HttpSourceConfig,
    S3Location,
    S3SourceConfig,
    VcsSourceConfig,
    is_loopback,
    reader,
)
from clef_agent.errors import ConfigInvalid
from fakes import (
    AGE_KEY,
    ECDSA_VERIFY_KEY,
    ED25519_VERIFY_KEY,
    OTHER_AGE_KEY,
    FakeFiles,
)

SOURCE = {"CLEF_AGENT_SOURCE": "/srv/artifact.json"}
HTTPS = {"CLEF_AGENT_SOURCE": "https://store.example/a.json"}
VCS = {
    "CLEF_AGENT_VCS_PROVIDER": "github",
    "CLEF_AGENT_VCS_REPO": "org/repo",
    "CLEF_AGENT_VCS_TOKEN": "vcs-token",
    "CLEF_AGENT_VCS_IDENTITY": "api",
    "CLEF_AGENT_VCS_ENVIRONMENT": "production",
}
KEY_FILE = "/run/keys/age.txt"
ACCESS_POINT = "arn:aws:s3:eu-west-1:111122223333:accesspoint/ap"


def load(env: Mapping[str, str], files: FakeFiles | None = None) -> Config:
    return config.load(env, files or FakeFiles({KEY_FILE: AGE_KEY.encode()}))


def problems(env: Mapping[str, str], files: FakeFiles | None = None) -> tuple[str, ...]:
    with pytest.raises(ConfigInvalid) as caught:
        load(env, files)
    return caught.value.problems


# --- defaults -----------------------------------------------------------------------------------


def test_defaults_are_those_of_the_table() -> None:
    loaded = load(SOURCE)
    assert loaded == Config(source=FileSourceConfig("/srv/artifact.json"))
    assert (loaded.port, loaded.cache_ttl_s, loaded.poll_interval_s) == (7779, 300, None)
    assert (loaded.log_format, loaded.log_level) == ("text", "info")
    assert loaded.token is None
    assert loaded.token_file is None
    assert loaded.agent_id is None
    assert loaded.rollback_protection is False
    assert loaded.just_in_time is False
    assert loaded.warnings == ()


def test_a_name_that_is_no_variable_is_a_warning_and_no_error() -> None:
    loaded = load({**SOURCE, "CLEF_AGENT_PROT": "1", "PATH": "/bin"})
    assert loaded.warnings == ("CLEF_AGENT_PROT is not a variable of clef-agent, and is ignored",)


@pytest.mark.parametrize(
    ("name", "value", "field", "expected"),
    [
        ("PORT", "1", "port", 1),
        ("PORT", "65535", "port", 65535),
        ("TOKEN", "t0ken", "token", "t0ken"),
        ("TOKEN", "schlüssel", "token", "schlüssel"),
        ("TOKEN_FILE", "/run/token", "token_file", "/run/token"),
        ("ID", "agent-7", "agent_id", "agent-7"),
        ("CACHE_TTL", "0", "cache_ttl_s", 0),
        ("CACHE_TTL", "30", "cache_ttl_s", 30),
        ("CACHE_TTL", "999999999", "cache_ttl_s", 999_999_999),
        ("POLL_INTERVAL", "5", "poll_interval_s", 5),
        ("POLL_INTERVAL", "299", "poll_interval_s", 299),
        ("CACHE_PATH", "/var/cache/clef", "cache_path", "/var/cache/clef"),
        ("EXPECT_IDENTITY", "api", "expect_identity", "api"),
        ("EXPECT_ENVIRONMENT", "prod", "expect_environment", "prod"),
        ("KMS_ENDPOINT", "https://kms.example/base/", "kms_endpoint", "https://kms.example/base"),
        ("KMS_ENDPOINT", "http://127.0.0.1:9/", "kms_endpoint", "http://127.0.0.1:9"),
        ("TELEMETRY_URL", "http://otel:4318", "telemetry_url", "http://otel:4318/v1/logs"),
        ("TELEMETRY_URL", "http://otel:4318/", "telemetry_url", "http://otel:4318/v1/logs"),
        ("TELEMETRY_URL", "https://otel/x", "telemetry_url", "https://otel/x"),
        ("TELEMETRY_URL", "https://u:p@otel/x", "telemetry_url", "https://u:p@otel/x"),
        ("SOCKET", "/run/clef.sock", "socket", "/run/clef.sock"),
        ("LOG_FORMAT", "json", "log_format", "json"),
        ("LOG_FORMAT", "TEXT", "log_format", "text"),
        ("LOG_LEVEL", "Debug", "log_level", "debug"),
        ("LOG_LEVEL", "warn", "log_level", "warn"),
        ("AGE_KEY", AGE_KEY, "age_key", AGE_KEY),
        ("AGE_KEY_FILE", KEY_FILE, "age_key_file", KEY_FILE),
    ],
)
def test_a_value_within_the_rule_is_taken(
    name: str, value: str, field: str, expected: object
) -> None:
    assert getattr(load({**SOURCE, f"CLEF_AGENT_{name}": value}), field) == expected


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("PORT", v) for v in ("0", "65536", "-1", "+1", "7_7", "77.0", "1e3", "x", " 80", "٨٠")],
        *[("CACHE_TTL", v) for v in ("1", "29", "-1", "3m", "9" * 10, "9" * 5000, "NaN")],
        *[("POLL_INTERVAL", v) for v in ("4", "0", "-5", "300", "301", "5.5", "²5")],
        *[("TOKEN", v) for v in (" t", "t ", "a\nb", "a\x00b", "\ud800")],
        *[("KMS_ENDPOINT", v) for v in ("kms.example", "ftp://k", "http://kms.example")],
        *[("KMS_ENDPOINT", v) for v in ("https://u:p@k", "https://k?x=1", "https://k/#f")],
        *[("TELEMETRY_URL", v) for v in ("otel:4318", "grpc://otel", "https://", "http://h:0")],
        *[("TELEMETRY_URL", v) for v in ("http://h:99999", "http://[::1", "http://a b/")],
        ("TELEMETRY_URL", "http://user:pass@otel.example"),
        ("LOG_FORMAT", "xml"),
        ("LOG_LEVEL", "loud"),
        ("ROLLBACK_PROTECTION", "yes"),
        ("VERIFY_KEY", "bm8ga2V5"),
        ("VERIFY_KEY", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----"),
        ("AGE_KEY", "AGE-SECRET-KEY-1NOPE"),
        ("AGE_KEY", "# only a comment"),
        ("AGE_KEY_FILE", "/nowhere"),
    ],
)
def test_a_value_beyond_the_rule_is_one_problem_that_names_the_variable(
    name: str, value: str
) -> None:
    (problem,) = problems({**SOURCE, f"CLEF_AGENT_{name}": value})
    assert problem.startswith(f"CLEF_AGENT_{name} ")


@pytest.mark.parametrize("value", ["", " ", "\t\n"])
@pytest.mark.parametrize("name", VARIABLES)
def test_a_set_but_empty_variable_is_an_error_that_names_it(name: str, value: str) -> None:
    # case 25
    base = VCS if "_VCS_" in name else HTTPS
    found = problems({**base, name: value})
    assert f"{name} is set but empty" in found
    assert len([p for p in found if p.startswith(f"{name} is set but empty")]) == 1


@pytest.mark.parametrize("name", ["CLEF_AGENT_SOURCE_TOKEN", "CLEF_AGENT_SOURCE_TOKEN_FILE"])
def test_an_empty_source_token_is_an_error_without_a_plain_source_too(name: str) -> None:
    assert f"{name} is set but empty" in problems({**VCS, name: ""})
    assert f"{name} is set but empty" in problems({name: ""})


def test_all_problems_are_reported_at_once() -> None:
    found = problems(
        {
            "CLEF_AGENT_SOURCE": "gopher://x/y",
            "CLEF_AGENT_PORT": "x",
            "CLEF_AGENT_CACHE_TTL": "3",
            "CLEF_AGENT_POLL_INTERVAL": "1",
            "CLEF_AGENT_TOKEN": "",
            "CLEF_AGENT_ID": "",
            "CLEF_AGENT_LOG_LEVEL": "x",
            "CLEF_AGENT_LOG_FORMAT": "x",
            "CLEF_AGENT_VERIFY_KEY": "x",
            "CLEF_AGENT_AGE_KEY": "x",
            "CLEF_AGENT_AGE_KEY_FILE": "/nowhere",
            "CLEF_AGENT_KMS_ENDPOINT": "x",
            "CLEF_AGENT_TELEMETRY_URL": "x",
            "CLEF_AGENT_ROLLBACK_PROTECTION": "x",
        }
    )
    named = {problem.split()[0].removeprefix("CLEF_AGENT_") for problem in found}
    assert named == {
        "SOURCE",
        "PORT",
        "CACHE_TTL",
        "POLL_INTERVAL",
        "TOKEN",
        "ID",
        "LOG_LEVEL",
        "LOG_FORMAT",
        "VERIFY_KEY",
        "AGE_KEY",
        "AGE_KEY_FILE",
        "KMS_ENDPOINT",
        "TELEMETRY_URL",
        "ROLLBACK_PROTECTION",
    }


def test_problems_of_both_sources_are_reported_when_both_are_set() -> None:
    found = problems(
        {"CLEF_AGENT_SOURCE": "gopher://x", "CLEF_AGENT_VCS_PROVIDER": "svn"},
    )
    text = "; ".join(found)
    assert "CLEF_AGENT_SOURCE must be" in text
    assert "CLEF_AGENT_VCS_PROVIDER must be one of" in text
    assert "CLEF_AGENT_SOURCE and CLEF_AGENT_VCS_PROVIDER are both set" in text


# --- sources ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/srv/a.json", FileSourceConfig("/srv/a.json")),
        ("a.json", FileSourceConfig("a.json")),
        ("C:\\a.json", FileSourceConfig("C:\\a.json")),
        ("file:///srv/a%20b.json", FileSourceConfig("/srv/a b.json")),
        ("file://localhost/a", FileSourceConfig("/a")),
        ("file:/a", FileSourceConfig("/a")),
        ("file:///%ff", FileSourceConfig("/\udcff")),
        ("https://h/a?X-Amz-Signature=s", HttpSourceConfig("https://h/a?X-Amz-Signature=s")),
        ("https://u:p@h/a", HttpSourceConfig("https://u:p@h/a")),
        ("http://u:p@127.0.0.1:1/a", HttpSourceConfig("http://u:p@127.0.0.1:1/a")),
        ("HTTPS://h/a", HttpSourceConfig("HTTPS://h/a")),
        ("s3://bucket/key", S3SourceConfig("s3://bucket/key", S3Location("bucket", "key"))),
        ("s3://bucket/a/b c", S3SourceConfig("s3://bucket/a/b c", S3Location("bucket", "a/b c"))),
        (
            f"s3://{ACCESS_POINT}/key",
            S3SourceConfig(
                f"s3://{ACCESS_POINT}/key", S3Location(ACCESS_POINT, "key", region="eu-west-1")
            ),
        ),
    ],
)
def test_a_source_is_known_by_its_form(text: str, expected: object) -> None:
    assert load({"CLEF_AGENT_SOURCE": text}).source == expected


@pytest.mark.parametrize(
    "text",
    [
        "gopher://h/x",
        "https:/h/a",
        "https://",
        "https:///a",
        "http://h:port/",
        "http://[::1/a",
        "https://h/a b",
        "https://h/\u2028",
        "file://host/a",
        "file:relative",
        "file://",
        "file:///a?b",
        "file:///a#b",
        "file:///a%00b",
        "file://[x/a",
        "s3://bucket",
        "s3://bucket/",
        "s3:///key",
        "s3:bucket/key",
    ],
)
def test_a_source_of_no_known_form_is_a_problem(text: str) -> None:
    (problem,) = problems({"CLEF_AGENT_SOURCE": text})
    assert problem.startswith("CLEF_AGENT_SOURCE ")


def test_neither_source_is_an_error_that_says_so() -> None:
    (problem,) = problems({})
    assert problem.startswith("CLEF_AGENT_SOURCE is not set, nor are CLEF_AGENT_VCS_*")


def test_both_sources_are_an_error_that_says_so() -> None:
    (problem,) = problems({**SOURCE, **VCS})
    assert "are both set" in problem
    assert all(name in problem for name in (*SOURCE, *VCS))


def test_a_source_token_goes_to_an_http_source() -> None:
    loaded = load({**HTTPS, "CLEF_AGENT_SOURCE_TOKEN": " bearer\n"})
    assert loaded.source == HttpSourceConfig(HTTPS["CLEF_AGENT_SOURCE"], Credential("bearer"))
    loaded = load({**HTTPS, "CLEF_AGENT_SOURCE_TOKEN_FILE": "/run/t"})
    assert loaded.source == HttpSourceConfig(HTTPS["CLEF_AGENT_SOURCE"], Credential(path="/run/t"))


@pytest.mark.parametrize("source", [SOURCE, VCS, {"CLEF_AGENT_SOURCE": "s3://b/k"}])
def test_a_source_token_without_an_http_source_is_a_problem(source: dict[str, str]) -> None:
    (problem,) = problems({**source, "CLEF_AGENT_SOURCE_TOKEN": "t"})
    assert problem.startswith("CLEF_AGENT_SOURCE_TOKEN goes with")


@pytest.mark.parametrize("token", ["a\nb", "a\tb", "tökén", "a\x7fb"])
@pytest.mark.parametrize(
    ("source", "name"), [(HTTPS, "CLEF_AGENT_SOURCE_TOKEN"), (VCS, "CLEF_AGENT_VCS_TOKEN")]
)
def test_a_token_that_no_header_can_carry_is_a_problem(
    source: dict[str, str], name: str, token: str
) -> None:
    (problem,) = problems({**source, name: token})
    assert problem.startswith(f"{name} has characters")


@pytest.mark.parametrize(
    ("source", "name"), [(HTTPS, "CLEF_AGENT_SOURCE_TOKEN"), (VCS, "CLEF_AGENT_VCS_TOKEN")]
)
def test_a_token_and_its_file_together_are_a_problem(source: dict[str, str], name: str) -> None:
    (problem,) = problems({**source, name: "t", f"{name}_FILE": "/t"})
    assert problem == f"{name} and {name}_FILE are both set; keep one"


def test_userinfo_and_a_token_together_are_a_problem() -> None:
    (problem,) = problems({"CLEF_AGENT_SOURCE": "https://u:p@h/a", "CLEF_AGENT_SOURCE_TOKEN": "t"})
    assert "userinfo" in problem


@pytest.mark.parametrize(
    ("env", "name"),
    [
        ({"CLEF_AGENT_SOURCE": "http://u:p@h/a"}, "SOURCE"),
        ({"CLEF_AGENT_SOURCE": "http://u@h/a"}, "SOURCE"),
        ({"CLEF_AGENT_SOURCE": "http://h/a", "CLEF_AGENT_SOURCE_TOKEN": "t"}, "SOURCE"),
        ({"CLEF_AGENT_SOURCE": "http://h/a", "CLEF_AGENT_SOURCE_TOKEN_FILE": "/t"}, "SOURCE"),
        ({"CLEF_AGENT_SOURCE": "http://127.0.0.1.evil.example/a@localhost",
          "CLEF_AGENT_SOURCE_TOKEN": "t"}, "SOURCE"),
        ({**VCS, "CLEF_AGENT_VCS_API_URL": "http://git.example"}, "VCS_API_URL"),
        ({**SOURCE, "CLEF_AGENT_KMS_ENDPOINT": "http://kms.example"}, "KMS_ENDPOINT"),
        ({**SOURCE, "CLEF_AGENT_TELEMETRY_URL": "http://u:p@otel"}, "TELEMETRY_URL"),
    ],
)  # fmt: skip
def test_credentials_over_http_beyond_loopback_are_a_problem(
    env: dict[str, str], name: str
) -> None:
    (problem,) = problems(env)
    assert problem.startswith(f"CLEF_AGENT_{name} must be https")


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "localhost", "LOCALHOST", "[::1]"])
def test_credentials_over_http_to_loopback_are_allowed(host: str) -> None:
    load({"CLEF_AGENT_SOURCE": f"http://{host}:8/a", "CLEF_AGENT_SOURCE_TOKEN": "t"})
    load({**VCS, "CLEF_AGENT_VCS_API_URL": f"http://{host}/api"})


@pytest.mark.parametrize(
    "host", ["0.0.0.0", "127.1", "localhost.evil.example", "::", "10.0.0.1", "", "2130706433"]
)
def test_what_is_not_this_machine_is_no_loopback(host: str) -> None:
    assert not is_loopback(host)


def test_plain_http_without_a_verify_key_is_a_loud_warning() -> None:
    env = {"CLEF_AGENT_SOURCE": "http://store.example/a"}
    (warning,) = load(env).warnings
    assert "PLAIN HTTP" in warning
    assert load({**env, "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY}).warnings == ()
    assert load({"CLEF_AGENT_SOURCE": "http://127.0.0.1/a"}).warnings == ()
    assert load(HTTPS).warnings == ()


@pytest.mark.parametrize("name", ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL"])
def test_an_s3_store_behind_plain_http_is_warned_of_as_any_other(name: str) -> None:
    source = {"CLEF_AGENT_SOURCE": "s3://bucket/key"}
    (warning,) = load({**source, name: "http://minio.example:9000"}).warnings
    assert "PLAIN HTTP" in warning
    for endpoint in ("https://minio.example", "http://127.0.0.1:9000", "http://[", "x"):
        assert load({**source, name: endpoint}).warnings == ()
    signed = {**source, name: "http://minio.example", "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY}
    assert load(signed).warnings == ()


# --- version control ----------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["github", "gitlab", "bitbucket"])
def test_all_five_vcs_variables_make_a_source(provider: str) -> None:
    loaded = load({**VCS, "CLEF_AGENT_VCS_PROVIDER": provider})
    source = loaded.source
    assert isinstance(source, VcsSourceConfig)
    assert source.provider == provider
    assert (source.repo, source.identity, source.environment) == ("org/repo", "api", "production")
    assert source.token == Credential("vcs-token")
    assert source.ref is None
    assert source.api_url is None


def test_a_data_center_has_no_address_that_could_be_guessed() -> None:
    server = {**VCS, "CLEF_AGENT_VCS_PROVIDER": "bitbucket-server"}
    (problem,) = problems(server)
    assert "CLEF_AGENT_VCS_API_URL must be set" in problem
    load({**server, "CLEF_AGENT_VCS_API_URL": "https://git.example/bitbucket"})


@pytest.mark.parametrize(
    ("provider", "repo"),
    [
        ("github", "org/repo.name"),
        ("gitlab", "group/sub/sub/repo"),
        ("gitlab", "4711"),
        ("bitbucket", "workspace/repo"),
        ("bitbucket-server", "PRJ/repo"),
        ("bitbucket-server", "~user/repo"),
    ],
)
def test_a_repository_is_named_as_its_service_does(provider: str, repo: str) -> None:
    env = {
        **VCS,
        "CLEF_AGENT_VCS_PROVIDER": provider,
        "CLEF_AGENT_VCS_REPO": repo,
        "CLEF_AGENT_VCS_API_URL": "https://git.example",
    }
    source = load(env).source
    assert isinstance(source, VcsSourceConfig)
    assert source.repo == repo


@pytest.mark.parametrize(
    ("provider", "repo"),
    [
        ("github", "repo"),
        ("github", "org/sub/repo"),
        ("github", "https://github.com/org/repo"),
        ("github", "org/.."),
        ("gitlab", "repo"),
        ("gitlab", "group//repo"),
        ("gitlab", "../group/repo"),
        ("bitbucket", "workspace"),
        ("bitbucket-server", "a/b/c"),
        ("bitbucket", "work space/repo"),
    ],
)
def test_a_repository_that_its_service_cannot_have_is_refused(provider: str, repo: str) -> None:
    env = {**VCS, "CLEF_AGENT_VCS_PROVIDER": provider, "CLEF_AGENT_VCS_REPO": repo}
    found = problems({**env, "CLEF_AGENT_VCS_API_URL": "https://git.example"})
    assert all("CLEF_AGENT_VCS_REPO" in problem for problem in found)


@pytest.mark.parametrize("name", ["IDENTITY", "ENVIRONMENT", "REF"])
@pytest.mark.parametrize("text", ["..", "a/../b", "/a", "a/", "a//b", "a\nb"])
def test_no_part_of_the_path_leads_elsewhere(name: str, text: str) -> None:
    (problem,) = problems({**VCS, f"CLEF_AGENT_VCS_{name}": text})
    assert f"CLEF_AGENT_VCS_{name}" in problem


@pytest.mark.parametrize("name", VCS)
def test_a_missing_vcs_variable_is_named(name: str) -> None:
    (problem,) = problems({k: v for k, v in VCS.items() if k != name})
    assert name in problem


def test_any_vcs_variable_alone_asks_for_the_others() -> None:
    (problem,) = problems({"CLEF_AGENT_VCS_REF": "main"})
    assert all(name in problem for name in VCS)


def test_a_vcs_token_file_stands_for_the_token() -> None:
    env = {k: v for k, v in VCS.items() if k != "CLEF_AGENT_VCS_TOKEN"}
    source = load({**env, "CLEF_AGENT_VCS_TOKEN_FILE": "/run/vcs"}).source
    assert isinstance(source, VcsSourceConfig)
    assert source.token == Credential(path="/run/vcs")


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("https://ghe.example/api/v3", "https://ghe.example/api/v3"),
        ("https://host/gitlab/", "https://host/gitlab"),
    ],
)
def test_the_path_of_a_vcs_base_url_is_kept(url: str, kept: str) -> None:
    # case 20
    source = load({**VCS, "CLEF_AGENT_VCS_API_URL": url, "CLEF_AGENT_VCS_REF": "v1"}).source
    assert isinstance(source, VcsSourceConfig)
    assert (source.api_url, source.ref) == (kept, "v1")


def test_identity_and_environment_are_expected_as_the_vcs_variables_have_them() -> None:
    loaded = load(VCS)
    assert (loaded.expect_identity, loaded.expect_environment) == ("api", "production")
    loaded = load({**VCS, "CLEF_AGENT_EXPECT_IDENTITY": "other"})
    assert (loaded.expect_identity, loaded.expect_environment) == ("other", "production")


# --- times, keys, rollback ----------------------------------------------------------------------


def test_just_in_time_mode_takes_any_poll_interval() -> None:
    loaded = load({**SOURCE, "CLEF_AGENT_CACHE_TTL": "0", "CLEF_AGENT_POLL_INTERVAL": "900"})
    assert loaded.just_in_time
    assert loaded.poll_interval_s == 900


def test_a_poll_interval_is_below_the_ttl() -> None:
    env = {**SOURCE, "CLEF_AGENT_CACHE_TTL": "60"}
    assert load({**env, "CLEF_AGENT_POLL_INTERVAL": "59"}).poll_interval_s == 59
    (problem,) = problems({**env, "CLEF_AGENT_POLL_INTERVAL": "60"})
    assert problem == "CLEF_AGENT_POLL_INTERVAL must be below CLEF_AGENT_CACHE_TTL"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (PermissionError(13, "Permission denied"), "Permission denied"),
        (IsADirectoryError(21, "Is a directory"), "Is a directory"),
        (OSError("odd"), "not text"),
        (b"\xff\xfe", "not text"),
        (b"# a comment\n\n", "there is no age identity"),
        (b"AGE-SECRET-KEY-1BROKEN\n", "line 1"),
        (AGE_KEY.encode() + b"\nrubbish\n", "line 2"),
    ],
)
def test_an_age_key_file_without_a_usable_key_is_an_error_at_start(
    content: bytes | OSError, why: str
) -> None:
    # case 26
    (problem,) = problems(
        {**SOURCE, "CLEF_AGENT_AGE_KEY_FILE": KEY_FILE}, FakeFiles({KEY_FILE: content})
    )
    assert problem.startswith("CLEF_AGENT_AGE_KEY_FILE ")
    assert why in problem


def test_several_age_keys_with_comments_are_taken() -> None:
    text = f"# created: today\n{AGE_KEY}\n\n  {OTHER_AGE_KEY}  \r\n"
    load({**SOURCE, "CLEF_AGENT_AGE_KEY": text})
    env = {**SOURCE, "CLEF_AGENT_AGE_KEY": AGE_KEY, "CLEF_AGENT_AGE_KEY_FILE": KEY_FILE}
    loaded = load(env, FakeFiles({KEY_FILE: text.encode()}))
    assert (loaded.age_key, loaded.age_key_file) == (AGE_KEY, KEY_FILE)


def test_verify_keys_of_both_types_are_taken() -> None:
    loaded = load({**SOURCE, "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY})
    assert isinstance(loaded.verify_key, ed25519.Ed25519PublicKey)
    loaded = load({**SOURCE, "CLEF_AGENT_VERIFY_KEY": ECDSA_VERIFY_KEY})
    assert isinstance(loaded.verify_key, ec.EllipticCurvePublicKey)


@pytest.mark.parametrize("word", ["on", "true", "1", "ON", "True"])
def test_rollback_protection_is_switched_on(word: str) -> None:
    env = {
        **SOURCE,
        "CLEF_AGENT_ROLLBACK_PROTECTION": word,
        "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY,
    }
    loaded = load(env)
    assert loaded.rollback_protection
    assert len(loaded.warnings) == 1
    assert "CLEF_AGENT_CACHE_PATH" in loaded.warnings[0]
    assert load({**env, "CLEF_AGENT_CACHE_PATH": "/c"}).warnings == ()


@pytest.mark.parametrize("word", ["off", "false", "0", "OFF"])
def test_rollback_protection_is_switched_off(word: str) -> None:
    loaded = load({**SOURCE, "CLEF_AGENT_ROLLBACK_PROTECTION": word})
    assert not loaded.rollback_protection
    assert loaded.warnings == ()


def test_rollback_protection_needs_a_verify_key() -> None:
    (problem,) = problems({**SOURCE, "CLEF_AGENT_ROLLBACK_PROTECTION": "on"})
    assert problem == "CLEF_AGENT_ROLLBACK_PROTECTION needs CLEF_AGENT_VERIFY_KEY"


# --- secrets ------------------------------------------------------------------------------------

SECRET = "sEcReT-4711"


def formatted(value: object) -> str:
    parts = [value, *(getattr(value, name) for name in getattr(value, "__slots__", ()))]
    return "\n".join(f"{p!r} {p!s} {p}" for p in parts if not isinstance(p, str))


@pytest.mark.parametrize(
    "shape",
    [
        SECRET,
        f"https://user:{SECRET}@h/{SECRET}?sig={SECRET}",
        f"http://user:{SECRET}@h/{SECRET}",
        f"https://h/{SECRET}",
        f"https://h:{SECRET}/",
        f"s3://{SECRET}",
        f"s3://b/{SECRET}",
        f"file:///{SECRET}",
        f"file://{SECRET}/",
        f"{SECRET}://x",
        f"AGE-SECRET-KEY-1{SECRET}",
        f"AGE-SECRET-KEY-PQ-1{SECRET}",
        f"-----BEGIN PUBLIC KEY-----\n{SECRET}\n-----END PUBLIC KEY-----",
        f"{SECRET}\n",
        f"\ud800{SECRET}",
    ],
)
@pytest.mark.parametrize("name", VARIABLES)
def test_no_message_and_no_repr_holds_what_stands_in_a_variable(name: str, shape: str) -> None:
    # case 5
    base = VCS if "_VCS_" in name else HTTPS if "SOURCE_TOKEN" in name else SOURCE

    def read_file(path: str) -> bytes:
        if SECRET in path:
            raise FileNotFoundError(2, "No such file or directory", path)
        return AGE_KEY.encode()

    try:
        loaded = config.load({**base, name: shape}, read_file)
    except ConfigInvalid as exc:
        text = "".join(traceback.format_exception(exc)) + repr(exc) + repr(exc.problems)
    else:
        text = formatted(loaded) + formatted(loaded.source) + repr(loaded.warnings)
        if isinstance(loaded.source, (HttpSourceConfig, VcsSourceConfig)):
            text += formatted(loaded.source.token)
    assert SECRET.lower() not in text.lower()


def test_no_message_holds_a_broken_key_files_content() -> None:
    found = problems(
        {**SOURCE, "CLEF_AGENT_AGE_KEY_FILE": KEY_FILE},
        FakeFiles({KEY_FILE: f"AGE-SECRET-KEY-1{SECRET}".encode()}),
    )
    assert SECRET not in repr(found)


# --- any mapping --------------------------------------------------------------------------------

_texts = st.one_of(
    st.text(max_size=40),
    st.sampled_from([AGE_KEY, ED25519_VERIFY_KEY, "github", "on", "json", "/p", "60", "0"]),
    st.builds(
        lambda scheme, rest: f"{scheme}://{rest}",
        st.sampled_from(["http", "https", "s3", "file", "", "x"]),
        st.text(alphabet="ab.:/@[]?#%\\é0\x00 ", max_size=20),
    ),
)


@given(st.dictionaries(st.sampled_from(VARIABLES), _texts, max_size=8), st.binary(max_size=30))
@example({"CLEF_AGENT_SOURCE": "file://[/"}, b"")
@example({"CLEF_AGENT_SOURCE": "http://[v1.]/"}, b"")
@example({"CLEF_AGENT_SOURCE": "http://a℀b/"}, b"")
def test_any_environment_makes_a_configuration_or_one_error(
    env: dict[str, str], content: bytes
) -> None:
    found: tuple[str, ...] = ("none",)
    port = 1
    try:
        port = config.load(env, lambda _: content).port
    except ConfigInvalid as exc:
        found = exc.problems
    assert found
    assert 1 <= port <= 65535


def test_every_variable_of_the_source_stands_in_the_list() -> None:
    text = Path(reader.__file__).read_text("utf-8")
    for name in VARIABLES:
        short = name.removeprefix("CLEF_AGENT_").removesuffix("_FILE")
        assert f'"{short}"' in text or f'"{short}_FILE"' in text, name
    assert len(set(VARIABLES)) == len(VARIABLES)
