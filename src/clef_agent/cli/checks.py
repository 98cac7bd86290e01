"""The agent's own checks of an artifact, in its own order, as a list that a person can read.

The checks themselves are those of :mod:`clef_agent.artifact` and :mod:`clef_agent.decrypt`; here
stands only which of them an error belongs to, and which could not be made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, TypeAlias

from clef_agent.artifact import strict_json
from clef_agent.artifact.model import Artifact
from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, VerifiedArtifact, verify
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener
from clef_agent.errors import (
    ArtifactError,
    DecryptFailed,
    Expired,
    HashMismatch,
    IdentityMismatch,
    NotStrictJson,
    PayloadInvalid,
    Revoked,
    RolledBack,
    SignatureInvalid,
    SignatureMissing,
)

Result: TypeAlias = Literal["passed", "failed", "not checked"]

#: Each check, and what it says when it passes.
_CHECKS = {
    "json": "strict JSON, an object",
    "revocation": "not revoked",
    "fields": "version 1, with every field that it needs",
    "integrity": "ciphertextHash fits the ciphertext",
    "signature": "made by the owner of the verify key",
    "identity": "",
    "rollback": "",
    "expiry": "not expired",
    "unwrap": "",
    "decrypt": "the age key opens it",
    "payload": "",
}
_CHECK_OF: dict[type[ArtifactError], str] = {
    NotStrictJson: "json",
    Revoked: "revocation",
    HashMismatch: "integrity",
    SignatureMissing: "signature",
    SignatureInvalid: "signature",
    IdentityMismatch: "identity",
    RolledBack: "rollback",
    Expired: "expiry",
    DecryptFailed: "decrypt",
    PayloadInvalid: "payload",
}


@dataclass(frozen=True, slots=True)
class Check:
    """One check, how it went, and why or what it found."""

    name: str
    result: Result
    detail: str


@dataclass(frozen=True, slots=True)
class Examination:
    """All checks in their order; ``failure`` is what an agent would refuse the artifact with."""

    checks: tuple[Check, ...]
    failure: ArtifactError | None


def examine(data: bytes, policy: Policy, keyring: AgeKeyring | None, *, wall: float) -> Examination:
    """What an agent with ``policy`` and ``keyring`` would find at ``wall`` (seconds since 1970).

    Checks that it has nothing to make with are left open, and so are those after a failure.
    """
    skipped = _skipped(policy)
    passed = dict(_CHECKS)
    try:
        artifact = parse(data, policy.expected)
        passed["identity"] = f"for {artifact.identity} in {artifact.environment}"
        if artifact.expires_at is not None:
            passed["expiry"] = f"valid until {artifact.expires_at.text}"
        verified = verify(artifact, policy, wall=wall)
        skipped |= _skipped_decryption(artifact, keyring)
        if keyring is not None and artifact.envelope is None:
            passed["payload"] = _count(verified, keyring)
    except ArtifactError as failure:
        return Examination(_listed(passed, skipped, _check_of(failure, data), failure), failure)
    return Examination(_listed(passed, skipped, None, None), None)


def _listed(
    passed: Mapping[str, str],
    skipped: Mapping[str, str],
    failed_at: str | None,
    failure: ArtifactError | None,
) -> tuple[Check, ...]:
    checks: list[Check] = []
    reached = True
    for name, detail in passed.items():
        if name == failed_at and failure is not None:
            checks.append(Check(name, "failed", f"{failure.reason}: {failure}"))
            reached = False
        elif name in skipped or not reached:
            checks.append(Check(name, "not checked", skipped[name] if reached else "not reached"))
        else:
            checks.append(Check(name, "passed", detail))
    return tuple(checks)


def _check_of(failure: ArtifactError, data: bytes) -> str:
    name = _CHECK_OF.get(type(failure), "fields")
    if name != "fields":
        return name
    # A wrong type is found in two places: the document itself, and its fields.
    try:
        is_object = isinstance(strict_json.loads(data), dict)
    except strict_json.LoneSurrogate:
        is_object = False
    return "fields" if is_object else "json"


def _skipped(policy: Policy) -> dict[str, str]:
    skipped = {"rollback": "only a running agent knows what it accepted before"}
    if policy.verify_key is None:
        skipped["signature"] = "no verify key (--verify-key, CLEF_AGENT_VERIFY_KEY)"
    if policy.expected.identity is None and policy.expected.environment is None:
        skipped["identity"] = "nothing to compare with (--identity, --environment)"
    return skipped


def _skipped_decryption(artifact: Artifact, keyring: AgeKeyring | None) -> dict[str, str]:
    if artifact.envelope is not None:
        why = f"its data key is wrapped by the key service {artifact.envelope.provider}"
        return {"unwrap": why, "decrypt": "needs the data key", "payload": "needs the data key"}
    skipped = {"unwrap": "encrypted with age, without a key service"}
    if keyring is None:
        why = "no age key (CLEF_AGENT_AGE_KEY_FILE, CLEF_AGENT_AGE_KEY)"
        skipped |= {"decrypt": why, "payload": "needs an age key"}
    return skipped


def _count(verified: VerifiedArtifact, keyring: AgeKeyring) -> str:
    secrets = asyncio.run(Decryptor(keyring, EnvelopeOpener({})).decrypt(verified))
    return f"{len(secrets)} secret{'' if len(secrets) == 1 else 's'}"
