"""Where telemetry goes, and what the environment says about the way there."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias, TypeVar

from clef_agent.config import is_loopback
from clef_agent.telemetry.headers import malformed_words, parse_headers
from clef_agent.web.address import Address, parse_url

Encoding: TypeAlias = Literal["http/protobuf", "http/json"]
Compression: TypeAlias = Literal["none", "gzip", "deflate"]

_ENCODINGS: Final[Mapping[str, Encoding]] = {
    "http/protobuf": "http/protobuf",
    "http/json": "http/json",
}
_COMPRESSIONS: Final[Mapping[str, Compression]] = {
    "none": "none",
    "gzip": "gzip",
    "deflate": "deflate",
}
#: Source: https://opentelemetry-python.readthedocs.io/en/latest/exporter/otlp/otlp.html
_TIMEOUT_S: Final = 10.0
#: The SDK for Python counts in seconds, others in milliseconds: theirs must not become hours.
_LONGEST_TIMEOUT_S: Final = 60.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Collector:
    """One OTLP/HTTP endpoint for logs. ``str()`` of it is safe to log: no userinfo, no query.

    ``basic`` is the ``Authorization`` of the URL's userinfo; ``headers`` are the environment's,
    by lower-case name. ``certificate_file`` is None where the SDK finds its own.
    """

    address: Address
    basic: str | None = field(default=None, repr=False)
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    encoding: Encoding = "http/protobuf"
    compression: Compression = "none"
    timeout_s: float = _TIMEOUT_S
    certificate_file: str | None = None

    @property
    def url(self) -> str:
        """Where records are posted to. Its query may be a credential."""
        return self.address.origin + self.address.target

    @property
    def is_local(self) -> bool:
        """Whether it is this machine, asked in the clear. A proxy would read what goes there."""
        return self.address.scheme == "http" and is_loopback(self.address.host)

    @property
    def is_private(self) -> bool:
        """Whether nobody on the way can read what is sent there."""
        return self.address.scheme == "https" or self.is_local

    def __str__(self) -> str:
        return str(self.address)


def is_disabled(env: Mapping[str, str]) -> bool:
    """Whether the environment turns OpenTelemetry off altogether.

    Source: https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
    """
    return env.get("OTEL_SDK_DISABLED", "").strip().lower() == "true"


def read_collector(url: str, env: Mapping[str, str]) -> tuple[Collector, list[str]]:
    """The collector at ``url``, with what OTEL_* and SSL_CERT_* say of it; and warnings.

    A variable that cannot be used is as if it were not there, and a warning, which holds nothing
    of its value.
    """
    address, userinfo = parse_url(url)
    reader = _Reader(env)
    collector = Collector(
        address=address,
        basic=None if userinfo is None else userinfo.basic(),
        headers=reader.headers(),
        encoding=reader.read("PROTOCOL", _ENCODINGS.__getitem__, "http/protobuf"),
        compression=reader.read("COMPRESSION", _COMPRESSIONS.__getitem__, "none"),
        timeout_s=reader.read("TIMEOUT", _timeout_s, _TIMEOUT_S),
        certificate_file=reader.certificate_file(),
    )
    return collector, reader.warnings


class _Reader:
    """Reads OTEL_EXPORTER_OTLP_*, the variables for logs before those for everything.

    Source: https://opentelemetry.io/docs/specs/otel/protocol/exporter/
    """

    def __init__(self, env: Mapping[str, str]) -> None:
        self._env = env
        self.warnings: list[str] = []

    def read(self, name: str, parse: Callable[[str], T], default: T) -> T:
        """What ``parse`` makes of a variable, or ``default`` where it raises an error."""
        variable = self._variable(name)
        if variable is None:
            return default
        try:
            return parse(self._env[variable].strip().lower())
        except (ValueError, KeyError):
            self.warnings.append(f"{variable} cannot be used; telemetry takes {default}")
            return default

    def headers(self) -> dict[str, str]:
        """The headers of the environment."""
        variable = self._variable("HEADERS")
        if variable is None:
            return {}
        headers, malformed = parse_headers(self._env[variable])
        if malformed:
            self.warnings.append(malformed_words(variable, malformed))
        return headers

    def certificate_file(self) -> str | None:
        """The authorities that all of the agent's calls trust, unless the SDK has some alone."""
        if self._variable("CERTIFICATE") is not None:
            return None
        return self._env.get("SSL_CERT_FILE") or self._env.get("SSL_CERT_DIR") or None

    def _variable(self, name: str) -> str | None:
        candidates = (f"OTEL_EXPORTER_OTLP_LOGS_{name}", f"OTEL_EXPORTER_OTLP_{name}")
        # Empty is as good as unset: so the specification has it.
        return next((name for name in candidates if self._env.get(name, "").strip()), None)


def _timeout_s(text: str) -> float:
    seconds = float(text)
    if not (math.isfinite(seconds) and seconds > 0):
        raise ValueError("no time to wait")
    return min(seconds, _LONGEST_TIMEOUT_S)
