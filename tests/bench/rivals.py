"""Who is measured beside whom: the agent in each of its forms, another agent, and the limits."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from bench.processes import (
    agent_command,
    agent_env,
    free_port,
    program_command,
    running,
    wait_until_ready,
)
from bench.workload import KeyPair
from clef_agent.artifact.pack import Payload

INSTALLED: Final = "installed"
REFERENCE: Final = "reference"
BARE: Final = "bare ASGI"
NGINX: Final = "nginx"

_MACHINE: Final = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), "")
_DIST: Final = Path(__file__).parents[2] / "dist" / _MACHINE


def agents() -> dict[str, list[str]]:
    """The command of each agent by name: ours as far as it was built, and ``REFERENCE_CMD``."""
    found = {INSTALLED: agent_command()}
    for name, path in (("one file", "clef-agent"), ("folder", "folder/clef-agent")):
        if (_DIST / path).is_file():
            found[name] = [str(_DIST / path)]
    if command := os.environ.get("REFERENCE_CMD"):
        found[REFERENCE] = shlex.split(command)
    return found


@dataclass(frozen=True, slots=True)
class Server:
    """Something that answers on ``port``, by the process ``pid`` and those that it has started.

    ``artifact`` is the file that it serves; None for one that is no agent.
    """

    name: str
    port: int
    pid: int
    artifact: Path | None = None


@contextlib.contextmanager
def serving(
    name: str, command: list[str], keys: KeyPair, payload: Payload, home: Path, **more: str
) -> Iterator[Server]:
    """An agent that is ready, with a file as its source."""
    home.mkdir(parents=True, exist_ok=True)
    artifact, port = home / "artifact.json", free_port()
    artifact.write_bytes(keys.pack(payload))
    with running(command, agent_env(port, artifact, keys.file, **more)) as process:
        wait_until_ready(process, port)
        yield Server(name, port, process.pid, artifact)


@contextlib.contextmanager
def bare_asgi(response: Path) -> Iterator[Server]:
    """An ASGI function that does nothing but send ``response``."""
    port = free_port()
    with running(program_command("bare_asgi", str(port), str(response))) as process:
        wait_until_ready(process, port)
        yield Server(BARE, port, process.pid)


_NGINX_CONF: Final = """
{user} daemon off; worker_processes 1; pid {home}/nginx.pid; error_log stderr error;
events {{ worker_connections 256; }}
http {{
  access_log off; keepalive_requests 100000000; server_tokens off; default_type application/json;
  open_file_cache max=10 inactive=1h; sendfile off;
  client_body_temp_path {home}/b; proxy_temp_path {home}/p; fastcgi_temp_path {home}/f;
  uwsgi_temp_path {home}/u; scgi_temp_path {home}/s;
  server {{
    listen 127.0.0.1:{port};
    location = /v1/ready {{ return 200; }}
    location / {{ root {home}; try_files /body =404; {headers} }}
  }}
}}
"""


def has_nginx() -> bool:
    """Whether nginx is there to be run."""
    return shutil.which("nginx") is not None


@contextlib.contextmanager
def nginx(body: bytes, headers: dict[str, str], home: Path) -> Iterator[Server]:
    """One worker of nginx that sends ``body``, a file, with ``headers`` but for its own."""
    home.mkdir()
    (home / "body").write_bytes(body)
    port = free_port()
    own = {"content-length", "content-type", "connection", "date", "etag", "server"}
    lines = " ".join(
        f'add_header {name} "{value}";' for name, value in headers.items() if name not in own
    )
    conf = home / "nginx.conf"
    user = "user root;" if os.geteuid() == 0 else ""  # or it may not enter our directory
    conf.write_text(_NGINX_CONF.format(home=home, port=port, headers=lines, user=user))
    with running(["nginx", "-c", str(conf), "-p", str(home)]) as process:
        wait_until_ready(process, port)
        yield Server(NGINX, port, process.pid)
