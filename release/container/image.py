"""Assembles the image of the Dockerfile as an OCI layout, without a container engine.

The root is that of distroless/cc, made of the same Debian packages; umoci writes the layout.
Source: https://github.com/opencontainers/image-spec/blob/main/image-layout.md
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

#: Debian's and OCI's name of each machine that the agent is built for.
_ARCHITECTURES = {"x64": "amd64", "arm64": "arm64"}
_MACHINES = {"x86_64": "x64", "aarch64": "arm64"}
_PACKAGES = ("base-files", "ca-certificates", "libc6", "libgcc-s1", "netbase", "tzdata")
#: No program but the agent, no manuals, no character sets beside Unicode's.
_UNUSED = (
    "etc/update-motd.d", "usr/bin", "usr/lib/x86_64-linux-gnu/gconv",
    "usr/lib/aarch64-linux-gnu/gconv", "usr/sbin", "usr/share/doc", "usr/share/i18n",
    "usr/share/locale", "usr/share/man", "usr/share/zoneinfo/right",
)  # fmt: skip
_PROGRAM = "/opt/clef-agent/clef-agent"
_ACCOUNTS = {
    "passwd": (
        "root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home:/sbin/nologin\n"
    ),
    "group": "root:x:0:\nnonroot:x:65532:\n",
    "nsswitch.conf": "hosts: files dns\n",
}


def assemble(folder: Path, layout: Path, work: Path, machine: str) -> None:
    """Writes the OCI layout ``layout``, tag ``latest``; needs root, for the owners of its files.

    Args:
        folder: the folder build, for ``machine``.
        layout: a directory, which is replaced.
        work: a directory, which is replaced; the image's root is ``bundle/rootfs`` in it.
        machine: ``x64`` or ``arm64``; nothing is run, so it need not be this one.
    """
    architecture = _ARCHITECTURES[machine]
    for place in (layout, work):
        shutil.rmtree(place, ignore_errors=True)
    (work / "packages").mkdir(parents=True)
    image = f"{layout}:latest"
    _run("umoci", "init", "--layout", str(layout))
    _run("umoci", "new", "--image", image)
    _run("umoci", "unpack", "--image", image, str(work / "bundle"))
    _download(architecture, work / "packages")
    _fill(work / "bundle" / "rootfs", folder, work / "packages")
    _run("umoci", "repack", "--image", image, str(work / "bundle"))
    _run(
        *("umoci", "config", "--image", image, "--config.user=65532:65532"),
        f"--architecture={architecture}",
        *(f"--config.entrypoint={_PROGRAM}", "--config.env=CLEF_AGENT_LOG_FORMAT=json"),
        "--config.env=SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
    )
    _run("umoci", "gc", "--layout", str(layout))


def _download(architecture: str, packages: Path) -> None:
    """Fills ``packages``, by lists of its own: apt's may be of another machine's packages."""
    state = packages.parent / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True)
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "deb $(REPO_URI) $(RELEASE) $(COMPONENT)",
         "Created-By: Packages", "Origin: Debian"],
        check=True, stdout=subprocess.PIPE, text=True,
    ).stdout  # fmt: skip
    if not listed:
        raise SystemExit("apt knows no archive of Debian: run `apt-get update`")
    (state / "sources.list").write_text("".join(sorted(set(listed.splitlines(keepends=True)))))
    apt = (
        *("apt-get", "--quiet", "--quiet", f"--option=APT::Architecture={architecture}"),
        f"--option=APT::Architectures={architecture}",
        *("--option=APT::Sandbox::User=root", f"--option=Dir::Cache={state / 'cache'}"),
        f"--option=Dir::Etc::SourceList={state / 'sources.list'}",
        *("--option=Dir::Etc::SourceParts=/dev/null", f"--option=Dir::State::Lists={state}/lists"),
        "--option=Dir::State::Status=/dev/null",
    )
    _run(*apt, "update", cwd=packages)
    _run(*apt, "download", *_PACKAGES, cwd=packages)


def _fill(root: Path, folder: Path, packages: Path) -> None:
    for package in sorted(packages.glob("*.deb")):
        _run("dpkg-deb", "--extract", str(package), str(root))
    for part in _UNUSED:
        shutil.rmtree(root / part, ignore_errors=True)
    for name, text in _ACCOUNTS.items():
        (root / "etc" / name).write_text(text)
    authorities = sorted((root / "usr/share/ca-certificates").rglob("*.crt"))
    bundle = root / "etc/ssl/certs/ca-certificates.crt"
    bundle.parent.mkdir(parents=True, exist_ok=True)
    bundle.write_bytes(b"".join(authority.read_bytes() for authority in authorities))
    (root / "tmp").mkdir(exist_ok=True)
    (root / "tmp").chmod(0o1777)
    shutil.copytree(folder, root / "opt" / "clef-agent", symlinks=True)


def _run(*command: str, cwd: Path | None = None) -> None:
    subprocess.run(command, cwd=cwd, check=True, stdout=sys.stderr)


if __name__ == "__main__":
    os.umask(0o022)
    here = _MACHINES.get(platform.machine(), platform.machine())
    options = argparse.ArgumentParser()
    for place in ("folder", "layout", "work"):
        options.add_argument(place, type=Path)
    options.add_argument("machine", nargs="?", choices=_ARCHITECTURES, default=here)
    assemble(**vars(options.parse_args()))
