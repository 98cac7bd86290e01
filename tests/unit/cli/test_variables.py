"""Which variables secrets become, and which names are refused."""

from __future__ import annotations

import os
import subprocess

import pytest

from clef_agent.cli.failure import Failure
from clef_agent.cli.variables import Naming, steers, variables_of

PAYLOAD = {"app": {"URL": "u", "KEY": "k"}, "pay": {"STRIPE": "s"}}


@pytest.mark.parametrize(
    ("naming", "values"),
    [
        (Naming(), {"app__URL": "u", "app__KEY": "k", "pay__STRIPE": "s"}),
        (Naming(strips_namespace=True), {"URL": "u", "KEY": "k", "STRIPE": "s"}),
        (Naming(prefix="X_"), {"X_app__URL": "u", "X_app__KEY": "k", "X_pay__STRIPE": "s"}),
        (Naming(("app__URL",)), {"app__URL": "u"}),
        (Naming(("URL", "STRIPE")), {"app__URL": "u", "pay__STRIPE": "s"}),
        (Naming(("app/URL", "pay__STRIPE")), {"app__URL": "u", "pay__STRIPE": "s"}),
        (Naming(("URL",), "X_", strips_namespace=True), {"X_URL": "u"}),
        (Naming(("app__URL",), strips_namespace=True), {"URL": "u"}),
    ],
)
def test_secrets_are_named_as_asked(naming: Naming, values: dict[str, str]) -> None:
    assert variables_of(PAYLOAD, naming).values == values


def test_a_flat_payload_keeps_its_keys() -> None:
    assert variables_of({"URL": "u", "a/b": "x"}, Naming(("URL",))).values == {"URL": "u"}


def test_two_secrets_of_one_name_are_an_error_that_names_both() -> None:
    payload = {"a": {"KEY": "1"}, "b": {"KEY": "the-value"}}
    with pytest.raises(Failure, match="a/KEY and b/KEY") as caught:
        variables_of(payload, Naming(strips_namespace=True))
    assert "the-value" not in str(caught.value) + caught.value.hint
    with pytest.raises(Failure, match="a__b/c and a/b__c"):
        variables_of({"a__b": {"c": "1"}, "a": {"b__c": "2"}}, Naming())


@pytest.mark.parametrize("key", ["1A", "A-B", "A B", "A/B", "", "Ä", "A=B", "A\nB", "A\x1b[2J"])
def test_a_name_that_no_variable_has_is_an_error_or_left_out(key: str) -> None:
    payload = {key: "the-value", "GOOD": "g"}
    with pytest.raises(Failure, match="cannot be a variable") as caught:
        variables_of(payload, Naming())
    assert "the-value" not in str(caught.value)
    assert str(caught.value).isprintable()
    found = variables_of(payload, Naming(skips_invalid=True))
    assert found.values == {"GOOD": "g"}
    assert len(found.skipped) == 1


def test_a_slash_in_a_key_makes_no_other_name_of_it() -> None:
    with pytest.raises(Failure, match="a/b cannot be a variable"):
        variables_of({"a/b": "x"}, Naming())
    with pytest.raises(Failure, match="x/y/KEY cannot be a variable"):
        variables_of({"x/y": {"KEY": "x"}}, Naming())
    assert variables_of({"x/y": {"KEY": "v"}}, Naming(strips_namespace=True)).values == {"KEY": "v"}


def test_a_value_that_no_program_can_be_given_is_told_by_its_name() -> None:
    at_most = 32 * os.sysconf("SC_PAGE_SIZE")
    fits = "x" * (at_most - len("KEY=\0"))
    assert variables_of({"KEY": fits}, Naming()).values == {"KEY": fits}
    for value in (fits + "x", "é" * (at_most // 2)):
        with pytest.raises(Failure, match=r"KEY cannot be a variable: .* longer") as caught:
            variables_of({"KEY": value}, Naming())
        assert len(str(caught.value)) < 200
    env = {"KEY": fits}
    assert subprocess.run(["env"], env=env, capture_output=True, check=True).returncode == 0


def test_a_value_with_a_nul_is_an_error_or_left_out() -> None:
    payload = {"A": "the\0value"}
    with pytest.raises(Failure, match="NUL"):
        variables_of(payload, Naming())
    assert variables_of(payload, Naming(skips_invalid=True)).values == {}


@pytest.mark.parametrize(
    "name",
    [
        "LD_PRELOAD",
        "LD_LIBRARY_PATH",
        "DYLD_INSERT_LIBRARIES",
        "PATH",
        "IFS",
        "ENV",
        "BASH_ENV",
        "BASH_FUNC_x",
        "PYTHONPATH",
        "PYTHONSTARTUP",
        "NODE_OPTIONS",
        "PERL5OPT",
        "PERL5LIB",
        "RUBYOPT",
        "RUBYLIB",
        "JAVA_TOOL_OPTIONS",
        "_JAVA_OPTIONS",
        "GCONV_PATH",
        "GLIBC_TUNABLES",
        "GIT_SSH_COMMAND",
        "GIT_CONFIG_COUNT",
        "HOME",
        "SSL_CERT_FILE",
        "KUBECONFIG",
        "npm_config_script_shell",
        "CLEF_ENDPOINT",
        "CLEF_AGENT_SOURCE",
    ],
)
def test_what_steers_a_program_is_refused_unless_it_is_named(name: str) -> None:
    assert steers(name)
    with pytest.raises(Failure, match=f"--only {name}"):
        variables_of({name: "x"}, Naming())
    with pytest.raises(Failure):
        variables_of({"ns": {name: "x"}}, Naming(strips_namespace=True))
    assert variables_of({name: "x"}, Naming(skips_invalid=True)).values == {}
    assert variables_of({name: "x"}, Naming((name,))).values == {name: "x"}


@pytest.mark.parametrize(
    "name",
    [
        *("DATABASE_URL", "HTTP_PROXY", "https_proxy", "MY_PATH", "app__PATH", "path"),
        *("GIT_TOKEN", "DOTNET_ENVIRONMENT", "CLEF_TELEMETRY_TOKEN", "NODE_ENV"),
    ],
)
def test_what_does_not_steer_passes(name: str) -> None:
    assert not steers(name)


def test_a_prefix_can_make_a_name_steer() -> None:
    with pytest.raises(Failure, match="LD_PRELOAD"):
        variables_of({"PRELOAD": "x"}, Naming(prefix="LD_"))


def test_a_secret_that_is_wanted_and_missing_is_an_error() -> None:
    with pytest.raises(Failure, match="no secret NONE"):
        variables_of(PAYLOAD, Naming(("NONE",)))
