"""The gates: each session is also a job in CI."""

from __future__ import annotations

import argparse
import os
import platform
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "integration"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # start-up is measured with compiled bytecode
MACHINE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
DIST = Path("dist").absolute() / MACHINE
PROJECT = nox.project.load_toml("pyproject.toml")


def groups(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, *names))


@nox.session
def lint(session: nox.Session) -> None:
    """Style, layout and the direction of imports."""
    session.install(*groups("lint"), ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--cache-dir", ".cache/import-linter")


@nox.session
def types(session: nox.Session) -> None:
    """Types, strict, of the package and of its tests."""
    session.install(*groups("types"), ".[gcp,azure]")
    session.run("mypy", "--cache-dir", ".cache/mypy")


@nox.session
def tests(session: nox.Session) -> None:
    """Unit tests, and the branch coverage of the modules that decide what is served."""
    session.install(*groups("tests"), "-e", ".[gcp,azure]")
    session.run("coverage", "run", "-m", "pytest", "tests/unit", *session.posargs)
    if not session.posargs:
        for module in (
            "artifact/*",
            "refresh.py",
            "schedule.py",
            "config/*",
            "cache/*",
            "server/*",
        ):
            session.run("coverage", "report", "--fail-under=98", f"--include=*/clef_agent/{module}")


@nox.session
def integration(session: nox.Session) -> None:
    """Real processes, sockets, signals and servers."""
    session.install(*groups("tests"), ".[gcp,azure]")
    session.run("pytest", "tests/integration", *session.posargs)


@nox.session
def bench(session: nox.Session) -> None:
    """What the agent costs, beside what it may cost; needs wrk, and some three minutes."""
    session.install(*groups("tests"), ".")
    session.run("python", "-m", "bench", *session.posargs, env={"PYTHONPATH": "tests"})


@nox.session
def docs(session: nox.Session) -> None:
    """Draws the README's pictures anew."""
    session.install(".[docs]")
    session.run("python", "docs/draw_fleet.py", env={"PYTHONPATH": "tests"})


@nox.session(name="lambda-rie")
def lambda_rie(session: nox.Session) -> None:
    """The extension under AWS's own emulator; skips, and says so, where that is not on PATH."""
    session.install(*groups("tests"), ".")
    session.run("pytest", "tests/rie", *session.posargs)


@nox.session(python=os.environ.get("CLEF_BUILD_PYTHON"))
def build(session: nox.Session) -> None:
    """The executable as one file and as a folder; CLEF_BUILD_PYTHON names the interpreter.

    The same sources, packages and interpreter give the same bytes.
    """
    options = argparse.ArgumentParser("build")
    options.add_argument("--target", choices=["x64", "arm64"], default=MACHINE)
    if (target := options.parse_args(session.posargs).target) != MACHINE:
        session.error(f"{target} is built on a machine of its kind; this one is {MACHINE}")
    session.install(*groups("build"), ".[gcp,azure]")
    session.run("python", "build/bootloader.py")
    epoch = session.run("git", "log", "-1", "--format=%ct", external=True, silent=True)
    session.run(
        *("python", "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level=WARN"),
        *("--workpath=.cache/pyinstaller", f"--distpath={DIST}", "build/clef-agent.spec"),
        env={"SOURCE_DATE_EPOCH": str(epoch).strip(), "PYTHONHASHSEED": "0"},
    )


@nox.session
def smoke(session: nox.Session) -> None:
    """Both forms of what was built, from outside; CLEF_MAX_GLIBC is the newest they may need."""
    session.install(*groups("tests", "smoke"), ".[gcp,azure]")
    for executable in (DIST / "clef-agent", DIST / "folder" / "clef-agent"):
        env = {"CLEF_AGENT_EXECUTABLE": str(executable)}
        session.run("pytest", "-s", "tests/smoke", *session.posargs, env=env)


@nox.session
def layer(session: nox.Session) -> None:
    """The zip for Lambda from the folder that ``build`` made."""
    session.run(
        "python",
        "release/lambda/layer.py",
        str(DIST / "folder"),
        f"dist/clef-agent-lambda-{MACHINE}.zip",
    )


@nox.session
def image(session: nox.Session) -> None:
    """The image of the folder, as an OCI layout; needs root, umoci and Debian."""
    layout, work = DIST.parent / f"image-{MACHINE}", Path(".cache/image").absolute()
    program = "release/container/image.py"
    session.run("python", program, str(DIST / "folder"), str(layout), str(work))


@nox.session
def release(session: nox.Session) -> None:
    """What a release carries, in dist/release: after ``build``, ``smoke`` and ``layer``."""
    session.install(*groups("sbom"))
    # An environment of what the executable is made of, and nothing else, not even pip.
    contents = Path(session.create_tmp()).absolute() / "contents"
    python = str(contents / "bin" / "python")
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(contents))
    session.run("python", "-m", "pip", "--quiet", "--python", python, "install", ".[gcp,azure]")
    target = DIST.parent / "release"
    target.mkdir(parents=True, exist_ok=True)
    parts = target / f"clef-agent-linux-{MACHINE}.cdx.json"
    session.run(
        *("cyclonedx-py", "environment", "--output-reproducible", "--output-file", str(parts)),
        python,
    )
    layer = DIST.parent / f"clef-agent-lambda-{MACHINE}.zip"
    files = [str(path) for path in (parts, layer)]
    session.run(
        *(python, "release/publish.py", str(DIST / "clef-agent"), str(target), MACHINE, *files),
        external=True,
    )
