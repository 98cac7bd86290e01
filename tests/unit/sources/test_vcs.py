"""What is asked of each repository service, and what its answers mean; without a network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import parse_qs, unquote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.config import Credential, VcsSourceConfig
from clef_agent.errors import (
    SourceBusy,
    SourceDenied,
    SourceError,
    SourceMissing,
    SourceUnusable,
)
from clef_agent.sources.base import Fetched, NotModified
from clef_agent.sources.bitbucket import BitbucketCloud
from clef_agent.sources.bitbucket_server import BitbucketServer
from clef_agent.sources.github import GitHub
from clef_agent.sources.gitlab import GitLab
from clef_agent.sources.vcs import Host, RepositoryFile
from clef_agent.web.exchange import Answer, Request

WALL = 1_800_000_000.0
BODY = b'{"version":1}'
COMMIT = "5b1f1ee2b1c1a7c9a8fd32d2d9a1c0f6d7f0c111"
HOSTS: dict[str, Callable[[VcsSourceConfig], Host]] = {
    "github": GitHub.of,
    "gitlab": GitLab.of,
    "bitbucket": BitbucketCloud.of,
    "bitbucket-server": BitbucketServer.of,
}
every_host = pytest.mark.parametrize("provider", HOSTS)


def configured(provider: str, **fields: Any) -> VcsSourceConfig:
    return VcsSourceConfig(
        **{
            "provider": provider,
            "repo": "org/repo",
            "token": Credential("token"),
            "identity": "api",
            "environment": "production",
            "api_url": "https://git.example" if provider == "bitbucket-server" else None,
            **fields,
        }
    )


class Talk:
    """A conversation, driven by hand."""

    def __init__(
        self, config: VcsSourceConfig, *, token: str = "token", previous: str | None = None
    ) -> None:
        host = HOSTS[config.provider](config)
        self._talk = host.conversation(RepositoryFile.of(config), previous, token, WALL)
        self.request: Request = next(self._talk)
        self.result: Fetched | NotModified | None = None

    @property
    def target(self) -> str:
        return self.request.address.origin + self.request.address.target

    def hears(
        self, status: int, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> Fetched | NotModified | None:
        """Answers the last request; returns the result when that was the last."""
        try:
            self.request = self._talk.send(Answer(self.request, status, headers or {}, body))
        except StopIteration as end:
            self.result = end.value
        return self.result


# --- where it asks --------------------------------------------------------------------------------


# case 20
@pytest.mark.parametrize(
    ("provider", "fields", "target"),
    [
        (
            "github",
            {},
            "https://api.github.com/repos/org/repo/contents/.clef/packed/api/production.age.json",
        ),
        (
            "github",
            {"api_url": "https://ghe.example/api/v3", "ref": "a/b c#d"},
            (
                "https://ghe.example/api/v3/repos/org/repo/contents/.clef/packed/api/"
                "production.age.json?ref=a%2Fb%20c%23d"
            ),
        ),
        (
            "github",
            {"api_url": "https://api.acme.ghe.com/"},
            "https://api.acme.ghe.com/repos/org/repo/contents/.clef/packed/api/production.age.json",
        ),
        (
            "gitlab",
            {"repo": "group/sub/repo"},
            (
                "https://gitlab.com/api/v4/projects/group%2Fsub%2Frepo/repository/files/"
                ".clef%2Fpacked%2Fapi%2Fproduction.age.json/raw?ref=HEAD"
            ),
        ),
        (
            "gitlab",
            {"api_url": "https://host.example/gitlab", "repo": "4711", "ref": "v1"},
            (
                "https://host.example/gitlab/api/v4/projects/4711/repository/files/"
                ".clef%2Fpacked%2Fapi%2Fproduction.age.json/raw?ref=v1"
            ),
        ),
        (
            "gitlab",
            {"api_url": "https://host.example/gitlab/api/v4/"},
            (
                "https://host.example/gitlab/api/v4/projects/org%2Frepo/repository/files/"
                ".clef%2Fpacked%2Fapi%2Fproduction.age.json/raw?ref=HEAD"
            ),
        ),
        (
            "bitbucket",
            {},
            (
                "https://api.bitbucket.org/2.0/repositories/org/repo/src/HEAD/.clef/packed/api/"
                "production.age.json"
            ),
        ),
        (
            "bitbucket",
            {"ref": "release/1 x"},
            "https://api.bitbucket.org/2.0/repositories/org/repo/refs/branches/release/1%20x",
        ),
        (
            "bitbucket-server",
            {"api_url": "https://git.example/bitbucket", "repo": "~me/repo", "ref": "a/b"},
            (
                "https://git.example/bitbucket/rest/api/1.0/projects/~me/repos/repo/raw/.clef/packed/"
                "api/production.age.json?at=a%2Fb"
            ),
        ),
        (
            "bitbucket-server",
            {"api_url": "https://git.example/rest/api/latest"},
            (
                "https://git.example/rest/api/latest/projects/org/repos/repo/raw/.clef/packed/api/"
                "production.age.json"
            ),
        ),
    ],
)
def test_each_service_is_asked_where_it_answers(
    provider: str, fields: dict[str, str], target: str
) -> None:
    assert Talk(configured(provider, **fields)).target == target


names = st.text(
    st.characters(exclude_categories=["Cs", "Cc"], exclude_characters="/"), min_size=1
).filter(lambda name: name not in (".", ".."))


@every_host
@given(identity=names, environment=names, ref=names)
def test_whatever_the_names_the_path_decoded_once_is_what_was_meant(
    provider: str, identity: str, environment: str, ref: str
) -> None:
    config = configured(provider, identity=identity, environment=environment, ref=ref)
    path, _, query = Talk(config).request.address.target.partition("?")
    assert path.isascii()
    assert f".clef/packed/{identity}/{environment}.age.json" in unquote(path)
    asked = parse_qs(query, keep_blank_values=True)
    if provider == "bitbucket":
        assert f"/src/{ref}/.clef" in unquote(path)
    else:
        assert asked["at" if provider == "bitbucket-server" else "ref"] == [ref]


@every_host
def test_the_token_is_a_credential_and_no_header_that_travels(provider: str) -> None:
    request = Talk(configured(provider), token="hush").request
    assert any("hush" in value for value in request.credentials.values())
    assert not any("hush" in value for value in request.headers.values())
    assert "hush" not in repr(request)


@pytest.mark.parametrize(
    ("token", "credentials"),
    [
        ("glpat-abc", {"private-token": "glpat-abc"}),
        ("old20characterstoken", {"private-token": "old20characterstoken"}),
        ("glcbt-64_abc", {"job-token": "glcbt-64_abc"}),
        ("0f" * 32, {"authorization": "Bearer " + "0f" * 32}),
    ],
)
def test_gitlab_tokens_go_in_the_header_of_their_kind(
    token: str, credentials: dict[str, str]
) -> None:
    assert Talk(configured("gitlab"), token=token).request.credentials == credentials


def test_a_bitbucket_token_with_an_address_is_basic() -> None:
    request = Talk(configured("bitbucket"), token="a@b.c:tok").request
    assert request.credentials == {"authorization": "Basic YUBiLmM6dG9r"}


# --- what comes back ------------------------------------------------------------------------------


@pytest.mark.parametrize("provider", ["github", "bitbucket", "bitbucket-server"])
def test_what_has_not_changed_by_its_etag_is_not_fetched(provider: str) -> None:
    first = Talk(configured(provider)).hears(200, BODY, {"etag": 'W/"a b"'})
    assert isinstance(first, Fetched)
    assert first.validator is not None
    second = Talk(configured(provider), previous=first.validator.token)
    assert second.request.wire_headers()["if-none-match"] == 'W/"a b"'
    assert isinstance(second.hears(304), NotModified)


def test_gitlab_says_by_head_whether_the_blob_is_another() -> None:
    first = Talk(configured("gitlab")).hears(200, BODY, {"x-gitlab-blob-id": "b1"})
    assert isinstance(first, Fetched)
    assert first.validator is not None
    same = Talk(configured("gitlab"), previous=first.validator.token)
    assert same.request.method == "HEAD"
    assert isinstance(same.hears(200, b"", {"x-gitlab-blob-id": "b1"}), NotModified)
    other = Talk(configured("gitlab"), previous=first.validator.token)
    other.hears(200, b"", {"x-gitlab-blob-id": "b2"})
    assert other.request.method == "GET"
    found = other.hears(200, BODY, {"x-gitlab-blob-id": "b2"})
    assert isinstance(found, Fetched)


@pytest.mark.parametrize("status", [405, 501])
def test_a_gateway_before_gitlab_that_knows_no_head_costs_a_download(status: int) -> None:
    talk = Talk(configured("gitlab"), previous="b1")
    talk.hears(status)
    assert talk.request.method == "GET"
    assert isinstance(talk.hears(200, BODY, {"x-gitlab-blob-id": "b1"}), Fetched)


def test_a_gitlab_job_token_only_gets() -> None:
    talk = Talk(configured("gitlab"), token="glcbt-1", previous="b1")
    assert talk.request.method == "GET"


def test_a_bitbucket_ref_that_leads_where_it_led_needs_one_request() -> None:
    config = configured("bitbucket", ref="release/1")
    target = b'{"target":{"hash":"%s"}}' % COMMIT.encode()
    talk = Talk(config)
    talk.hears(200, target)
    assert f"/src/{COMMIT}/" in talk.target
    first = talk.hears(200, BODY, {"etag": '"1"'})
    assert isinstance(first, Fetched)
    assert first.validator is not None
    again = Talk(config, previous=first.validator.token)
    assert isinstance(again.hears(200, target), NotModified)


def test_a_bitbucket_tag_with_a_slash_is_found_after_the_branches() -> None:
    talk = Talk(configured("bitbucket", ref="release/1"))
    talk.hears(404)
    assert "/refs/tags/release/1" in talk.target


@pytest.mark.parametrize("body", [b"", b"[]", b"{}", b'{"target":{"hash":"../../x"}}', b"[" * 9999])
def test_a_bitbucket_ref_that_leads_nowhere_is_an_error(body: bytes) -> None:
    talk = Talk(configured("bitbucket", ref="release/1"))
    with pytest.raises(SourceUnusable):
        talk.hears(200, body)


# case 21
@pytest.mark.parametrize("status", [301, 302])
def test_a_redirect_of_a_bitbucket_file_is_git_lfs(status: int) -> None:
    talk = Talk(configured("bitbucket"))
    assert not talk.request.follows
    with pytest.raises(SourceUnusable, match="Git LFS"):
        talk.hears(status, b"", {"location": "https://media.example/x"})


@every_host
def test_not_modified_without_a_condition_is_an_error(provider: str) -> None:
    with pytest.raises(SourceUnusable):
        Talk(configured(provider)).hears(304)


@every_host
@pytest.mark.parametrize(
    ("status", "headers", "kind", "retry_after_s"),
    [
        (401, {}, SourceDenied, None),
        (403, {}, SourceDenied, None),
        (403, {"x-ratelimit-remaining": "17"}, SourceDenied, None),
        (403, {"retry-after": "30"}, SourceBusy, 30),
        (
            403,
            {"x-ratelimit-remaining": "0", "x-ratelimit-reset": str(int(WALL) + 90)},
            SourceBusy,
            90,
        ),
        (
            429,
            {"ratelimit-remaining": "0", "ratelimit-reset": str(int(WALL) + 50)},
            SourceBusy,
            50,
        ),
        (429, {"retry-after": "12"}, SourceBusy, 12),
        (404, {}, SourceMissing, None),
        (500, {}, SourceBusy, None),
        (502, {"retry-after": "5"}, SourceBusy, 5),
        (400, {}, SourceUnusable, None),
    ],
)
def test_a_rate_limit_is_told_apart_from_a_refusal(
    provider: str,
    status: int,
    headers: dict[str, str],
    kind: type[SourceError],
    retry_after_s: float | None,
) -> None:
    with pytest.raises(kind) as caught:
        Talk(configured(provider)).hears(status, b"", headers)
    assert type(caught.value) is kind
    assert caught.value.retry_after_s == retry_after_s


@pytest.mark.parametrize(
    ("status", "body"),
    [(403, b'{"message":"You have exceeded a secondary rate limit."}'), (429, b"")],
)
def test_a_secondary_limit_of_github_without_headers_is_a_minute(status: int, body: bytes) -> None:
    with pytest.raises(SourceBusy) as caught:
        Talk(configured("github")).hears(status, body)
    assert caught.value.retry_after_s == 60


# case 21
@every_host
@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:x\nsize 1\n", "Git LFS"),
        (b'[{"type":"dir","path":"x"}]', "directory"),
        (b'{"pagelen":10,"values":[]}', "directory"),
        (b'{"type":"symlink","target":"x","path":"y"}', "symbolic link"),
        (b'{"type":"submodule","path":"y"}', "submodule"),
        (b"../staging/production.age.json", "symbolic link"),
        (b"production.age.json", "symbolic link"),
    ],
)
def test_what_is_no_file_is_refused_by_its_name(provider: str, body: bytes, words: str) -> None:
    with pytest.raises(SourceUnusable, match=words):
        Talk(configured(provider)).hears(200, body)


@every_host
@pytest.mark.parametrize(
    "body",
    [
        BODY,
        b"",
        b"null",
        b"[]",
        b"[1,2]",
        b"\xff\xfe",
        b"not json",
        b'{"type":"symlink","ciphertext":"x"}',
        b'{"type":"symlink","revokedAt":"x"}',
        b'[{"type":' * 5000,
    ],
)
def test_whatever_else_it_is_the_artifacts_own_checks_decide(provider: str, body: bytes) -> None:
    found = Talk(configured(provider)).hears(200, body)
    assert isinstance(found, Fetched)
    assert found.data == body
