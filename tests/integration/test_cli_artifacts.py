"""``pack``, ``inspect``, ``verify``, ``revoke``, ``keygen`` as processes, beside the real age."""

from __future__ import annotations

import json
import re
import shutil
import stat
import subprocess
from pathlib import Path
from typing import Any

import pytest

from clef_agent.keys import decode_base64, encode_base64
from command_line import clef_agent
from fakes import (
    AGE_KEY,
    AGE_RECIPIENT,
    ED25519_VERIFY_KEY,
    OTHER_AGE_KEY,
    OTHER_AGE_RECIPIENT,
)

FOR = ("--identity", "api-gateway", "--environment", "production")
TO = ("--recipient", AGE_RECIPIENT)


def pack(*arguments: str, stdin: bytes = b"") -> dict[str, Any]:
    process = clef_agent("pack", *FOR, *arguments, stdin=stdin)
    assert process.returncode == 0, process.stderr.decode()
    document: dict[str, Any] = json.loads(process.stdout)
    return document


def failure(*arguments: str, env: dict[str, str] | None = None, stdin: bytes = b"") -> str:
    """The one line of a failure, which has a hint after it."""
    process = clef_agent(*arguments, env=env, stdin=stdin)
    assert process.returncode == 1, process.stderr.decode()
    line, hint = process.stderr.decode().splitlines()
    assert line.startswith("[clef-agent] ")
    assert hint.startswith("[clef-agent] hint: ")
    return line.removeprefix("[clef-agent] ")


def opened(document: dict[str, Any], key: str = AGE_KEY) -> object:
    """The payload of ``document``, as the agent's own packages would not open it."""
    import pyrage

    identity = pyrage.x25519.Identity.from_str(key)
    return json.loads(pyrage.decrypt(decode_base64(document["ciphertext"]), [identity]))


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    path = tmp_path / "artifact.json"
    path.write_text(json.dumps(pack(*TO, stdin=b"A=1\nB=2\n")))
    return path


# --- pack -------------------------------------------------------------------------------------


def test_a_dotenv_file_is_packed_flat_and_with_a_namespace_below_it(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A='one'\nB=\"two\\nlines\"\n")

    assert opened(pack(*TO, str(tmp_path / ".env"))) == {"A": "one", "B": "two\nlines"}
    namespaced = pack(*TO, "--namespace", "app", str(tmp_path / ".env"))
    assert opened(namespaced) == {"app": {"A": "one", "B": "two\nlines"}}


def test_a_json_file_is_packed_as_it_is(tmp_path: Path) -> None:
    payload = {"app": {"A": "é", "EMPTY": ""}, "BARE": "2"}
    (tmp_path / "in.json").write_text(json.dumps(payload))

    document = pack(*TO, str(tmp_path / "in.json"))

    assert opened(document) == payload
    assert (document["identity"], document["environment"]) == ("api-gateway", "production")


@pytest.mark.parametrize("file", [(), ("-",)])
@pytest.mark.parametrize("stdin", [b"A=1", b'{"A": "1"}'])
def test_standard_input_is_packed_in_either_format(file: tuple[str, ...], stdin: bytes) -> None:
    assert opened(pack(*TO, *file, stdin=stdin)) == {"A": "1"}


def test_a_given_format_overrides_what_the_input_looks_like(tmp_path: Path) -> None:
    (tmp_path / "odd.json").write_text("A=1")

    assert opened(pack(*TO, "--format", "env", str(tmp_path / "odd.json"))) == {"A": "1"}


def test_each_recipient_can_open_it() -> None:
    document = pack(*TO, "--recipient", OTHER_AGE_RECIPIENT, stdin=b"A=1")

    assert opened(document) == opened(document, OTHER_AGE_KEY) == {"A": "1"}


def test_it_is_written_in_one_step_and_readable_by_who_deploys_it(tmp_path: Path) -> None:
    output = tmp_path / "out.json"

    process = clef_agent("pack", *FOR, *TO, "--output", str(output), stdin=b"A=1")

    assert (process.returncode, process.stdout, process.stderr) == (0, b"", b"")
    assert opened(json.loads(output.read_bytes())) == {"A": "1"}
    # The agent hardens its umask; what is made for others to fetch must not be hidden by it.
    assert stat.S_IMODE(output.stat().st_mode) == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["out.json"]


@pytest.mark.parametrize(
    ("ttl", "seconds"), [("3600", 3600), ("90s", 90), ("12h", 43_200), ("30d", 2_592_000)]
)
def test_a_ttl_sets_the_expiry(ttl: str, seconds: int) -> None:
    from datetime import datetime

    document = pack(*TO, "--ttl", ttl, stdin=b"A=1")

    packed_at, expires_at = (
        datetime.fromisoformat(document[name]) for name in ("packedAt", "expiresAt")
    )
    assert (expires_at - packed_at).total_seconds() == pytest.approx(seconds, abs=0.01)


@pytest.mark.parametrize("ttl", ["0", "-1", "1y", "soon", "1.5h", "999999999w", ""])
def test_a_ttl_that_is_none_is_wrong_usage(ttl: str) -> None:
    assert clef_agent("pack", *FOR, *TO, f"--ttl={ttl}", stdin=b"A=1").returncode == 2


@pytest.mark.parametrize(
    "arguments", [FOR, (*TO, "--identity", "a"), (*FOR, *TO, "--format", "yaml"), ("--nonsense",)]
)
def test_missing_and_unknown_options_are_wrong_usage(arguments: tuple[str, ...]) -> None:
    process = clef_agent("pack", *arguments, stdin=b"A=1")

    assert (process.returncode, process.stdout) == (2, b"")


@pytest.mark.parametrize(
    ("stdin", "arguments", "problem"),
    [
        (b"A=hunter2\nhunter2", TO, "standard input: line 2 is not NAME=VALUE"),
        (b'{"A": 1}', TO, "standard input: A is a number, not a string"),
        (b"A=1", ("--recipient", "age1hunter2"), "recipient 1 is not an age public key (age1...)"),
        (b'{"a": {"b": "c"}}', (*TO, "--namespace", "x"), "--namespace is for a flat payload"),
        (b"A=1", (*TO, "--signing-key-file", "/dev/null"), "the signing key in /dev/null cannot"),
        (b"A=1", (*TO, "/absent/.env"), "/absent/.env cannot be read: No such file or directory"),
        (b"A=1", (*TO, "--output", "/absent/out"), "/absent/out cannot be written: "),
        (b"A=1", (*TO, "--identity", "a\nb"), "no agent would accept that artifact: identity"),
        (b"A=1", (*TO, "--identity", "\udcff"), "--identity or --environment is not UTF-8 text"),
        (b"A=1", (*TO, "--identity", ""), "no agent would accept that artifact: missing or empty"),
    ],
)
def test_what_cannot_be_packed_is_a_failure_that_repeats_no_value(
    stdin: bytes, arguments: tuple[str, ...], problem: str
) -> None:
    line = failure("pack", *FOR, *arguments, stdin=stdin)

    assert line.startswith(problem)
    assert "hunter2" not in line


# --- keygen -----------------------------------------------------------------------------------


def test_an_age_pair_has_the_form_of_age_keygen() -> None:
    process = clef_agent("keygen")

    form = r"# created: \S+\n# public key: (age1[0-9a-z]+)\n(AGE-SECRET-KEY-1[0-9A-Z]+)\n"
    match = re.fullmatch(form, process.stdout.decode())
    assert match is not None
    recipient, key = match.groups()
    assert recipient in process.stderr.decode()
    assert opened(pack("--recipient", recipient, stdin=b"A=1"), key) == {"A": "1"}


@pytest.mark.parametrize("signing", [(), ("--signing",)])
def test_a_private_key_is_written_for_its_owner_only_and_never_over_another(
    tmp_path: Path, signing: tuple[str, ...]
) -> None:
    key = tmp_path / "key"

    process = clef_agent("keygen", *signing, "--output", str(key))
    before = key.read_bytes()
    line = failure("keygen", *signing, "--output", str(key))

    assert process.returncode == 0
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    assert b"SECRET" not in process.stdout
    assert b"PRIVATE" not in process.stdout
    assert "exists already" in line
    assert key.read_bytes() == before


def test_a_signing_pair_signs_and_proves(tmp_path: Path) -> None:
    key, artifact = tmp_path / "key.pem", tmp_path / "artifact.json"
    public = clef_agent("keygen", "--signing", "-o", str(key)).stdout.decode().strip()
    document = pack(*TO, "--signing-key-file", str(key), "-o", "/dev/stdout", stdin=b"A=1")
    artifact.write_text(json.dumps(document))
    (tmp_path / "public").write_text(public + "\n")

    assert document["signatureAlgorithm"] == "Ed25519"
    for given, env in (
        (("--verify-key", public), {}),
        (("--verify-key", str(tmp_path / "public")), {}),
        ((), {"CLEF_AGENT_VERIFY_KEY": public}),
    ):
        process = clef_agent("verify", str(artifact), *given, env=env)
        assert process.returncode == 0, process.stderr.decode()
        assert "signature: passed" in process.stdout.decode()


# --- verify and inspect -----------------------------------------------------------------------


def test_verify_decrypts_where_a_key_is_configured_and_shows_nothing_of_it(
    artifact: Path, tmp_path: Path
) -> None:
    (tmp_path / "key").write_text(f"# mine\n{AGE_KEY}\n")

    for env in (
        {"CLEF_AGENT_AGE_KEY": AGE_KEY},
        {"CLEF_AGENT_AGE_KEY_FILE": str(tmp_path / "key")},
    ):
        process = clef_agent("verify", str(artifact), "--json", env=env)
        report = json.loads(process.stdout)
        assert (process.returncode, report["ok"], report["reason"]) == (0, True, None)
        results = {check["check"]: check["result"] for check in report["checks"]}
        assert (results["decrypt"], results["payload"]) == ("passed", "passed")
        assert results["signature"] == "not checked"
        assert AGE_KEY.encode() not in process.stdout


@pytest.mark.parametrize(
    ("arguments", "env", "reason"),
    [
        (("--verify-key", ED25519_VERIFY_KEY), {}, "signature_missing"),
        (("--identity", "other"), {}, "identity_mismatch"),
        ((), {"CLEF_AGENT_EXPECT_ENVIRONMENT": "staging"}, "identity_mismatch"),
        ((), {"CLEF_AGENT_AGE_KEY": OTHER_AGE_KEY}, "decrypt"),
    ],
)
def test_verify_says_which_check_failed_and_exits_with_1(
    artifact: Path, arguments: tuple[str, ...], env: dict[str, str], reason: str
) -> None:
    assert f"is refused: {reason}: " in failure("verify", str(artifact), *arguments, env=env)

    report = json.loads(clef_agent("verify", str(artifact), "--json", *arguments, env=env).stdout)
    assert (report["ok"], report["reason"]) == (False, reason)


@pytest.mark.parametrize(
    ("arguments", "env", "problem"),
    [
        (("--verify-key", "hunter2"), {}, "the verify key in --verify-key cannot be used"),
        ((), {"CLEF_AGENT_VERIFY_KEY": ""}, "the verify key in CLEF_AGENT_VERIFY_KEY cannot"),
        ((), {"CLEF_AGENT_AGE_KEY": "hunter2"}, "CLEF_AGENT_AGE_KEY is malformed: line 1"),
        ((), {"CLEF_AGENT_AGE_KEY_FILE": "/absent"}, "/absent cannot be read"),
    ],
)
def test_a_key_that_was_given_and_cannot_be_used_is_a_failure_and_not_an_open_check(
    artifact: Path, arguments: tuple[str, ...], env: dict[str, str], problem: str
) -> None:
    line = failure("verify", str(artifact), *arguments, env=env)

    assert line.startswith(problem)
    assert "hunter2" not in line


def test_inspect_tells_what_the_artifact_says_and_needs_no_key(artifact: Path) -> None:
    process = clef_agent("inspect", str(artifact))
    found = json.loads(clef_agent("inspect", "--json", str(artifact)).stdout)

    lines = process.stdout.decode().splitlines()
    assert process.returncode == 0
    assert {"identity: api-gateway", "environment: production", "revoked: no"} <= set(lines)
    assert (found["identity"], found["hashOk"], found["revoked"]) == ("api-gateway", True, False)


def test_inspect_cannot_be_made_to_steer_the_terminal(artifact: Path) -> None:
    document = {**json.loads(artifact.read_text()), "identity": "\x1b]0;gotcha\x07\nfaked: line"}
    artifact.write_text(json.dumps(document))

    output = clef_agent("inspect", str(artifact)).stdout.decode()

    assert "\x1b" not in output
    assert "\nfaked" not in output


# --- revoke -----------------------------------------------------------------------------------


def test_revoke_marks_in_place_and_agents_refuse_it(artifact: Path) -> None:
    before = json.loads(artifact.read_bytes())

    process = clef_agent("revoke", str(artifact))

    after = json.loads(artifact.read_bytes())
    assert process.returncode == 0
    assert after.pop("revokedAt") > before["packedAt"]
    assert after == before
    assert "refused: revoked: " in failure("verify", str(artifact))
    assert "revoked: at 20" in clef_agent("inspect", str(artifact)).stdout.decode()


def test_revoke_leaves_the_file_alone_when_there_is_an_output(
    artifact: Path, tmp_path: Path
) -> None:
    before = artifact.read_bytes()

    clef_agent("revoke", str(artifact), "--output", str(tmp_path / "revoked.json"))

    assert artifact.read_bytes() == before
    assert "revokedAt" in json.loads((tmp_path / "revoked.json").read_bytes())


def test_an_artifact_is_revoked_once(artifact: Path) -> None:
    clef_agent("revoke", str(artifact))
    before = artifact.read_bytes()

    process = clef_agent("revoke", str(artifact))

    assert (process.returncode, artifact.read_bytes()) == (0, before)
    assert b"was revoked already" in process.stderr


def test_what_is_no_artifact_is_not_rewritten(tmp_path: Path) -> None:
    other = tmp_path / "package.json"
    other.write_text('{"name": "left-pad"}')

    assert "not an artifact" in failure("revoke", str(other))
    assert other.read_text() == '{"name": "left-pad"}'


# --- the real age -----------------------------------------------------------------------------


@pytest.fixture
def age_key(tmp_path: Path) -> tuple[Path, str]:
    """A key file that age-keygen made, and its recipient."""
    if shutil.which("age") is None or shutil.which("age-keygen") is None:
        pytest.skip("age and age-keygen are not installed")
    path = tmp_path / "key.txt"
    subprocess.run(["age-keygen", "-o", str(path)], check=True, capture_output=True)
    public = subprocess.run(["age-keygen", "-y", str(path)], check=True, capture_output=True)
    return path, public.stdout.decode().strip()


def test_what_pack_makes_age_opens(age_key: tuple[Path, str]) -> None:
    path, recipient = age_key

    document = pack("--recipient", recipient, stdin=b"A=1")

    plaintext = subprocess.run(
        ["age", "-d", "-i", str(path)],
        input=decode_base64(document["ciphertext"]),
        check=True,
        capture_output=True,
    ).stdout
    assert json.loads(plaintext) == {"A": "1"}


def test_what_age_encrypts_an_agent_accepts(age_key: tuple[Path, str], artifact: Path) -> None:
    import hashlib

    path, recipient = age_key
    ciphertext = subprocess.run(
        ["age", "-r", recipient], input=b'{"app":{"A":"1"}}', check=True, capture_output=True
    ).stdout
    text = encode_base64(ciphertext)
    document = {
        **json.loads(artifact.read_bytes()),
        "ciphertext": text,
        "ciphertextHash": hashlib.sha256(text.encode()).hexdigest(),
    }
    artifact.write_text(json.dumps(document))

    process = clef_agent("verify", str(artifact), env={"CLEF_AGENT_AGE_KEY_FILE": str(path)})

    assert process.returncode == 0, process.stderr.decode()
    assert "payload: passed - 1 secret" in process.stdout.decode().splitlines()


def test_what_keygen_makes_age_keygen_understands(tmp_path: Path) -> None:
    if shutil.which("age-keygen") is None:
        pytest.skip("age-keygen is not installed")
    key = tmp_path / "key.txt"
    public = clef_agent("keygen", "--output", str(key)).stdout

    found = subprocess.run(["age-keygen", "-y", str(key)], check=True, capture_output=True).stdout

    assert found == public
