"""Keys that a person gave, in an option, a file or the environment, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from clef_agent.cli.failure import Failure
from clef_agent.cli.files import read_file

if TYPE_CHECKING:
    from clef_agent.artifact.signing import Signer
    from clef_agent.decrypt.age import AgeKeyring
    from clef_agent.keys import VerifyKey


def given_signer(path: Path) -> Signer:
    """What signs with the private key in the file ``path``.

    Raises:
        Failure: the file cannot be read, or holds no such key.
    """
    from clef_agent.artifact.signing import load_signer
    from clef_agent.keys import KeyMalformed

    try:
        return load_signer(read_file(path))
    except KeyMalformed as exc:
        raise Failure(
            f"the signing key in {path} cannot be used: {exc}",
            "`clef-agent keygen --signing --output FILE` makes one.",
        ) from None


def given_verify_key(option: str | None, env: Mapping[str, str]) -> VerifyKey | None:
    """The key that ``option`` is or names a file of, else that of CLEF_AGENT_VERIFY_KEY.

    Raises:
        Failure: there is one, and it cannot be used.
    """
    from clef_agent.keys import KeyMalformed, parse_verify_key

    name, text = "--verify-key", option
    if option is None:
        name, text = "CLEF_AGENT_VERIFY_KEY", env.get("CLEF_AGENT_VERIFY_KEY")
    elif _is_file(option):
        name, text = option, read_file(Path(option)).decode("utf-8", "replace")
    if text is None:
        return None
    try:
        return parse_verify_key(text)
    except KeyMalformed as exc:
        raise Failure(
            f"the verify key in {name} cannot be used: {exc}",
            "It is the public half, as `clef-agent keygen --signing` prints it.",
        ) from None


def given_keyring(env: Mapping[str, str]) -> AgeKeyring | None:
    """The age keys that an agent with ``env`` would use; None where none is configured.

    Raises:
        Failure: there is one, and it cannot be used.
    """
    from clef_agent.decrypt.age import AgeKeyring

    inline, key_file = env.get("CLEF_AGENT_AGE_KEY"), env.get("CLEF_AGENT_AGE_KEY_FILE")
    if inline is not None:
        _check_identities("CLEF_AGENT_AGE_KEY", inline)
    if key_file is not None:
        # The keyring passes over a file that it cannot read, for a running agent's sake.
        text = read_file(Path(key_file)).decode("utf-8", "replace")
        _check_identities("CLEF_AGENT_AGE_KEY_FILE", text)
    if inline is None and key_file is None:
        return None
    return AgeKeyring(inline, key_file, lambda path: Path(path).read_bytes())


def _check_identities(name: str, text: str) -> None:
    from clef_agent.keys import KeyMalformed, parse_age_identities

    try:
        parse_age_identities(text)
    except KeyMalformed as exc:
        raise Failure(
            f"{name} is malformed: {exc}", "One AGE-SECRET-KEY-1... a line, # for comments."
        ) from None


def _is_file(text: str) -> bool:
    try:
        return Path(text).is_file()
    except (OSError, ValueError):
        return False  # a key is too long a name for a file, or has a NUL
