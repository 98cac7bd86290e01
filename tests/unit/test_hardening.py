from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest

from clef_agent.config import VARIABLES
from clef_agent.hardening import (
    SECRET_VARIABLES,
    forget_secret_variables,
    raise_descriptor_limit,
)

_HARDENED = """
import os, resource, ctypes
from clef_agent.hardening import harden_process
harden_process()
harden_process()
print(oct(os.umask(0)), resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="prctl is Linux's")
def test_a_hardened_process_leaves_no_core_and_no_readable_file() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _HARDENED], capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stdout.strip() == "0o77 (0, 0) 0"


def test_the_soft_descriptor_limit_is_raised_to_the_hard_one() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(256, hard), hard))
        in_force = raise_descriptor_limit()
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == (hard, hard)
        assert in_force == (hard if hard != resource.RLIM_INFINITY else sys.maxsize)
        assert raise_descriptor_limit() == in_force
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_limit_that_cannot_be_raised_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(which: int, limits: tuple[int, int]) -> None:
        raise ValueError("current limit exceeds maximum limit")

    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, resource.RLIM_INFINITY))
    monkeypatch.setattr(resource, "setrlimit", refuse)
    assert raise_descriptor_limit() == 256


def test_an_unlimited_limit_is_a_number(monkeypatch: pytest.MonkeyPatch) -> None:
    unlimited = resource.RLIM_INFINITY
    monkeypatch.setattr(resource, "getrlimit", lambda _: (unlimited, unlimited))
    assert raise_descriptor_limit() == sys.maxsize


def test_variables_that_may_hold_a_secret_leave_the_environment() -> None:
    environ = dict.fromkeys(VARIABLES, "x") | {"PATH": "/bin", "CLEF_AGENT_OTHER": "y"}
    forget_secret_variables(environ)
    forget_secret_variables(environ)
    assert not set(SECRET_VARIABLES) & set(environ)
    assert set(SECRET_VARIABLES) <= set(VARIABLES)
    assert environ["PATH"] == "/bin"
    assert environ["CLEF_AGENT_TOKEN_FILE"] == "x"
    assert "CLEF_AGENT_TOKEN" not in os.environ or environ is not os.environ
