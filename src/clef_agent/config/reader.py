"""Reads the environment variable by variable, and collects what is wrong with it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, unquote, urlsplit

from clef_agent.config.loopback import is_loopback
from clef_agent.config.model import (
    DEFAULT_PORT,
    DEFAULT_TTL_S,
    PREFIX,
    VARIABLES,
    Config,
    Credential,
    FileSourceConfig,
    HttpSourceConfig,
    ReadFile,
    S3SourceConfig,
    SourceConfig,
    VcsProvider,
    VcsSourceConfig,
)
from clef_agent.config.s3_url import parse_https_url, parse_s3_url
from clef_agent.errors import ConfigInvalid
from clef_agent.keys import KeyMalformed, parse_age_identities, parse_verify_key
from clef_agent.log import FORMATS, LEVELS

if TYPE_CHECKING:
    from clef_agent.keys import VerifyKey

MIN_TTL_S = 30
MIN_POLL_INTERVAL_S = 5

_MAX_DIGITS = 9
_VCS_PROVIDERS: tuple[VcsProvider, ...] = ("github", "gitlab", "bitbucket", "bitbucket-server")
_OWNER_AND_NAME = re.compile(r"[^/\s]+/[^/\s]+")
_REPOS = {
    "github": _OWNER_AND_NAME,
    "gitlab": re.compile(r"[0-9]+|[^/\s]+(?:/[^/\s]+)+"),
    "bitbucket": _OWNER_AND_NAME,
    "bitbucket-server": _OWNER_AND_NAME,
}
_REPO_FORMS = {
    "github": "OWNER/NAME",
    "gitlab": "GROUP/NAME (with all subgroups), or the project's number,",
    "bitbucket": "WORKSPACE/NAME",
    "bitbucket-server": "PROJECTKEY/NAME",
}
_SWITCH = {"on": True, "true": True, "1": True, "off": False, "false": False, "0": False}


class Reader:
    """Reads variable by variable and collects what is wrong instead of stopping at it."""

    def __init__(self, env: Mapping[str, str], read_file: ReadFile) -> None:
        self._env = env
        self._read_file = read_file
        self._problems: list[str] = []
        self._warnings: list[str] = []

    def config(self) -> Config:
        """The configuration, or ConfigInvalid with every problem."""
        source = self._source()
        ttl_s = self._ttl()
        poll_interval_s = self._integer("POLL_INTERVAL", MIN_POLL_INTERVAL_S)
        if poll_interval_s is not None and 0 < ttl_s <= poll_interval_s:
            self._problem("POLL_INTERVAL", f"must be below {PREFIX}CACHE_TTL")
        verify_key = self._verify_key()
        vcs = source if isinstance(source, VcsSourceConfig) else None
        self._warn_of_plain_http(source, verify_key)
        self._warn_of_unknown_names()
        fields = {
            "age_key": self._age_key(),
            "age_key_file": self._age_key_file(),
            "port": self._integer("PORT", 1, 65535) or DEFAULT_PORT,
            "token": self._token(),
            "token_file": self._text("TOKEN_FILE"),
            "agent_id": self._text("ID"),
            "cache_ttl_s": ttl_s,
            "poll_interval_s": poll_interval_s,
            "cache_path": self._text("CACHE_PATH"),
            "verify_key": verify_key,
            "expect_identity": self._text("EXPECT_IDENTITY") or (vcs and vcs.identity),
            "expect_environment": self._text("EXPECT_ENVIRONMENT") or (vcs and vcs.environment),
            "kms_endpoint": self._base_url("KMS_ENDPOINT"),
            "rollback_protection": self._rollback_protection(),
            "telemetry_url": self._telemetry_url(),
            "socket": self._text("SOCKET"),
            "log_format": self._choice("LOG_FORMAT", FORMATS) or "text",
            "log_level": self._choice("LOG_LEVEL", tuple(LEVELS)) or "info",
        }
        if self._problems or source is None:
            raise ConfigInvalid(self._problems)
        return Config(source=source, warnings=tuple(self._warnings), **fields)  # type: ignore[arg-type]  # the keys are the fields' names, checked by tests

    def kms_endpoint(self) -> str | None:
        """The endpoint of GCP and Azure key services, for who needs nothing else.

        Raises:
            ConfigInvalid: it is none.
        """
        endpoint = self._base_url("KMS_ENDPOINT")
        if self._problems:
            raise ConfigInvalid(self._problems)
        return endpoint

    # --- one value ----------------------------------------------------------------------------

    def _problem(self, name: str, what: str) -> None:
        self._problems.append(f"{PREFIX}{name} {what}")

    def _is_set(self, name: str) -> bool:
        return PREFIX + name in self._env

    def _text(self, name: str) -> str | None:
        value = self._env.get(PREFIX + name)
        if value is not None and not value.strip():
            empty = f"{PREFIX}{name} is set but empty"
            if empty not in self._problems:
                self._problems.append(empty)
            return None
        return value

    def _integer(self, name: str, lowest: int, highest: int | None = None) -> int | None:
        text = self._text(name)
        if text is None:
            return None
        # str.isdecimal alone would let digits of other scripts pass, int() underscores.
        is_number = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
        number = int(text) if is_number else -1
        if number < lowest or (highest is not None and number > highest):
            bounds = f"from {lowest} to {highest}" if highest else f"of at least {lowest}"
            self._problem(name, f"must be a whole number {bounds}")
            return None
        return number

    def _choice(self, name: str, allowed: tuple[str, ...]) -> str | None:
        text = self._text(name)
        if text is None:
            return None
        if text.lower() not in allowed:
            self._problem(name, f"must be one of {', '.join(allowed)}")
            return None
        return text.lower()

    def _url(self, name: str, text: str) -> SplitResult | None:
        """``text`` as an http(s) URL with a host, or a problem."""
        try:
            url = urlsplit(text)
            usable = url.scheme in ("http", "https") and bool(url.hostname) and url.port != 0
        except ValueError:
            usable = False
        if not usable or not text.isprintable() or " " in text:
            self._problem(name, "is not a valid http or https URL")
            return None
        return url

    def _base_url(self, name: str) -> str | None:
        """A URL that credentials are sent to: https, or loopback; its path is kept."""
        text = self._text(name)
        if text is None:
            return None
        url = self._url(name, text)
        if url is None:
            return None
        if url.query or url.fragment or _has_userinfo(url):
            self._problem(name, "must be a base URL, without userinfo, query or fragment")
        if not _is_private(url):
            self._problem(name, "must be https, because credentials are sent to it")
        return text.rstrip("/")

    def _credential(self, name: str) -> Credential | None:
        value, path = self._text(name), self._text(name + "_FILE")
        if value is not None and path is not None:
            self._problem(name, f"and {PREFIX}{name}_FILE are both set; keep one")
        if value is not None and not (value.isascii() and _is_header_text(value.strip())):
            self._problem(name, "has characters that no HTTP header may have")
        if value is None and path is None:
            return None
        return Credential(value=value.strip() if value else None, path=path)

    # --- variables with a rule of their own -----------------------------------------------------

    def _source(self) -> SourceConfig | None:
        vcs_names = [name for name in self._env if name.startswith(PREFIX + "VCS_")]
        token = self._credential("SOURCE_TOKEN")
        plain = self._plain_source(token) if self._is_set("SOURCE") else None
        vcs = self._vcs_source() if vcs_names else None
        if self._is_set("SOURCE") and vcs_names:
            self._problem("SOURCE", f"and {', '.join(sorted(vcs_names))} are both set; keep one")
        elif vcs_names and token is not None:
            self._problem("SOURCE_TOKEN", f"goes with {PREFIX}SOURCE, not with {PREFIX}VCS_*")
        elif not self._is_set("SOURCE") and not vcs_names:
            self._problem("SOURCE", f"is not set, nor are {PREFIX}VCS_*: name where to read from")
        return plain or vcs

    def _plain_source(self, token: Credential | None) -> SourceConfig | None:
        text = self._text("SOURCE")
        if text is None:
            return None
        scheme = _scheme(text)
        if scheme in ("http", "https"):
            return self._http_source(text, token)
        if token is not None:
            self._problem("SOURCE_TOKEN", "goes with an http or https source only")
        if scheme == "s3":
            location = parse_s3_url(text)
            if location is None:
                self._problem(
                    "SOURCE", "must be s3://BUCKET/KEY, or s3://ARN/KEY with an access point's ARN"
                )
                return None
            return S3SourceConfig(text, location)
        if scheme == "file":
            return self._file_url(text)
        if scheme:
            self._problem("SOURCE", "must be an http, https, s3 or file URL, or a file's path")
            return None
        return FileSourceConfig(text)

    def _file_url(self, text: str) -> SourceConfig | None:
        try:
            url = urlsplit(text)
        except ValueError:  # an unclosed bracket where the host would stand
            url = urlsplit("")
        # As the file system has it, whatever its encoding.
        path = unquote(url.path, errors="surrogateescape")
        usable = url.netloc in ("", "localhost") and path.startswith("/") and "\0" not in path
        if not usable or url.query or url.fragment:
            self._problem("SOURCE", "must be file:///PATH, with nothing after the path")
            return None
        return FileSourceConfig(path)

    def _http_source(self, text: str, token: Credential | None) -> SourceConfig | None:
        url = self._url("SOURCE", text)
        if url is None:
            return None
        if _has_userinfo(url) and token is not None:
            self._problem("SOURCE", f"has userinfo, and {PREFIX}SOURCE_TOKEN is set; keep one")
        if (_has_userinfo(url) or token is not None) and not _is_private(url):
            self._problem("SOURCE", "must be https, because credentials are sent to it")
        try:
            location = parse_https_url(url) if token is None else None
        except ValueError:
            self._problem("SOURCE", "lies in S3, but names no object: a bucket and a key")
            return None
        if location is not None:
            return S3SourceConfig(text, location)
        return HttpSourceConfig(url=text, token=token)

    def _vcs_source(self) -> SourceConfig | None:
        provider = self._choice("VCS_PROVIDER", _VCS_PROVIDERS)
        repo, token = self._text("VCS_REPO"), self._credential("VCS_TOKEN")
        identity, environment = self._text("VCS_IDENTITY"), self._text("VCS_ENVIRONMENT")
        ref, api_url = self._text("VCS_REF"), self._base_url("VCS_API_URL")
        required = ("PROVIDER", "REPO", "IDENTITY", "ENVIRONMENT")
        missing = [f"{PREFIX}VCS_{n}" for n in required if not self._is_set(f"VCS_{n}")]
        if not (self._is_set("VCS_TOKEN") or self._is_set("VCS_TOKEN_FILE")):
            missing.append(f"{PREFIX}VCS_TOKEN (or _TOKEN_FILE)")
        if missing:
            self._problems.append(f"{', '.join(missing)} must be set with the other VCS variables")
        if provider is not None and repo is not None and not _REPOS[provider].fullmatch(repo):
            self._problem("VCS_REPO", f"must be {_REPO_FORMS[provider]} for {provider}")
        if provider == "bitbucket-server" and not self._is_set("VCS_API_URL"):
            self._problem("VCS_API_URL", "must be set for bitbucket-server: its base URL")
        for name in ("REPO", "IDENTITY", "ENVIRONMENT", "REF"):
            self._check_path(f"VCS_{name}")
        if not (provider and repo and token and identity and environment):
            return None
        return VcsSourceConfig(
            provider=next(known for known in _VCS_PROVIDERS if known == provider),
            repo=repo,
            token=token,
            identity=identity,
            environment=environment,
            ref=ref,
            api_url=api_url,
        )

    def _check_path(self, name: str) -> None:
        """A part of a path in a repository must lead into no other folder than it says."""
        text = self._env.get(PREFIX + name) or "x"
        if not text.isprintable() or any(part in ("", ".", "..") for part in text.split("/")):
            self._problem(name, "has an empty or dotted path segment, or control characters")

    def _ttl(self) -> int:
        ttl_s = self._integer("CACHE_TTL", 0)
        if ttl_s is None:
            return DEFAULT_TTL_S
        if 0 < ttl_s < MIN_TTL_S:
            self._problem("CACHE_TTL", f"must be 0 (just-in-time) or at least {MIN_TTL_S}")
        return ttl_s

    def _token(self) -> str | None:
        token = self._text("TOKEN")
        if token is not None and not _is_header_text(token):
            self._problem("TOKEN", "must be printable, without spaces at its ends")
        return token

    def _age_key(self) -> str | None:
        text = self._text("AGE_KEY")
        if text is not None:
            self._check_age_key("AGE_KEY", text)
        return text

    def _age_key_file(self) -> str | None:
        path = self._text("AGE_KEY_FILE")
        if path is not None:
            try:
                text = self._read_file(path).decode("utf-8")
            except (OSError, ValueError) as exc:
                why = (isinstance(exc, OSError) and exc.strerror) or "it is not text"
                self._problem("AGE_KEY_FILE", f"cannot be read: {why}")
            else:
                self._check_age_key("AGE_KEY_FILE", text)
        return path

    def _check_age_key(self, name: str, text: str) -> None:
        try:
            parse_age_identities(text)
        except KeyMalformed as exc:
            self._problem(name, f"is malformed: {exc}")

    def _verify_key(self) -> VerifyKey | None:
        text = self._text("VERIFY_KEY")
        if text is None:
            return None
        try:
            return parse_verify_key(text)
        except KeyMalformed as exc:
            self._problem("VERIFY_KEY", f"is malformed: {exc}")
            return None

    def _rollback_protection(self) -> bool:
        choice = self._choice("ROLLBACK_PROTECTION", tuple(_SWITCH))
        protect = choice is not None and _SWITCH[choice]
        if protect and not self._is_set("VERIFY_KEY"):
            self._problem("ROLLBACK_PROTECTION", f"needs {PREFIX}VERIFY_KEY")
        if protect and not self._is_set("CACHE_PATH"):
            self._warnings.append(
                f"{PREFIX}ROLLBACK_PROTECTION without {PREFIX}CACHE_PATH forgets at a restart"
                " what it has accepted"
            )
        return protect

    def _telemetry_url(self) -> str | None:
        text = self._text("TELEMETRY_URL")
        url = self._url("TELEMETRY_URL", text) if text else None
        if url is None:
            return None
        if _has_userinfo(url) and not _is_private(url):
            self._problem("TELEMETRY_URL", "must be https, because credentials are sent to it")
        return url._replace(path="/v1/logs").geturl() if url.path in ("", "/") else text

    # --- warnings -------------------------------------------------------------------------------

    def _warn_of_plain_http(self, source: SourceConfig | None, key: VerifyKey | None) -> None:
        url = self._asked_url(source)
        if url is not None and key is None and not _is_private(url):
            self._warnings.append(
                "THE SOURCE IS PLAIN HTTP AND NO VERIFY KEY IS SET: whoever is on the way can"
                f" revoke, replace and replay artifacts. Use https, or set {PREFIX}VERIFY_KEY"
            )

    def _asked_url(self, source: SourceConfig | None) -> SplitResult | None:
        """The URL that a source of the web is asked at, as far as the environment tells."""
        if isinstance(source, HttpSourceConfig):
            return urlsplit(source.url)
        endpoint = self._env.get("AWS_ENDPOINT_URL_S3") or self._env.get("AWS_ENDPOINT_URL")
        if not isinstance(source, S3SourceConfig) or endpoint is None:
            return None
        try:
            url = urlsplit(endpoint)
        except ValueError:
            return None  # botocore will say so
        return url if url.scheme == "http" else None

    def _warn_of_unknown_names(self) -> None:
        for name in sorted(self._env):
            if name.startswith(PREFIX) and name not in VARIABLES:
                self._warnings.append(f"{name} is not a variable of clef-agent, and is ignored")


def _scheme(text: str) -> str:
    """The scheme of a source, in lower case; "" for a path.

    The known ones count without their slashes too: ``https:/host`` is a slip, and no path.
    """
    scheme, colon, rest = text.partition(":")
    is_url = rest.startswith("//") or scheme.lower() in ("http", "https", "s3", "file")
    return scheme.lower() if colon and is_url else ""


def _has_userinfo(url: SplitResult) -> bool:
    return url.username is not None or url.password is not None


def _is_private(url: SplitResult) -> bool:
    """Whether nobody on the way can read what is sent there."""
    return url.scheme == "https" or is_loopback(url.hostname or "")


def _is_header_text(value: str) -> bool:
    """Whether ``value`` survives the way through an HTTP header unchanged."""
    return value.isprintable() and value == value.strip()
