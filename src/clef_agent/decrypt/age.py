"""Opens age files with the identities that configuration names.

Source: https://github.com/C2SP/C2SP/blob/main/age.md, through pyrage
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from clef_agent.decrypt.secrets import Plaintext, overwrite_freed, zero
from clef_agent.errors import DecryptFailed
from clef_agent.keys import KeyMalformed, parse_age_identities

if TYPE_CHECKING:
    import pyrage

    from clef_agent.config import ReadFile

#: What a binary age file begins with. An armored one is not part of the artifact format.
_AGE_MAGIC = b"age-encryption.org/v1\n"


class AgeKeyring:
    """The age identities: those given inline, and those in a file, which may change on disk."""

    def __init__(self, inline: str | None, key_file: str | None, read_file: ReadFile) -> None:
        self._inline = parse_age_identities(inline) if inline else ()
        self._key_file = key_file
        self._read_file = read_file
        self._from_file: tuple[pyrage.x25519.Identity, ...] = ()
        self.reload()

    def reload(self) -> str | None:
        """Reads the key file anew; returns why it cannot be used, or None.

        A file that cannot be read, or holds no key, changes nothing: the keys of before may still
        open what is to come.
        """
        if self._key_file is None:
            return None
        try:
            text = self._read_file(self._key_file).decode("utf-8")
            self._from_file = parse_age_identities(text)
        except OSError as exc:
            return f"CLEF_AGENT_AGE_KEY_FILE cannot be read: {exc.strerror or type(exc).__name__}"
        except UnicodeDecodeError:
            return "CLEF_AGENT_AGE_KEY_FILE is not text"
        except KeyMalformed as exc:
            return f"CLEF_AGENT_AGE_KEY_FILE is malformed: {exc}"
        return None

    def open(self, ciphertext: bytes) -> Plaintext:
        """The plaintext of the binary age file ``ciphertext``.

        When no identity matches, the key file is read anew and tried once more: a key rotated on
        disk needs no restart.

        Raises:
            DecryptFailed: no identity matches, or the file is no sound age file.
        """
        if not ciphertext.startswith(_AGE_MAGIC):
            raise DecryptFailed("the ciphertext is not a binary age file")
        if not self._inline and self._key_file is None:
            raise DecryptFailed(
                "it is encrypted with age, and no age key is configured:"
                " set CLEF_AGENT_AGE_KEY_FILE or CLEF_AGENT_AGE_KEY"
            )
        try:
            return self._open(ciphertext)
        except DecryptFailed as exc:
            before = self._from_file
            problem = self.reload()
            if problem is not None:
                raise DecryptFailed(f"{exc}; {problem}") from None
            if not _same(before, self._from_file):
                return self._open(ciphertext)
            raise

    def _open(self, ciphertext: bytes) -> Plaintext:
        import pyrage

        opened = _Opened(len(ciphertext))
        try:
            # Not decrypt(), whose answer is a bytes object, which nobody can overwrite.
            identities = [*self._inline, *self._from_file]
            pyrage.decrypt_io(io.BytesIO(ciphertext), opened, identities)
            return opened.plaintext()
        except (pyrage.DecryptError, OSError, ValueError) as exc:  # OSError: a chunk's tag is wrong
            raise DecryptFailed(f"age cannot open it: {exc}") from None
        finally:
            opened.clear()


class _Opened:
    """What pyrage writes to: a buffer of ours, for at most ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self._buffer = bytearray(max_bytes)
        self._view = memoryview(self._buffer)
        self._end = self._last_chunk_bytes = 0

    def write(self, chunk: bytes) -> int:
        """Takes a ``chunk``, some kilobytes but for the last one."""
        begin, self._end = self._end, self._end + len(chunk)
        self._view[begin : self._end] = chunk
        self._last_chunk_bytes = len(chunk)
        return len(chunk)

    def flush(self) -> None:
        """Nothing: it is in the buffer already."""

    def plaintext(self) -> Plaintext:
        """What was written."""
        return Plaintext(self._view[: self._end])

    def clear(self) -> None:
        """Overwrites all of it, and what is left of the last chunk."""
        zero(self._buffer)
        overwrite_freed(self._last_chunk_bytes)


def _same(
    before: tuple[pyrage.x25519.Identity, ...], after: tuple[pyrage.x25519.Identity, ...]
) -> bool:
    # Identities do not compare; their public halves do.
    return [str(i.to_public()) for i in before] == [str(i.to_public()) for i in after]
