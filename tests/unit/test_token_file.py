"""The token's file: where it is written, and which files are never believed."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from clef_agent.errors import TokenUnusable
from clef_agent.token_file import ServedToken, discard, find_token, served_token, token_paths

PORT = 7779


@pytest.fixture(autouse=True)
def owner_may_write() -> Iterator[None]:
    """Whatever umask the tests run under, what they make is as they say."""
    before = os.umask(0o022)
    yield
    os.umask(before)


@pytest.fixture
def absent(tmp_path: Path) -> str:
    """A place below a directory that does not exist, and so can never be had."""
    return str(tmp_path / "absent" / "clef-agent")


@pytest.fixture
def env(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "xdg").mkdir(mode=0o700)
    (tmp_path / "tmp").mkdir()
    return {"XDG_RUNTIME_DIR": str(tmp_path / "xdg"), "TMPDIR": str(tmp_path / "tmp")}


def served(env: dict[str, str], absent: str, **given: str) -> ServedToken:
    return served_token(
        value=given.get("value"),
        token_file=given.get("token_file"),
        port=PORT,
        env=env,
        system_place=absent,
    )


def mode_of(path: str | Path) -> int:
    return stat.S_IMODE(os.lstat(path).st_mode)


# --- configured -------------------------------------------------------------------------------


def test_a_given_value_is_served_and_written_nowhere(
    env: dict[str, str], absent: str, tmp_path: Path
) -> None:
    token = served(env, absent, value="given", token_file=str(tmp_path / "token"))

    assert (token.value, token.path, token.origin) == ("given", None, "variable")
    assert not (tmp_path / "token").exists()


@pytest.mark.parametrize(
    ("content", "token"),
    [
        (b"one", "one"),
        (b"one\n", "one"),
        (b"one\r\n", "one"),
        ("schlüssel\n".encode(), "schlüssel"),
        (b"two words", "two words"),
    ],
)
def test_a_token_file_is_read_without_its_trailing_newline(
    env: dict[str, str], absent: str, tmp_path: Path, content: bytes, token: str
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)

    assert served(env, absent, token_file=str(path)) == ServedToken(token, str(path), "file")
    assert find_token(env={**env, "CLEF_AGENT_TOKEN_FILE": str(path)}, port=PORT) == token


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"a\n\n", b"a\nb", b"a\r", b"a\tb", b"a\0b", b" a", b"a ", b"\xff", b"a" * 20_000],
)
def test_a_token_file_without_a_usable_token_is_an_error_that_names_it_and_not_its_content(
    env: dict[str, str], absent: str, tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "token"
    path.write_bytes(content)

    with pytest.raises(TokenUnusable, match=str(path)) as raised:
        served(env, absent, token_file=str(path))
    assert "aaa" not in str(raised.value)
    with pytest.raises(TokenUnusable, match=str(path)):
        find_token(env={**env, "CLEF_AGENT_TOKEN_FILE": str(path)}, port=PORT)


def test_a_token_file_that_cannot_be_read_is_an_error_and_not_a_reason_to_generate(
    env: dict[str, str], absent: str, tmp_path: Path
) -> None:
    with pytest.raises(TokenUnusable, match="cannot be read"):
        served(env, absent, token_file=str(tmp_path))


def test_a_token_file_may_be_a_symlink_as_kubernetes_mounts_it(
    env: dict[str, str], absent: str, tmp_path: Path
) -> None:
    (tmp_path / "..data").mkdir()
    (tmp_path / "..data" / "token").write_text("mounted\n")
    (tmp_path / "token").symlink_to(tmp_path / "..data" / "token")

    assert served(env, absent, token_file=str(tmp_path / "token")).value == "mounted"


def test_a_token_file_may_be_one_that_the_group_reads_as_systemd_hands_out_credentials(
    env: dict[str, str], absent: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"
    path.write_text("credential\n")
    path.chmod(0o440)
    tmp_path.chmod(0o500)

    assert served(env, absent, token_file=str(path)).value == "credential"
    assert find_token(env={**env, "CLEF_AGENT_TOKEN_FILE": str(path)}, port=PORT) == "credential"
    tmp_path.chmod(0o700)


def test_a_token_file_that_does_not_exist_yet_receives_the_generated_token(
    env: dict[str, str], absent: str, tmp_path: Path
) -> None:
    path = tmp_path / "token"

    token = served(env, absent, token_file=str(path))

    assert (token.path, token.origin) == (str(path), "generated")
    assert path.read_text() == token.value + "\n"
    assert mode_of(path) == 0o600
    assert served(env, absent, token_file=str(path)) == ServedToken(token.value, str(path), "file")


def test_a_token_file_that_cannot_be_written_leaves_the_token_where_clients_look_next(
    env: dict[str, str], absent: str
) -> None:
    token = served(env, absent, token_file=f"{absent}/token")

    assert token.origin == "generated"
    assert token.path in token_paths(env, PORT, absent)
    assert find_token(env=env, port=PORT, system_place=absent) == token.value


# case 25
@pytest.mark.parametrize("value", ["", " ", "a\nb"])
def test_an_unusable_token_variable_is_an_error_for_clients_too(
    env: dict[str, str], value: str
) -> None:
    with pytest.raises(TokenUnusable, match="CLEF_AGENT_TOKEN "):
        find_token(env={**env, "CLEF_AGENT_TOKEN": value}, port=PORT)


def test_the_token_does_not_print() -> None:
    assert "very-secret" not in repr(ServedToken("very-secret", None, "variable"))


# --- generated: case 25 -----------------------------------------------------------------------


def test_a_generated_token_is_new_each_time_and_found_by_a_client_beside_the_agent(
    env: dict[str, str], absent: str
) -> None:
    first = served(env, absent)
    second = served(env, absent)

    assert len(bytes.fromhex(first.value)) == 32
    assert first.value != second.value
    assert find_token(env=env, port=PORT, system_place=absent) == second.value
    assert find_token(env=env, port=PORT + 1, system_place=absent) is None


def test_directory_and_file_are_readable_by_their_owner_only(
    env: dict[str, str], absent: str
) -> None:
    before = os.umask(0)
    try:
        token = served(env, absent)
    finally:
        os.umask(before)

    assert token.path is not None
    assert mode_of(token.path) == 0o600
    assert mode_of(Path(token.path).parent) == 0o700
    assert [path.name for path in Path(token.path).parent.iterdir()] == [f"token-{PORT}"]


def test_the_places_are_tried_in_their_order(tmp_path: Path) -> None:
    env = {"RUNTIME_DIRECTORY": "/run/a:/run/b", "XDG_RUNTIME_DIR": "/run/user/7", "TMPDIR": "/t"}

    assert token_paths(env, 80) == (
        "/run/a/token-80",
        "/run/user/7/clef-agent/token-80",
        "/run/clef-agent/token-80",
        f"/t/clef-agent-{os.geteuid()}/token-80",
    )
    assert token_paths({}, 80)[-1] == f"/tmp/clef-agent-{os.geteuid()}/token-80"


def test_a_relative_place_is_passed_over() -> None:
    env = {"RUNTIME_DIRECTORY": "run", "XDG_RUNTIME_DIR": "user", "TMPDIR": "t"}

    assert token_paths(env, 80) == ("/run/clef-agent/token-80",)


def test_the_next_place_is_taken_when_one_cannot_be_had(tmp_path: Path) -> None:
    (tmp_path / "xdg").mkdir()
    (tmp_path / "xdg" / "clef-agent").write_text("a file where a directory should be")
    env = {
        "RUNTIME_DIRECTORY": str(tmp_path / "absent" / "deeper"),
        "XDG_RUNTIME_DIR": str(tmp_path / "xdg"),
        "TMPDIR": str(tmp_path / "absent"),
    }
    system_place = tmp_path / "system"

    token = served(env, str(system_place))

    assert token.path == str(system_place / f"token-{PORT}")
    assert find_token(env=env, port=PORT, system_place=str(system_place)) == token.value


def test_without_any_place_the_token_has_no_path(tmp_path: Path, absent: str) -> None:
    assert served({"TMPDIR": str(tmp_path / "absent")}, absent).path is None


# --- planted ----------------------------------------------------------------------------------


@pytest.fixture
def place(env: dict[str, str], tmp_path: Path) -> Path:
    """The only place that ``env`` leaves, as an agent has made it."""
    del env["XDG_RUNTIME_DIR"]
    place = tmp_path / "tmp" / f"clef-agent-{os.geteuid()}"
    place.mkdir(mode=0o700)
    return place


def plant(path: Path, mode: int = 0o600) -> None:
    path.write_text("planted\n")
    path.chmod(mode)


def test_a_sound_file_is_read(env: dict[str, str], absent: str, place: Path) -> None:
    plant(place / f"token-{PORT}")

    assert find_token(env=env, port=PORT, system_place=absent) == "planted"


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o610])
def test_a_file_that_others_have_a_right_to_is_never_read(
    env: dict[str, str], absent: str, place: Path, mode: int
) -> None:
    plant(place / f"token-{PORT}", mode)

    assert find_token(env=env, port=PORT, system_place=absent) is None


@pytest.mark.parametrize("mode", [0o750, 0o705, 0o720, 0o702, 0o1777])
def test_a_directory_that_others_have_a_right_to_is_neither_read_nor_written(
    env: dict[str, str], absent: str, place: Path, mode: int
) -> None:
    plant(place / f"token-{PORT}")
    place.chmod(mode)

    assert find_token(env=env, port=PORT, system_place=absent) is None
    assert served(env, absent).path is None
    assert (place / f"token-{PORT}").read_text() == "planted\n"


def test_a_file_behind_a_symlink_is_never_read_and_the_symlink_is_replaced_by_the_writer(
    env: dict[str, str], absent: str, place: Path, tmp_path: Path
) -> None:
    target = tmp_path / "target"
    plant(target)
    link = place / f"token-{PORT}"
    link.symlink_to(target)

    assert find_token(env=env, port=PORT, system_place=absent) is None
    token = served(env, absent)

    assert target.read_text() == "planted\n"
    assert not link.is_symlink()
    assert link.read_text() == token.value + "\n"


def test_a_directory_behind_a_symlink_is_neither_read_nor_written(
    env: dict[str, str], absent: str, place: Path, tmp_path: Path
) -> None:
    elsewhere = tmp_path / "elsewhere"
    place.rename(elsewhere)
    place.symlink_to(elsewhere)
    plant(elsewhere / f"token-{PORT}")

    assert find_token(env=env, port=PORT, system_place=absent) is None
    assert served(env, absent).path is None
    assert (elsewhere / f"token-{PORT}").read_text() == "planted\n"


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give files to another user")
@pytest.mark.parametrize("part", ["directory", "file"])
def test_what_belongs_to_another_user_is_never_read(
    env: dict[str, str], absent: str, place: Path, part: str
) -> None:
    plant(place / f"token-{PORT}")
    os.chown(place if part == "directory" else place / f"token-{PORT}", 12345, -1)

    assert find_token(env=env, port=PORT, system_place=absent) is None


def test_a_fifo_in_the_files_place_does_not_hold_the_reader(
    env: dict[str, str], absent: str, place: Path
) -> None:
    os.mkfifo(place / f"token-{PORT}", 0o600)

    assert find_token(env=env, port=PORT, system_place=absent) is None


def test_an_unusable_generated_file_is_passed_over(
    env: dict[str, str], absent: str, place: Path
) -> None:
    (place / f"token-{PORT}").touch(mode=0o600)

    assert find_token(env=env, port=PORT, system_place=absent) is None


def test_a_token_made_for_one_run_leaves_no_file_behind(env: dict[str, str], absent: str) -> None:
    token = served(env, absent)
    assert token.path is not None
    discard(token)
    assert not Path(token.path).exists()
    discard(token)  # nothing there any more is fine, too


def test_a_file_that_another_run_has_taken_over_is_not_removed(
    env: dict[str, str], absent: str
) -> None:
    old, new = served(env, absent), served(env, absent)
    discard(old)
    assert find_token(env=env, port=PORT, system_place=absent) == new.value


def test_a_configured_file_keeps_the_token_that_was_generated_into_it(
    env: dict[str, str], absent: str, tmp_path: Path
) -> None:
    token = served(env, absent, token_file=str(tmp_path / "token"))
    discard(token)
    assert (tmp_path / "token").exists()
