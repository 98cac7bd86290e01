"""``clef-agent dev``: a file served as production would, with keys that live as long as it runs."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final, NoReturn

from clef_agent import config as configuration
from clef_agent.artifact.pack import Packing, Payload, ToRecipients, pack
from clef_agent.artifact.signing import Ed25519Signer
from clef_agent.cli.failure import Failure
from clef_agent.cli.files import read_file as read_given_file
from clef_agent.cli.payload import format_of, parse_source
from clef_agent.cli.run import leave, run_daemon
from clef_agent.clock import SystemClock
from clef_agent.errors import SourceUnusable
from clef_agent.hardening import forget_secret_variables, harden_process
from clef_agent.keys import encode_base64
from clef_agent.lifecycle.agent import Agent
from clef_agent.log import configure as configure_log
from clef_agent.regular_file import read_regular_file
from clef_agent.server.listener import HOST
from clef_agent.sources.base import Fetched, NotModified, SourceType, Validator
from clef_agent.wiring import assemble

_SAMPLE: Final[Payload] = {
    "app": {
        "DATABASE_URL": "postgres://app:correct-horse@localhost:5432/app",
        "API_KEY": "sample-api-key-7f3a",
    },
    "mail": {"SMTP_PASSWORD": "battery-staple"},
}
_IDENTITY: Final = "dev"
_ENVIRONMENT: Final = "local"
#: What of the environment counts here.
_HONOURED: Final[tuple[str, ...]] = ("CLEF_AGENT_PORT", "CLEF_AGENT_TOKEN", "CLEF_AGENT_TOKEN_FILE")


def dev(file: Path | None) -> NoReturn:
    """Serves ``file``, or a sample, until a signal, and ends the process.

    Raises:
        Failure: the file holds no payload.
        ClefError: the agent cannot be assembled.
    """
    harden_process()
    env = dict(os.environ)
    forget_secret_variables(os.environ)
    keys = ThrowAwayKeys()
    source = PackedFile(file, keys)
    source.pack()  # a file that cannot be served is known before anything listens
    honoured = {name: env[name] for name in _HONOURED if name in env}
    config = configuration.load(
        {
            **honoured,
            "CLEF_AGENT_SOURCE": str(file or "sample"),
            "CLEF_AGENT_AGE_KEY": keys.identity,
            "CLEF_AGENT_VERIFY_KEY": keys.verify_key,
            "CLEF_AGENT_EXPECT_IDENTITY": _IDENTITY,
            "CLEF_AGENT_EXPECT_ENVIRONMENT": _ENVIRONMENT,
        },
        read_regular_file,
    )
    configure_log()
    leave(run_daemon(lambda: assemble(config, env, source), on_ready=_greet))


class ThrowAwayKeys:
    """An age pair and a signing pair, made anew at each start and never written down."""

    def __init__(self) -> None:
        import pyrage
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric import ed25519

        identity = pyrage.x25519.Identity.generate()
        self.identity = str(identity)
        self.recipient = str(identity.to_public())
        signing_key = ed25519.Ed25519PrivateKey.generate()
        self.signer = Ed25519Signer(signing_key)
        self.verify_key = encode_base64(
            signing_key.public_key().public_bytes(
                serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )


class FileUnservable(SourceUnusable):
    """What the file holds now is no payload; what it held before goes on being served."""

    hint = "Correct it and save it again; until then the secrets from before are served."


class PackedFile:
    """A source that packs a ``.env`` or ``.json`` file whenever it has changed."""

    type: SourceType = "file"
    is_remote = False

    def __init__(self, file: Path | None, keys: ThrowAwayKeys) -> None:
        self._file = file
        self._keys = keys

    async def fetch(self, previous: Validator | None) -> Fetched | NotModified:
        """The artifact made of what the file holds now."""
        validator = self._validator()
        if previous == validator:
            return NotModified()
        try:
            return Fetched(self.pack(), validator)
        except Failure as exc:
            raise FileUnservable(str(exc)) from None

    def describe(self) -> str:
        """The file's path."""
        return f"{self._file} (packed in memory)" if self._file else "a sample (packed in memory)"

    def warm_up(self) -> None:
        """Nothing has to be loaded."""

    async def aclose(self) -> None:
        """Nothing is held."""

    def pack(self) -> bytes:
        """The file's payload, encrypted and signed with the throw-away keys.

        Raises:
            Failure: the file cannot be read, or holds no payload.
        """
        payload = _SAMPLE
        if self._file is not None:
            data = read_given_file(self._file)
            payload = parse_source(data, where=str(self._file), form=format_of(self._file))
        return pack(
            payload,
            Packing(
                identity=_IDENTITY,
                environment=_ENVIRONMENT,
                encryption=ToRecipients([self._keys.recipient]),
                packed_at=SystemClock().now().wall,
                signer=self._keys.signer,
            ),
        )

    def _validator(self) -> Validator:
        if self._file is None:
            return Validator("sample")
        try:
            found = self._file.stat()
        except OSError as exc:
            raise FileUnservable(f"{self._file} cannot be read: {exc.strerror}") from None
        return Validator(f"{found.st_mtime_ns}-{found.st_size}-{found.st_ino}")


def _greet(agent: Agent) -> None:
    """What a person needs to try it: the address, the token, and a line to paste."""
    port = agent.sockets[0].getsockname()[1]
    url = f"http://{HOST}:{port}"
    token = agent.token.value
    quoted = token.replace("'", "'\\''")
    lines = (
        "",
        f"  URL    {url}",
        f"  Token  {token}",
        "",
        "  Try it in another terminal:",
        "",
        f"  curl -H 'Authorization: Bearer {quoted}' {url}/v1/secrets",
        "",
        "  Ctrl+C ends it. The keys were made for this run and are written nowhere.",
        "",
    )
    print("\n".join(lines))
    sys.stdout.flush()
