"""Places that hold an artifact, as strict as the real ones: they refuse what those refuse.

Each listens on loopback, counts what it was asked, and fails in the ways that a test asks for. The
rules come from the documentation that each class names.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import http.client
import time
from typing import Any, ClassVar
from urllib.parse import unquote, urlsplit

from fake_service import Asked, FakeService, Reply
from fakes import ENVIRONMENT, IDENTITY
from moto_server import Moto, aws_environment

PATH = f".clef/packed/{IDENTITY}/{ENVIRONMENT}.age.json"
#: A branch whose name has a slash, and characters that a URL encodes.
BRANCH = "release/2026 #1"
COMMIT = "5b1f1ee2b1c1a7c9a8fd32d2d9a1c0f6d7f0c111"


class Store(FakeService):
    """A server that holds ``data``."""

    name: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.data = b""

    def put(self, data: bytes) -> None:
        self.data = data

    @property
    def downloads(self) -> int:
        return sum(reply.status == 200 and bool(reply.body) for reply in self.answered)

    @property
    def not_modified(self) -> int:
        """Answers that say, without the content, that it is what the agent has."""
        return sum(reply.status == 304 for reply in self.answered)


def blob_id(data: bytes) -> str:
    """The name that git gives to ``data``."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()


class Forge(Store):
    """What repositories have in common. ``refs`` are all that there are, but for the default."""

    provider: ClassVar[str]
    repo: ClassVar[str]
    api: ClassVar[str]

    def __init__(self, ref: str | None = None) -> None:
        super().__init__()
        self.ref = ref

    @property
    def environment(self) -> dict[str, str]:
        return {
            "CLEF_AGENT_VCS_PROVIDER": self.provider,
            "CLEF_AGENT_VCS_REPO": self.repo,
            "CLEF_AGENT_VCS_TOKEN": self.token,
            "CLEF_AGENT_VCS_IDENTITY": IDENTITY,
            "CLEF_AGENT_VCS_ENVIRONMENT": ENVIRONMENT,
            "CLEF_AGENT_VCS_API_URL": f"{self.url}{self.api}",
            **({} if self.ref is None else {"CLEF_AGENT_VCS_REF": self.ref}),
        }

    def knows(self, ref: str | None) -> bool:
        return ref in (self.ref, COMMIT)


class GitHubStore(Forge):
    """An Enterprise Server, under its usual base path.

    Source: https://docs.github.com/en/rest/repos/contents#get-repository-content,
    https://docs.github.com/en/rest/using-the-rest-api/rate-limits-for-the-rest-api
    """

    name = provider = "github"
    repo = "org/repo.name"
    api = "/api/v3"

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return Reply.json(401, {"message": "Bad credentials"})
        if unquote(asked.path) != f"/api/v3/repos/org/repo.name/contents/{PATH}":
            return Reply.json(404, {"message": "Not Found"})
        if not self.knows(asked.query.get("ref")):
            return Reply.json(404, {"message": "No commit found for the ref"})
        if "x-github-api-version" not in asked.headers:
            return Reply.json(400, {"message": "name a version"})
        # The ETag differs from token to token.
        digest = hashlib.sha256(self.token.encode() + self.data).hexdigest()
        etag = f'W/"{digest}"'
        if asked.headers.get("if-none-match") == etag:
            return Reply(304, b"", {"ETag": etag})
        if asked.headers.get("accept") != "application/vnd.github.raw+json":
            small = len(self.data) <= 1_000_000
            content = base64.b64encode(self.data).decode() if small else ""
            return Reply.json(200, {"type": "file", "encoding": "none", "content": content})
        return Reply(
            200,
            self.data,
            {"ETag": etag, "Content-Type": "application/vnd.github.raw+json; charset=utf-8"},
        )

    def limit(self) -> Reply:
        reset = str(int(time.time()) + self.retry_after_s)
        return Reply.json(
            403,
            {"message": "API rate limit exceeded"},
            X_RateLimit_Remaining="0",
            X_RateLimit_Reset=reset,
        )


class GitLabStore(Forge):
    """A GitLab of one's own, under a relative URL.

    Source: https://docs.gitlab.com/api/repository_files/,
    https://docs.gitlab.com/ci/jobs/ci_job_token/
    """

    name = provider = "gitlab"
    repo = "group/sub/repo"
    api = "/gitlab"

    @property
    def not_modified(self) -> int:
        heads = zip(self.asked, self.answered, strict=True)
        return sum(asked.method == "HEAD" and reply.status == 200 for asked, reply in heads)

    @property
    def downloads(self) -> int:
        both = zip(self.asked, self.answered, strict=True)
        return sum(asked.method == "GET" and reply.status == 200 for asked, reply in both)

    def answer(self, asked: Asked) -> Reply:
        file = PATH.replace("/", "%2F")
        route = f"/gitlab/api/v4/projects/group%2Fsub%2Frepo/repository/files/{file}"
        is_raw = asked.path == f"{route}/raw"
        if asked.headers.get("job-token") == self.token:
            if not is_raw or asked.method != "GET":
                return Reply.json(403, {"message": "403 Forbidden"})
        elif asked.headers.get("private-token") != self.token:
            return Reply.json(401, {"message": "401 Unauthorized"})
        if not is_raw and asked.path != route:
            return Reply.json(404, {"message": "404 Project Not Found"})
        ref = asked.query.get("ref")
        if ref is None and not is_raw:
            return Reply.json(400, {"error": "ref is missing"})
        if not self.knows(None if ref == "HEAD" else ref):
            return Reply.json(404, {"message": "404 Commit Not Found"})
        about = {"X-Gitlab-Blob-Id": blob_id(self.data), "Cache-Control": "max-age=0, private"}
        if not is_raw:
            return Reply.json(200, {"content": base64.b64encode(self.data).decode()}, **about)
        return Reply(200, self.data, {**about, "Content-Type": "text/plain"})


class BitbucketCloudStore(Forge):
    """Bitbucket Cloud.

    Source: https://developer.atlassian.com/cloud/bitbucket/rest/api-group-source/
    """

    name = provider = "bitbucket"
    repo = "workspace/repo"
    api = ""

    def answer(self, asked: Asked) -> Reply:
        basic = "Basic " + base64.b64encode(self.token.encode()).decode()
        expected = basic if ":" in self.token else f"Bearer {self.token}"
        if asked.headers.get("authorization") != expected:
            return Reply.json(401, {"type": "error", "error": {"message": "Token is invalid"}})
        head, _, rest = asked.path.removeprefix("/2.0/repositories/workspace/repo/").partition("/")
        if head == "refs" and self.ref is not None:
            if unquote(rest) == f"branches/{self.ref}":
                return Reply.json(200, {"name": self.ref, "target": {"hash": COMMIT}})
            return Reply.json(404, {"type": "error", "error": {"message": "No such ref"}})
        commit, _, path = rest.partition("/")
        # A ref with a slash, encoded or not, is cut at it.
        known = {"HEAD"} if self.ref is None else {COMMIT, self.ref} - {BRANCH}
        if head != "src" or commit not in known or unquote(path) != PATH:
            return Reply.json(404, {"type": "error", "error": {"message": "No such file"}})
        if asked.query.get("format") == "meta":
            return Reply.json(200, {"path": PATH, "commit": {"hash": COMMIT}})
        etag = f'"{hashlib.md5(self.data).hexdigest()}"'
        if asked.headers.get("if-none-match") == etag:
            return Reply(304, b"", {"ETag": etag})
        return Reply(200, self.data, {"ETag": etag})


class BitbucketServerStore(Forge):
    """A Data Center under a context path.

    Source: https://developer.atlassian.com/server/bitbucket/rest/
    """

    name = provider = "bitbucket-server"
    repo = "PRJ/repo"
    api = "/bitbucket"

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return Reply.json(401, {"errors": [{"message": "Authentication failed"}]})
        route = f"/bitbucket/rest/api/1.0/projects/PRJ/repos/repo/raw/{PATH}"
        if unquote(asked.path) != route or not self.knows(asked.query.get("at")):
            return Reply.json(404, {"errors": [{"message": "The path does not exist"}]})
        etag = f'"{blob_id(self.data)}"'
        if asked.headers.get("if-none-match") == etag:
            return Reply(304, b"", {"ETag": etag})
        return Reply(200, self.data, {"ETag": etag, "Content-Type": "application/json"})


class S3Store(Store):
    """moto behind a door that can be closed.

    Source: https://docs.aws.amazon.com/AmazonS3/latest/API/ErrorResponses.html
    """

    name = "s3"
    bucket = "clef.artifacts"
    key = "packed/api production+1.json"

    def __init__(self, moto: Moto) -> None:
        super().__init__()
        self._moto = moto
        self._client: Any = moto.bucket(self.bucket)

    @property
    def environment(self) -> dict[str, str]:
        return aws_environment(
            CLEF_AGENT_SOURCE=f"s3://{self.bucket}/{self.key}",
            AWS_ENDPOINT_URL_S3=self.url,
            AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE",
            AWS_SECRET_ACCESS_KEY=self.token,
        )

    def put(self, data: bytes) -> None:
        self._client.put_object(Bucket=self.bucket, Key=self.key, Body=data)

    def answer(self, asked: Asked) -> Reply:
        where = urlsplit(self._moto.url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(asked.method, asked.target, headers=dict(asked.headers))
            response = connection.getresponse()
            headers = {k: v for k, v in response.getheaders() if k not in ("Connection", "Server")}
            return Reply(response.status, response.read(), headers)

    def refuse(self, asked: Asked) -> Reply:
        return self._error(403, "AccessDenied")

    def limit(self) -> Reply:
        return self._error(503, "SlowDown", **{"Retry-After": str(self.retry_after_s)})

    @staticmethod
    def _error(status: int, code: str, **headers: str) -> Reply:
        body = f"<Error><Code>{code}</Code><Message>{code}</Message></Error>"
        return Reply(status, body.encode(), {"Content-Type": "application/xml", **headers})
