"""Commands for artifacts: ``pack``, ``inspect``, ``verify``, ``revoke``, ``keygen``.

No secret and no private key is ever an argument: every user of the machine can read those.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from clef_agent.cli.failure import Failure, printable
from clef_agent.cli.files import create_secret_file, read_file, replace_file
from clef_agent.cli.given_keys import given_keyring, given_signer, given_verify_key
from clef_agent.errors import ArtifactError

if TYPE_CHECKING:
    from clef_agent.artifact.pack import Packing, Payload, ToKeyService, ToRecipients
    from clef_agent.artifact.signing import Signer
    from clef_agent.cli.checks import Check

_TTL = re.compile(r"(?P<count>\d{1,9})(?P<unit>[smhdw]?)", re.ASCII)
_TTL_UNITS_S = {"": 1, "s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}
#: A hundred years; beyond it dates soon have five digits.
_MAX_TTL_S = 100 * 365 * 86_400

_Artifact = Annotated[Path, typer.Argument(metavar="FILE", help="A packed artifact.")]
_AsJson = Annotated[bool, typer.Option("--json", help="As JSON, for programs.")]


def _ttl_s(text: str) -> int:
    match = _TTL.fullmatch(text)
    ttl_s = int(match["count"]) * _TTL_UNITS_S[match["unit"]] if match else 0
    if not 0 < ttl_s <= _MAX_TTL_S:
        raise typer.BadParameter("it must be seconds, or a number with s, m, h, d or w, like 30d")
    return ttl_s


def pack(  # noqa: PLR0913, PLR0917 - each option is an argument, by its name
    identity: Annotated[str, typer.Option(help="Whom the secrets are for, like api-gateway.")],
    environment: Annotated[str, typer.Option(help="Where they are used, like production.")],
    file: Annotated[
        Path | None,
        typer.Argument(metavar="[FILE]", help="A .env or .json file; '-' is standard input."),
    ] = None,
    recipient: Annotated[
        list[str] | None,
        typer.Option(metavar="age1...", help="Who can open it: an age public key. Repeatable."),
    ] = None,
    kms: Annotated[
        Literal["aws", "gcp", "azure"] | None,
        typer.Option(help="Instead of --recipient: a key service that can open it."),
    ] = None,
    kms_key_id: Annotated[
        str | None,
        typer.Option(
            metavar="ID",
            help="Its key: an ARN, id or alias (aws), projects/.../cryptoKeys/NAME (gcp),"
            " https://VAULT/keys/NAME (azure).",
        ),
    ] = None,
    input_format: Annotated[
        Literal["env", "json"] | None,
        typer.Option("--format", help="The input's format, where its name does not tell."),
    ] = None,
    namespace: Annotated[
        str | None, typer.Option(help="Put a flat input, as a .env file is, into a namespace.")
    ] = None,
    signing_key_file: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Sign with this key: Ed25519 or ECDSA P-256, PKCS#8."),
    ] = None,
    signing_kms_key_id: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Sign with this key of AWS KMS, an ECC_NIST_P256 one."),
    ] = None,
    ttl: Annotated[
        int | None,
        typer.Option(parser=_ttl_s, metavar="TIME", help="Let it expire: 3600, 12h, 30d."),
    ] = None,
    output: Annotated[
        str | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Or s3://BUCKET/KEY; else standard output."
        ),
    ] = None,
) -> None:
    """Encrypt a .env or .json file into an artifact that an agent serves."""
    from clef_agent.artifact.pack import Packing
    from clef_agent.cli.destination import deliver
    from clef_agent.cli.payload import format_of, in_namespace, parse_source

    encryption = _encryption(recipient or [], kms, kms_key_id)
    signer = _signer(signing_key_file, signing_kms_key_id)
    path = None if file is None or str(file) == "-" else file
    data, where = (
        (_read_stdin(), "standard input") if path is None else (read_file(path), str(path))
    )
    payload = parse_source(data, where=where, form=input_format or format_of(path))
    if namespace is not None:
        payload = in_namespace(payload, namespace)
    now = time.time()
    packing = Packing(
        identity=identity,
        environment=environment,
        encryption=encryption,
        packed_at=now,
        expires_at=None if ttl is None else now + ttl,
        signer=signer,
    )
    deliver(_packed(payload, packing), output)


def inspect(file: _Artifact, as_json: _AsJson = False) -> None:
    """Show what an artifact says of itself. Needs no key, and decrypts nothing."""
    from clef_agent.cli.summary import summarise
    from clef_agent.cli.table import show

    summary = summarise(read_file(file), where=str(file), wall=time.time())
    if as_json:
        typer.echo(_json(summary.as_json()))
    else:
        show(str(file), summary.rows())


def verify(
    file: _Artifact,
    verify_key: Annotated[
        str | None,
        typer.Option(
            metavar="KEY",
            help="A public key, base64 DER or PEM, or a file with one."
            " Default: CLEF_AGENT_VERIFY_KEY.",
        ),
    ] = None,
    identity: Annotated[
        str | None,
        typer.Option(envvar="CLEF_AGENT_EXPECT_IDENTITY", help="Whom it must be for."),
    ] = None,
    environment: Annotated[
        str | None,
        typer.Option(envvar="CLEF_AGENT_EXPECT_ENVIRONMENT", help="Where it must be used."),
    ] = None,
    as_json: _AsJson = False,
) -> None:
    """Make the checks that an agent would, and exit with 1 if one fails.

    Decrypts too, without showing anything, where CLEF_AGENT_AGE_KEY or CLEF_AGENT_AGE_KEY_FILE
    is set.
    """
    from clef_agent.artifact.model import Expectation
    from clef_agent.artifact.verify import Policy
    from clef_agent.cli.checks import examine
    from clef_agent.cli.table import show

    policy = Policy(given_verify_key(verify_key, os.environ), Expectation(identity, environment))
    examination = examine(read_file(file), policy, given_keyring(os.environ), wall=time.time())
    failure = examination.failure
    if as_json:
        typer.echo(
            _json(
                {
                    "ok": failure is None,
                    "reason": None if failure is None else failure.reason,
                    "checks": [_check_as_json(check) for check in examination.checks],
                }
            )
        )
    else:
        from clef_agent.cli.table import Mood, Row

        moods: dict[str, Mood] = {"passed": "good", "failed": "bad", "not checked": "open"}
        show(
            str(file),
            [
                Row(check.name, check.detail, moods[check.result], check.result)
                for check in examination.checks
            ],
        )
    if failure is not None:
        raise Failure(f"{file} is refused: {failure.reason}: {failure}", failure.hint)


def revoke(
    file: _Artifact,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Instead of rewriting FILE in place."),
    ] = None,
) -> None:
    """Mark an artifact as revoked: agents that fetch it stop serving and forget what they hold."""
    from clef_agent.artifact.pack import revocation
    from clef_agent.cli.summary import artifact_document

    document = artifact_document(read_file(file), where=str(file))
    target = output or file
    revoked_at = document.get("revokedAt")
    if revoked_at is not None:
        if output is not None:
            replace_file(output, read_file(file))
        typer.echo(f"{file} was revoked already, at {printable(str(revoked_at))}", err=True)
        return
    replace_file(target, revocation(document, time.time()))
    typer.echo(f"revoked; upload {target} to where agents fetch it from", err=True)


def keygen(
    signing: Annotated[
        bool, typer.Option("--signing", help="An Ed25519 pair that signs, not one that encrypts.")
    ] = False,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="For the private key; never overwritten."
        ),
    ] = None,
) -> None:
    """Make a key pair: for age, or with --signing for signatures.

    The private key goes to --output, readable by its owner only, or to standard output.
    """
    from clef_agent.cli.key_pair import age_pair, signing_pair

    pair = signing_pair() if signing else age_pair(time.time())
    if output is None:
        typer.echo(pair.private.decode("ascii"), nl=False)
        if signing or not sys.stdout.isatty():
            typer.echo(f"{pair.public_label}: {pair.public}", err=True)
        return
    create_secret_file(output, pair.private)
    typer.echo(f"wrote the private key to {output}; {pair.public_label}:", err=True)
    typer.echo(pair.public)


def _encryption(
    recipients: list[str], kms: Literal["aws", "gcp", "azure"] | None, kms_key_id: str | None
) -> ToRecipients | ToKeyService:
    """Who can open it: holders of age keys, or whoever may ask a key service, and never both."""
    from clef_agent.artifact.pack import ToKeyService, ToRecipients
    from clef_agent.cli.key_service import KeyServiceWrapper

    if (kms is None) != (kms_key_id is None):
        raise typer.BadParameter("--kms and --kms-key-id go together")
    if bool(recipients) == (kms is not None):
        raise typer.BadParameter("it takes either --recipient, or --kms and --kms-key-id")
    if kms is None or kms_key_id is None:
        return ToRecipients(recipients)
    return ToKeyService(KeyServiceWrapper(kms, kms_key_id))


def _signer(key_file: Path | None, kms_key_id: str | None) -> Signer | None:
    if key_file is not None and kms_key_id is not None:
        raise typer.BadParameter("--signing-key-file and --signing-kms-key-id are both given")
    if kms_key_id is not None:
        from clef_agent.cli.key_service import AwsKmsSigner

        return AwsKmsSigner(kms_key_id)
    return None if key_file is None else given_signer(key_file)


def _packed(payload: Payload, packing: Packing) -> bytes:
    """The artifact, which has passed the reader's checks of its form already."""
    from clef_agent.artifact.model import MAX_ARTIFACT_BYTES
    from clef_agent.artifact.pack import RecipientMalformed
    from clef_agent.artifact.pack import pack as pack_payload
    from clef_agent.artifact.parse import parse

    try:
        artifact = pack_payload(payload, packing)
    except RecipientMalformed as exc:
        raise Failure(
            str(exc), "`clef-agent keygen` prints a pair; the recipient is its public key."
        ) from None
    except UnicodeEncodeError:
        # Bytes of an argument that are no UTF-8 come as lone surrogates (PEP 383).
        raise Failure("--identity or --environment is not UTF-8 text", "Correct it.") from None
    if len(artifact) > MAX_ARTIFACT_BYTES:
        raise Failure(
            f"the artifact would have {len(artifact):,} bytes, and none is read beyond"
            f" {MAX_ARTIFACT_BYTES:,}",
            "Pack fewer or smaller values.",
        )
    try:
        parse(artifact)
    except ArtifactError as exc:
        raise Failure(
            f"no agent would accept that artifact: {exc}", "Correct --identity or --environment."
        ) from None
    return artifact


# --- input and output -------------------------------------------------------------------------


def _read_stdin() -> bytes:
    if sys.stdin.isatty():
        typer.echo("reading secrets from standard input; end with Ctrl-D", err=True)
    return sys.stdin.buffer.read()


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2)


def _check_as_json(check: Check) -> dict[str, str]:
    return {"check": check.name, "result": check.result, "detail": check.detail}
