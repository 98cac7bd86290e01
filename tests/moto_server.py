"""moto's server: S3, KMS, IAM and STS over real HTTP, for real clients and real agents."""

from __future__ import annotations

import contextlib
import json
import logging
import urllib.request
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

REGION = "eu-west-1"
#: What everybody may use while permissions are not enforced.
KEY_ID, SECRET_KEY = "AKIAIOSFODNN7EXAMPLE", "wJalrXUtnFEMI-the-secret-of-the-tests"


@dataclass(frozen=True)
class Moto:
    """A running server. ``environment`` is what an agent needs to reach it, and nobody else."""

    url: str

    @property
    def environment(self) -> dict[str, str]:
        return aws_environment(
            AWS_ENDPOINT_URL=self.url, AWS_ACCESS_KEY_ID=KEY_ID, AWS_SECRET_ACCESS_KEY=SECRET_KEY
        )

    def client(self, service: str, region: str = REGION) -> Any:
        from botocore.config import Config
        from botocore.session import Session

        return Session().create_client(
            service,
            region_name=region,
            endpoint_url=self.url,
            aws_access_key_id=KEY_ID,
            aws_secret_access_key=SECRET_KEY,
            config=Config(s3={"addressing_style": "path"}),
        )

    def bucket(self, name: str, region: str = REGION) -> Any:
        """A new bucket; returns a client for it."""
        client = self.client("s3", region)
        where = {"LocationConstraint": region}
        client.create_bucket(
            Bucket=name, **({} if region == "us-east-1" else {"CreateBucketConfiguration": where})
        )
        return client

    @contextlib.contextmanager
    def enforcing(self, policy: Mapping[str, object]) -> Iterator[Role]:
        """A user with ``policy``; while the block runs, nobody may do what no policy allows."""
        iam = self.client("iam")
        iam.create_user(UserName="agent")
        key = iam.create_access_key(UserName="agent")["AccessKey"]
        role = Role(iam, {**policy}, key["AccessKeyId"], key["SecretAccessKey"])
        iam.create_user(UserName="root-of-the-tests")
        admin = iam.create_access_key(UserName="root-of-the-tests")["AccessKey"]
        everything = {"Effect": "Allow", "Action": "*", "Resource": "*"}
        iam.put_user_policy(
            UserName="root-of-the-tests",
            PolicyName="all",
            PolicyDocument=json.dumps({"Version": "2012-10-17", "Statement": everything}),
        )
        from botocore.session import Session

        role.iam = Session().create_client(
            "iam",
            region_name=REGION,
            endpoint_url=self.url,
            aws_access_key_id=admin["AccessKeyId"],
            aws_secret_access_key=admin["SecretAccessKey"],
        )
        role.allow()
        self._post("/moto-api/reset-auth", b"0")
        try:
            yield role
        finally:
            self._post("/moto-api/reset-auth", b"inf")

    def reset(self) -> None:
        self._post("/moto-api/reset", b"")

    def _post(self, path: str, body: bytes) -> None:
        request = urllib.request.Request(
            f"{self.url}{path}", data=body, headers={"Content-Type": "text/plain"}
        )
        with urllib.request.urlopen(request, timeout=30):
            pass


@dataclass
class Role:
    """Somebody whose permission can be given and taken away."""

    iam: Any
    policy: dict[str, object]
    key_id: str
    secret_key: str

    @property
    def environment(self) -> dict[str, str]:
        return {"AWS_ACCESS_KEY_ID": self.key_id, "AWS_SECRET_ACCESS_KEY": self.secret_key}

    def allow(self) -> None:
        self.iam.put_user_policy(
            UserName="agent", PolicyName="agent", PolicyDocument=json.dumps(self.policy)
        )

    def deny(self) -> None:
        self.iam.delete_user_policy(UserName="agent", PolicyName="agent")


def aws_environment(**more: str) -> dict[str, str]:
    """What keeps an agent from every AWS but the one of a test."""
    return {
        "AWS_REGION": REGION,
        "AWS_EC2_METADATA_DISABLED": "true",
        "AWS_CONFIG_FILE": "/dev/null",
        "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
        **more,
    }


@contextlib.contextmanager
def moto_server() -> Iterator[Moto]:
    """A server on a port of its own, and with nothing in it of the one before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # other people's deprecations
        from moto.server import ThreadedMotoServer

        logging.getLogger("werkzeug").setLevel(logging.ERROR)
        server = ThreadedMotoServer("127.0.0.1", 0)
        server.start()
        host, port = server.get_host_and_port()
    moto = Moto(f"http://{host}:{port}")
    try:
        moto.reset()  # what moto holds, it holds for the whole process
        yield moto
    finally:
        server.stop()
