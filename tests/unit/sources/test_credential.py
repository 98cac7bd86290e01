import errno
import traceback

import pytest

from clef_agent.config import Credential
from clef_agent.errors import SourceDenied
from clef_agent.sources.credential import read_token


def no_file(_path: str) -> bytes:
    raise AssertionError("nothing is to be read")


def test_a_given_token_is_taken_without_reading_anything() -> None:
    assert read_token(Credential(value=" abc "), no_file) == "abc"


@pytest.mark.parametrize("content", [b"abc", b"abc\n", b" abc\r\n"])
def test_white_space_around_a_token_in_a_file_is_dropped(content: bytes) -> None:
    assert read_token(Credential(path="/run/token"), lambda _: content) == "abc"


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"  \n", b"hush-1\nhush-2\n", b"hush\x00x", b"hush\xff"]
)
def test_a_file_without_one_line_of_text_is_named_but_not_quoted(content: bytes) -> None:
    with pytest.raises(SourceDenied, match="/run/token") as caught:
        read_token(Credential(path="/run/token"), lambda _: content)
    assert "hush" not in "".join(traceback.format_exception(caught.value))


@pytest.mark.parametrize(
    "failure", [FileNotFoundError(errno.ENOENT, "No such file or directory"), OSError("broken")]
)
def test_a_file_that_cannot_be_read_is_named(failure: OSError) -> None:
    def read_file(_path: str) -> bytes:
        raise failure

    with pytest.raises(SourceDenied, match="/run/token cannot be read"):
        read_token(Credential(path="/run/token"), read_file)
