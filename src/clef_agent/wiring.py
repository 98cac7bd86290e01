"""From a configuration to the objects that do what it says."""

from __future__ import annotations

import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Final, assert_never
from urllib.parse import urlsplit

from clef_agent import config as configuration
from clef_agent.artifact.model import Expectation
from clef_agent.artifact.verify import Policy
from clef_agent.aws import Aws
from clef_agent.cache.keeper import BackgroundKeeper, CopyKeeper, MarkKeeper, NoCopy
from clef_agent.cache.memory import Memory
from clef_agent.clock import Clock, SystemClock, boot_id
from clef_agent.config import Config
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.errors import TokenUnusable
from clef_agent.hardening import raise_descriptor_limit
from clef_agent.kms.base import KeyService
from clef_agent.kms.services import KeyServices
from clef_agent.lifecycle.agent import Agent
from clef_agent.lifecycle.core import Core
from clef_agent.log import LOGGER
from clef_agent.provider import CachedSecrets, JustInTimeSecrets, SecretsProvider
from clef_agent.refresh import Parts, Refresher
from clef_agent.regular_file import read_regular_file
from clef_agent.schedule import Schedule, interval_s
from clef_agent.server.guards import BearerToken
from clef_agent.server.listener import Listener, bind_port, bind_unix
from clef_agent.sources.base import Source
from clef_agent.sources.file import FileSource
from clef_agent.telemetry import events
from clef_agent.telemetry.base import NoTelemetry, Telemetry
from clef_agent.telemetry.log_lines import LogLines
from clef_agent.telemetry.metrics import Metrics
from clef_agent.token_file import ServedToken, served_token

if TYPE_CHECKING:
    from clef_agent.sources.vcs import Host

#: How long a thread may keep the interpreter while another wants it, in seconds.
_SWITCH_INTERVAL_S: Final = 0.001


def make_core(
    config: Config,
    env: Mapping[str, str],
    source: Source | None = None,
    *,
    with_telemetry: bool = False,
) -> Core:
    """The core of an agent for ``config``; nothing is asked yet.

    ``source`` stands in for the configured one.
    """
    aws = Aws(env)
    source = source or make_source(config.source, aws)
    clock = SystemClock()
    memory = Memory(config.cache_ttl_s)
    metrics = Metrics()
    telemetry = _telemetry(config, env, source, clock) if with_telemetry else NoTelemetry()
    listeners: list[events.Emit] = [metrics, LogLines(clock), telemetry]

    def emit(event: events.Event) -> None:
        for listener in listeners:
            listener(event)

    key_services = make_key_services(config.kms_endpoint, aws, env)
    decryptor = Decryptor(
        AgeKeyring(config.age_key, config.age_key_file, read_regular_file),
        EnvelopeOpener(key_services),
    )
    keeper = _keeper(config, source, emit)
    refresher = Refresher(
        Parts(
            source=source,
            decryptor=decryptor,
            memory=memory,
            keeper=keeper,
            policy=Policy(
                verify_key=config.verify_key,
                expected=Expectation(config.expect_identity, config.expect_environment),
                rollback_protection=config.rollback_protection,
            ),
            clock=clock,
            schedule=_schedule(config, source),
            emit=emit,
            take_own=lambda secrets: telemetry.adopt(secrets.value),
        ),
        keeps_plaintext=not config.just_in_time,
    )
    provider = _provider(config, memory, refresher, clock, decryptor, metrics)
    listeners.append(lambda _: provider.changed())
    return Core(
        source=source,
        key_services=key_services,
        decryptor=decryptor,
        memory=memory,
        keeper=keeper,
        refresher=refresher,
        provider=provider,
        clock=clock,
        metrics=metrics,
        telemetry=telemetry,
        emit=emit,
    )


def assemble(config: Config, env: Mapping[str, str], source: Source | None = None) -> Agent:
    """An agent for ``config``, with its sockets bound and nothing else done.

    ``env`` says where a generated token's file may lie, and has what OpenTelemetry and AWS
    read. ``source`` stands in for the configured one.

    Raises:
        PortInUse, ListenFailed, TokenUnusable
    """
    # The limit first: sockets and connections count against it.
    descriptors = raise_descriptor_limit()
    # A thread that reads a large artifact hands the interpreter back five times as often as it
    # would by default; each turn of the event loop may have to ask for it more than once.
    sys.setswitchinterval(_SWITCH_INTERVAL_S)
    core = make_core(config, env, source, with_telemetry=True)
    sockets, token = _claim(config, env)
    return Agent(
        core=core,
        began=core.clock.now(),
        listener=Listener(descriptors=descriptors),
        sockets=sockets,
        token=token,
        read_token=lambda: _read_token(config),
        bearer=BearerToken(token.value),
        warm_ups=tuple(_warm_ups(config, core.source, core.key_services)),
    )


def _warm_ups(
    config: Config, source: Source, key_services: Mapping[str, KeyService]
) -> Iterator[Callable[[], None]]:
    """What the first fetch, and most likely the first unwrapping, will load anyway."""
    if source.is_remote:
        yield source.warm_up
    if source.type == "s3" and config.age_key is None and config.age_key_file is None:
        yield key_services["aws"].warm_up


def _claim(config: Config, env: Mapping[str, str]) -> tuple[tuple[socket.socket, ...], ServedToken]:
    """The sockets, and the token that clients show on them; nothing stays behind on failure.

    The port comes before all that leaves a trace: while another process holds it, nothing of ours
    may lie about, a token file least of all.
    """
    with ExitStack() as undo:
        sockets = [undo.enter_context(bind_port(config.port))]
        if config.socket is not None:
            sockets.append(undo.enter_context(bind_unix(config.socket)))
            undo.callback(Path(config.socket).unlink)
        token = _token(config, env)
        undo.pop_all()
    return tuple(sockets), token


def make_key_services(kms_endpoint: str | None, aws: Aws, env: Mapping[str, str]) -> KeyServices:
    """The key services, by the provider's name that an envelope has. None is asked yet."""
    # The libraries below have a variable of their own, which goes first.
    certificates = None if env.get("REQUESTS_CA_BUNDLE") else env.get("SSL_CERT_FILE")

    def of_aws() -> KeyService:
        from clef_agent.kms.aws import AwsKms

        return AwsKms(aws)

    def of_gcp() -> KeyService:
        from clef_agent.kms.gcp import GcpKms

        return GcpKms(kms_endpoint, certificates)

    def of_azure() -> KeyService:
        from clef_agent.kms.azure import AzureKeys

        return AzureKeys(kms_endpoint, certificates, env.get("AZURE_AUTHORITY_HOST"))

    return KeyServices({"aws": of_aws, "gcp": of_gcp, "azure": of_azure})


def make_source(source: configuration.SourceConfig, aws: Aws) -> Source:
    """The source that ``source`` describes."""
    match source:
        case configuration.FileSourceConfig():
            return FileSource(source.path)
        case configuration.HttpSourceConfig():
            from clef_agent.sources.http import HttpSource

            return HttpSource(source, read_regular_file)
        case configuration.S3SourceConfig():
            from clef_agent.sources.s3 import S3Source

            return S3Source(source, aws)
        case configuration.VcsSourceConfig():
            from clef_agent.sources.conversation import Correspondent
            from clef_agent.sources.vcs import RepositoryFile, VcsSource

            host = _host(source)
            correspondent = Correspondent(host.base, source.token, read_regular_file)
            return VcsSource(RepositoryFile.of(source), host, correspondent)
    assert_never(source)


def _host(source: configuration.VcsSourceConfig) -> Host:
    match source.provider:
        case "github":
            from clef_agent.sources.github import GitHub

            return GitHub.of(source)
        case "gitlab":
            from clef_agent.sources.gitlab import GitLab

            return GitLab.of(source)
        case "bitbucket":
            from clef_agent.sources.bitbucket import BitbucketCloud

            return BitbucketCloud.of(source)
        case "bitbucket-server":
            from clef_agent.sources.bitbucket_server import BitbucketServer

            return BitbucketServer.of(source)
    assert_never(source.provider)


def _schedule(config: Config, source: Source) -> Schedule:
    interval = interval_s(
        ttl_s=config.cache_ttl_s,
        configured_s=config.poll_interval_s,
        source_is_file=not source.is_remote,
    )
    return Schedule(interval, Random())  # noqa: S311  # it spreads polls; nobody gains by guessing


def _place(source: configuration.SourceConfig) -> str:
    """What tells one place from all others; only a hash of it is kept.

    The query belongs to it, since a store may tell artifacts apart by it alone. Userinfo does not:
    a password may change.
    """
    match source:
        case configuration.HttpSourceConfig():
            url = urlsplit(source.url)
            return url._replace(netloc=url.netloc.rpartition("@")[2]).geturl()
        case configuration.FileSourceConfig():
            return source.path
        case configuration.S3SourceConfig():
            return source.url
        case configuration.VcsSourceConfig():
            file = (source.repo, source.ref, source.identity, source.environment)
            return f"{source.provider} {source.api_url} {file}"
    assert_never(source)


def _keeper(config: Config, source: Source, emit: events.Emit) -> CopyKeeper:
    if config.cache_path is None or not (source.is_remote or config.rollback_protection):
        return NoCopy()
    from clef_agent.cache.disk import DiskCache

    key = "\n".join(
        (_place(config.source), config.expect_identity or "", config.expect_environment or "")
    )
    disk = DiskCache(config.cache_path, key=key, boot_id=boot_id())
    keeper = BackgroundKeeper(disk, lambda error: emit(events.DiskCopyFailed(error)))
    return keeper if source.is_remote else MarkKeeper(keeper)


def _telemetry(config: Config, env: Mapping[str, str], source: Source, clock: Clock) -> Telemetry:
    if config.telemetry_url is None:
        return NoTelemetry()
    from uuid import uuid4

    from clef_agent.telemetry.collector import is_disabled, read_collector
    from clef_agent.telemetry.records import Origin
    from clef_agent.telemetry.sending import OtlpTelemetry

    if is_disabled(env):
        LOGGER.warning("OTEL_SDK_DISABLED is set, and no telemetry is sent")
        return NoTelemetry()
    collector, warnings = read_collector(config.telemetry_url, env)
    for warning in warnings:
        LOGGER.warning("%s", warning)
    LOGGER.info("telemetry: %s", collector)
    origin = Origin(agent_id=config.agent_id or str(uuid4()), source_type=source.type)
    if config.expect_identity is not None:
        origin = replace(origin, identity=config.expect_identity)
    if config.expect_environment is not None:
        origin = replace(origin, environment=config.expect_environment)
    return OtlpTelemetry(collector, origin, clock)


def _provider(
    config: Config,
    memory: Memory,
    refresher: Refresher,
    clock: Clock,
    decryptor: Decryptor,
    metrics: Metrics,
) -> SecretsProvider:
    if config.just_in_time:
        observe = metrics.decrypted
        return JustInTimeSecrets(memory, refresher, clock, decryptor, observe=observe)
    return CachedSecrets(memory, refresher, clock)


def _token(config: Config, env: Mapping[str, str]) -> ServedToken:
    token = served_token(
        value=config.token, token_file=config.token_file, port=config.port, env=env
    )
    if token.origin == "generated" and token.path is not None:
        LOGGER.info("token file: %s (generated; `clef-agent get` finds it by itself)", token.path)
    elif token.origin == "generated":
        LOGGER.warning(
            "a token was generated, but could be left in no file: no client can know it."
            " Set CLEF_AGENT_TOKEN_FILE to a path that can be written"
        )
    return token


def _read_token(config: Config) -> str | None:
    """The token as its file has it now; None for one that is not read from a file.

    Raises:
        TokenUnusable
    """
    if config.token is not None or config.token_file is None:
        return None
    if not os.path.exists(config.token_file):  # noqa: PTH110  # one word less than a Path
        raise TokenUnusable(f"the token file {config.token_file} is not there")
    return served_token(value=None, token_file=config.token_file, port=config.port, env={}).value
