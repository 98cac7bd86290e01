"""The token for a source, as configuration gives it or as a file has it now."""

from __future__ import annotations

from clef_agent.config import Credential, ReadFile
from clef_agent.errors import SourceDenied


def read_token(credential: Credential, read_file: ReadFile) -> str:
    """The token, without white space around it. Reads the file anew, and may block on it.

    Raises:
        SourceDenied: the file cannot be read, or holds no single line of printable text. The
            message names the file, and nothing of its content.
    """
    if credential.path is None:
        return (credential.value or "").strip()
    try:
        token = read_file(credential.path).decode("utf-8").strip()
    except OSError as exc:
        why = exc.strerror or type(exc).__name__
        raise SourceDenied(f"the token file {credential.path} cannot be read: {why}") from exc
    except UnicodeDecodeError:
        # The cause is dropped: it carries the file's content.
        raise SourceDenied(f"the token file {credential.path} is not text") from None
    if not token or not token.isprintable():
        raise SourceDenied(f"the token file {credential.path} holds no single line of text")
    return token
