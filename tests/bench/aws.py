"""What S3 and AWS KMS add: to the start, and to the memory."""

from __future__ import annotations

import os
import time
from pathlib import Path
from statistics import median
from typing import Final

from bench.figures import Bound, Figure
from bench.processes import (
    TOKEN,
    agent_command,
    free_port,
    pss_mb,
    running,
    wait_until_ready,
)
from bench.start import start_s
from bench.workload import KeyPair, fifty_keys
from clef_agent.artifact.pack import Packing, ToKeyService, pack
from clef_agent.cli.key_service import KeyServiceWrapper
from moto_server import Moto, moto_server

_ROUNDS: Final = 9
#: So many requests are answered before memory is read.
_REQUESTS: Final = 200


def measure(directory: Path) -> list[Figure]:
    """The start beside that of a file source, in turns, and the memory after some requests."""
    keys = KeyPair.generate(directory)
    artifact = directory / "artifact.json"
    artifact.write_bytes(keys.pack(fifty_keys()))
    with moto_server() as moto:
        env = _remote_env(moto)
        # The first round leaves bytecode and file caches warm, and does not count.
        rounds = [(_start_s(env), start_s(artifact, keys)) for _ in range(1 + _ROUNDS)][1:]
        remote, local = (median(times) for times in zip(*rounds, strict=True))
        pss_mb = _pss_mb(env)
    return [
        Figure(
            "start to ready with S3 and KMS, of a file",
            remote / local,
            "x",
            None,
            f"{remote * 1000:.0f} ms beside {local * 1000:.0f} ms, medians of {_ROUNDS}",
        ),
        Figure("PSS with S3 and KMS", pss_mb, "MB", Bound("at most", 70), f"{_REQUESTS} requests"),
    ]


def _remote_env(moto: Moto) -> dict[str, str]:
    """The environment of an agent whose artifact lies in S3, wrapped by KMS."""
    key_id = moto.client("kms").create_key()["KeyMetadata"]["Arn"]
    before = dict(os.environ)
    os.environ.update(moto.environment)  # what packing asks is the process's own
    try:
        packing = Packing(
            identity="bench",
            environment="bench",
            encryption=ToKeyService(KeyServiceWrapper("aws", key_id)),
            packed_at=time.time(),
        )
        data = pack(fifty_keys(), packing)
    finally:
        os.environ.clear()
        os.environ.update(before)
    moto.bucket("bench").put_object(Bucket="bench", Key="artifact.json", Body=data)
    return {
        "PATH": os.environ["PATH"],
        **moto.environment,
        "CLEF_AGENT_SOURCE": "s3://bench/artifact.json",
        "CLEF_AGENT_TOKEN": TOKEN,
    }


def _start_s(env: dict[str, str]) -> float:
    port = free_port()
    started = time.perf_counter()
    with running(agent_command(), {**env, "CLEF_AGENT_PORT": str(port)}) as agent:
        wait_until_ready(agent, port)
        return time.perf_counter() - started


def _pss_mb(env: dict[str, str]) -> float:
    port = free_port()
    with running(agent_command(), {**env, "CLEF_AGENT_PORT": str(port)}) as agent:
        for _ in range(_REQUESTS):
            wait_until_ready(agent, port)
        return pss_mb(agent.pid)
