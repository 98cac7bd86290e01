"""The gates: each session is also a job in CI."""

from __future__ import annotations

import argparse
import json
import os
import platform
from pathlib import Path

import nox

nox.needs_version = ">=2024.10"
nox.options.default_venv_backend = "venv"
nox.options.sessions = ["lint", "types", "tests", "integration", "build", "smoke"]
nox.options.reuse_existing_virtualenvs = True
nox.options.error_on_missing_interpreters = True

os.environ.pop("PYTHONDONTWRITEBYTECODE", None)  # start-up is measured with compiled bytecode
MACHINE = {"x86_64": "x64", "aarch64": "arm64"}.get(platform.machine(), platform.machine())
DIST = Path("dist").absolute()
PROJECT = nox.project.load_toml("pyproject.toml")
VERSION = Path("src/clef_agent/__init__.py").read_text(encoding="utf-8").split('"')[-2]
#: Where the image is, without its tag.
IMAGE = PROJECT["project"]["urls"]["Source"].replace("https://github.com/", "ghcr.io/")


def groups(*names: str) -> list[str]:
    return list(nox.project.dependency_groups(PROJECT, *names))


def target_of(session: nox.Session) -> tuple[str, list[str]]:
    """The machine that ``--target`` names, this one's kind without it; and the other arguments."""
    options = argparse.ArgumentParser(session.name, allow_abbrev=False)
    options.add_argument("--target", choices=["x64", "arm64"], default=MACHINE)
    chosen, others = options.parse_known_args(session.posargs)
    return chosen.target, others


def contents(session: nox.Session) -> str:
    """The Python of a new environment of what the package needs, and nothing else, not even pip."""
    place = Path(session.create_tmp()).absolute() / "contents"
    python = str(place / "bin" / "python")
    session.run("python", "-m", "venv", "--clear", "--without-pip", str(place))
    session.run("python", "-m", "pip", "--quiet", "--python", python, "install", ".[gcp,azure]")
    return python


@nox.session
def lint(session: nox.Session) -> None:
    """Style, layout, the direction of imports, and no secret in the tree."""
    session.install(*groups("lint"), ".")
    session.run("ruff", "check", ".")
    session.run("ruff", "format", "--check", ".")
    session.run("lint-imports", "--cache-dir", ".cache/import-linter")
    workflows = map(str, sorted(Path(".github/workflows").glob("*.yml")))
    session.run("check-jsonschema", "--builtin-schema", "vendor.github-workflows", *workflows)
    session.run("python", ".ci/secret_scan.py")


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
def audit(session: nox.Session) -> None:
    """Known vulnerabilities of what pip installs with the package today; asks PyPI."""
    session.install(*groups("audit"))
    python = contents(session)
    frozen = session.run(
        *("python", "-m", "pip", "--python", python, "freeze", "--exclude", "clef-agent"),
        silent=True,
    )
    temporary = Path(session.create_tmp())
    requirements, report = temporary / "requirements.txt", temporary / "report.json"
    requirements.write_text(str(frozen))
    report.unlink(missing_ok=True)
    session.run(
        *("pip-audit", "--disable-pip", "--no-deps", "--requirement", str(requirements)),
        *("--format", "json", "--output", str(report), *session.posargs),
        success_codes=[0, 1],
    )
    _judge(session, report)


def _judge(session: nox.Session, report: Path) -> None:
    """Fails unless every package is known to be sound: one that was not looked up is not."""
    if not report.exists():
        session.error("NOT AUDITED: the service that knows vulnerabilities cannot be reached")
    packages = json.loads(report.read_text())["dependencies"]
    unknown = [package["name"] for package in packages if "skip_reason" in package]
    if unknown:
        session.error(
            f"NOT AUDITED: of {len(packages)} packages the service does not answer for"
            f" {len(unknown)} ({', '.join(unknown[:5])}, ...); is it a mirror?"
        )
    if unsound := [package["name"] for package in packages if package.get("vulns")]:
        session.error(f"known vulnerabilities in: {', '.join(unsound)}")
    session.log(f"{len(packages)} packages, no known vulnerability")


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
    target, _ = target_of(session)
    epoch = str(session.run("git", "log", "-1", "--format=%ct", external=True, silent=True)).strip()
    if target != MACHINE:
        if target != "arm64":
            session.error(f"{target} is built on a machine of its kind; this one is {MACHINE}")
        requirements = groups("build")
        session.run("python", "build/emulated.py", str(DIST / target), epoch, *requirements)
        return
    session.install(*groups("build"), ".[gcp,azure]", env={"PYTHONPATH": "build/wheels"})
    session.run("python", "build/bootloader.py")
    # libgcc, which wheels link, comes from beside the interpreter if that brought one.
    where = ("python", "-c", "import sys; print(sys.base_prefix)")
    beside = Path(str(session.run(*where, silent=True)).strip()) / "lib"
    session.run(
        *("python", "-m", "PyInstaller", "--noconfirm", "--clean", "--log-level=WARN"),
        *("--workpath=.cache/pyinstaller", f"--distpath={DIST / target}", "build/clef-agent.spec"),
        env={
            "SOURCE_DATE_EPOCH": epoch,
            "PYTHONHASHSEED": "0",
            "LD_LIBRARY_PATH": str(beside),
        },
    )


@nox.session(name="portable-python", venv_backend="venv")
def portable_python(session: nox.Session) -> None:
    """An interpreter for CLEF_BUILD_PYTHON that asks for glibc 2.31 at most; needs root, Debian."""
    session.run("python", "build/portable_python.py")


@nox.session
def smoke(session: nox.Session) -> None:
    """Both forms of what was built, from outside; CLEF_MAX_GLIBC is the newest they may need."""
    session.install(*groups("tests", "smoke"), ".[gcp,azure]")
    target, others = target_of(session)
    from_outside = ("test_vectors.py", "test_memory.py")
    tests, env = ["tests/smoke", *(f"tests/integration/{name}" for name in from_outside)], {}
    if target != MACHINE:
        tests = ["tests/smoke/test_contents.py", "tests/smoke/test_other_root.py"]
        env = {"CLEF_AGENT_ROOT": str(Path(".cache/arm64/root").absolute())}
    for executable in (DIST / target / "clef-agent", DIST / target / "folder" / "clef-agent"):
        env["CLEF_AGENT_EXECUTABLE"] = str(executable)
        session.run("pytest", "-s", *(others or tests), env=env)


@nox.session
def layer(session: nox.Session) -> None:
    """The zip for Lambda from the folder that ``build`` made."""
    target, _ = target_of(session)
    session.run(
        "python",
        "release/lambda/layer.py",
        str(DIST / target / "folder"),
        f"dist/clef-agent-lambda-{target}.zip",
    )


@nox.session
def image(session: nox.Session) -> None:
    """The image of the folder, as an OCI layout; needs root, umoci and Debian."""
    target, _ = target_of(session)
    layout, work = DIST / f"image-{target}", Path(f".cache/image-{target}").absolute()
    program = "release/container/image.py"
    session.run("python", program, str(DIST / target / "folder"), str(layout), str(work), target)


@nox.session
def release(session: nox.Session) -> None:
    """What a release carries, in dist/release: after ``build``, ``smoke`` and ``layer``."""
    machine, _ = target_of(session)
    session.install(*groups("sbom"))
    python = contents(session)
    target = DIST / "release"
    target.mkdir(parents=True, exist_ok=True)
    parts = target / f"clef-agent-linux-{machine}.cdx.json"
    session.run(
        *("cyclonedx-py", "environment", "--output-reproducible", "--output-file", str(parts)),
        python,
    )
    executable, layer = DIST / machine / "clef-agent", DIST / f"clef-agent-lambda-{machine}.zip"
    session.run(
        *(python, "release/publish.py", str(executable), str(target), machine),
        *(str(parts), str(layer)),
        external=True,
    )


@nox.session
def portable(session: nox.Session) -> None:
    """A CPython for ``build`` that runs nearly anywhere, as .cache/portable/bin/python3."""
    session.install(*groups("portable"))
    place = Path(".cache/portable").absolute()
    pythons = place.with_name("pythons")
    session.run("uv", "python", "install", "--no-bin", "--install-dir", str(pythons), "3.13")
    *_, python = sorted(pythons.glob("cpython-3.13.*"))
    place.unlink(missing_ok=True)
    place.symlink_to(python)


@nox.session
def package(session: nox.Session) -> None:
    """The wheel and the sources for PyPI, in dist/pypi."""
    session.install(*groups("package"))
    session.run("python", "-m", "build", "--outdir", "dist/pypi")


@nox.session
def notes(session: nox.Session) -> None:
    """The notes of this version's release, in dist/notes.md; fails where there cannot be one."""
    session.run("python", "release/notes.py", VERSION, "dist/notes.md")


@nox.session(name="publish-image")
def publish_image(session: nox.Session) -> None:
    """Pushes the image of both machines; needs docker, logged in, and dist/release."""
    session.run("python", "release/container/publish.py", IMAGE, VERSION)


@nox.session(name="publish-release", venv_backend="none")
def publish_release(session: nox.Session) -> None:
    """Makes the release on GitHub of its tag, dist/notes.md and dist/release; needs gh."""
    tag, files = f"v{VERSION}", map(str, sorted(Path("dist/release").iterdir()))
    session.run(
        *("gh", "release", "create", tag, "--verify-tag", "--title", f"clef-agent {VERSION}"),
        *("--notes-file", "dist/notes.md", *files),
        external=True,
    )


@nox.session
def faults(session: nox.Session) -> None:
    """Sources, disks, clocks, limits and crowds that misbehave; up to ten minutes."""
    session.install(*groups("tests"), ".")
    session.run("timeout", "600", "pytest", "tests/faults", *session.posargs, external=True)


@nox.session
def fuzz(session: nox.Session) -> None:
    """Inputs that nobody thought of; ``-- --inputs N`` says how many, a million without it."""
    session.install(*groups("tests", "fuzz"), ".")
    session.run("python", "-m", "fuzz", *session.posargs, env={"PYTHONPATH": "tests"})
