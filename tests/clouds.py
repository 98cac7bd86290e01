"""Key services as strict as the real ones, and where their tokens come from.

The rules come from the documentation that each class names. Data keys are wrapped by being
remembered: ``wrapped`` maps what a service gave out to what it was given.
"""

from __future__ import annotations

import base64
import binascii
import json
import os
import time
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import parse_qs

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa, utils

from clef_agent.kms.gcp import crc32c
from fake_service import Asked, FakeService, Reply
from moto_server import aws_environment

ACCOUNT = "111122223333"


class Cloud(FakeService):
    """What the key services have in common."""

    provider: ClassVar[str]
    algorithm: ClassVar[str]

    def __init__(self) -> None:
        super().__init__()
        self.wrapped: dict[bytes, bytes] = {}

    @property
    def key_id(self) -> str:
        """What packing is told."""
        raise NotImplementedError

    def wrap(self, data_key: bytes) -> bytes:
        wrapped = b"wrapped:" + os.urandom(24)
        self.wrapped[wrapped] = data_key
        return wrapped

    @property
    def unwrapped(self) -> int:
        """How many data keys it has given out."""
        pairs = zip(self.asked, self.answered, strict=True)
        return sum(reply.status == 200 and self.is_unwrap(asked) for asked, reply in pairs)

    def is_unwrap(self, asked: Asked) -> bool:
        raise NotImplementedError


class FakeKms(Cloud):
    """AWS KMS, for what moto does otherwise: key states, error codes, DIGEST.

    Source: https://docs.aws.amazon.com/kms/latest/APIReference/API_Decrypt.html, API_Encrypt.html
    and API_Sign.html, the AWS JSON 1.1 protocol
    """

    provider = "aws"
    algorithm = "SYMMETRIC_DEFAULT"
    region = "eu-west-1"

    def __init__(self) -> None:
        super().__init__()
        self.signing_key = ec.generate_private_key(ec.SECP256R1())
        self.refusal = "AccessDeniedException"

    @property
    def arn(self) -> str:
        return f"arn:aws:kms:{self.region}:{ACCOUNT}:key/6b1f6f0e-1111-4222-8333-1d8cab17af1a"

    @property
    def key_id(self) -> str:
        return "alias/clef"

    @property
    def environment(self) -> dict[str, str]:
        return aws_environment(
            AWS_ENDPOINT_URL_KMS=self.url,
            AWS_ACCESS_KEY_ID="AKIAIOSFODNN7EXAMPLE",
            AWS_SECRET_ACCESS_KEY=self.token,
        )

    def is_unwrap(self, asked: Asked) -> bool:
        return asked.headers.get("x-amz-target") == "TrentService.Decrypt"

    def answer(self, asked: Asked) -> Reply:
        signed = asked.headers.get("authorization", "")
        if f"/{self.region}/kms/aws4_request" not in signed:
            return self._error("NotFoundException", "Invalid arn")
        request: dict[str, Any] = json.loads(asked.body)
        if request["KeyId"] not in (self.arn, self.key_id, self.arn.partition("key/")[2]):
            return self._error("NotFoundException", f"Key '{request['KeyId']}' does not exist")
        match asked.headers.get("x-amz-target"):
            case "TrentService.Encrypt":
                wrapped = self.wrap(base64.b64decode(request["Plaintext"], validate=True))
                found = {"CiphertextBlob": base64.b64encode(wrapped).decode(), "KeyId": self.arn}
            case "TrentService.Decrypt":
                wrapped = base64.b64decode(request["CiphertextBlob"], validate=True)
                if wrapped not in self.wrapped:
                    return self._error("InvalidCiphertextException", "")
                if request["EncryptionAlgorithm"] != self.algorithm:
                    return self._error("IncorrectKeyException", "")
                plaintext = base64.b64encode(self.wrapped[wrapped]).decode()
                found = {"Plaintext": plaintext, "KeyId": self.arn}
            case "TrentService.Sign":
                digest = base64.b64decode(request["Message"], validate=True)
                if request["MessageType"] != "DIGEST" or len(digest) != 32:
                    return self._error("ValidationException", "Digest is invalid length")
                if request["SigningAlgorithm"] != "ECDSA_SHA_256":
                    return self._error("InvalidKeyUsageException", "")
                scheme = ec.ECDSA(utils.Prehashed(hashes.SHA256()))
                signature = self.signing_key.sign(digest, scheme)
                found = {"Signature": base64.b64encode(signature).decode(), "KeyId": self.arn}
            case _:
                return self._error("UnknownOperationException", "")
        return Reply.json(200, found)

    def refuse(self, asked: Asked) -> Reply:
        return self._error(self.refusal, f"User: {self.token} is not authorized")

    def limit(self) -> Reply:
        return self._error("ThrottlingException", "Rate exceeded")

    @staticmethod
    def _error(code: str, message: str) -> Reply:
        return Reply.json(400, {"__type": code, "message": message})


class FakeGcp(Cloud):
    """Cloud KMS, and the token endpoint of a service account.

    Source: https://cloud.google.com/kms/docs/reference/rest/v1/projects.locations.keyRings.cryptoKeys,
    https://developers.google.com/identity/protocols/oauth2/service-account#httprest
    """

    provider = "gcp"
    algorithm = "GOOGLE_SYMMETRIC_ENCRYPTION"

    def __init__(self, directory: Path) -> None:
        super().__init__()
        self._account_file = directory / "service-account.json"
        self._key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        self.tokens_given = 0
        self.alters = 0

    @property
    def key_id(self) -> str:
        return "projects/p/locations/global/keyRings/r/cryptoKeys/k"

    @property
    def environment(self) -> dict[str, str]:
        account = {
            "type": "service_account",
            "client_email": "agent@p.iam.gserviceaccount.com",
            "private_key_id": "1",
            "private_key": self._key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            ).decode(),
            "token_uri": f"{self.url}/token",
            "project_id": "p",
        }
        self._account_file.write_text(json.dumps(account))
        return {
            "GOOGLE_APPLICATION_CREDENTIALS": str(self._account_file),
            "CLEF_AGENT_KMS_ENDPOINT": self.url,
        }

    def is_unwrap(self, asked: Asked) -> bool:
        return asked.path.endswith(":decrypt")

    def _reply(self, asked: Asked) -> Reply:
        # Tokens are another service's business: they are given while the key service is down.
        return self._token(asked) if asked.path == "/token" else super()._reply(asked)

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return self._error(401, "UNAUTHENTICATED")
        request: dict[str, Any] = json.loads(asked.body)
        if asked.path == f"/v1/{self.key_id}:decrypt":
            given, wanted = "ciphertext", "plaintext"
        elif asked.path == f"/v1/{self.key_id}:encrypt":
            given, wanted = "plaintext", "ciphertext"
        else:
            return self._error(404, "NOT_FOUND")
        try:
            data = base64.b64decode(request[given], validate=True)
        except binascii.Error:
            return self._error(400, "INVALID_ARGUMENT")
        checksum = request[f"{given}Crc32c"]
        if not isinstance(checksum, str) or int(checksum) != crc32c(data):
            return self._error(400, "INVALID_ARGUMENT")
        found = self.wrap(data) if given == "plaintext" else self.wrapped.get(data)
        if found is None:
            return self._error(400, "INVALID_ARGUMENT")
        wrong = 1 if self.alters > 0 else 0
        self.alters -= wrong
        return Reply.json(
            200,
            {
                wanted: base64.b64encode(found).decode(),
                f"{wanted}Crc32c": str(crc32c(found) ^ wrong),
                "protectionLevel": "SOFTWARE",
            },
        )

    def refuse(self, asked: Asked) -> Reply:
        return self._error(403, "PERMISSION_DENIED")

    def _token(self, asked: Asked) -> Reply:
        form = parse_qs(asked.body.decode())
        head, claims, signature = form["assertion"][0].split(".")
        self._key.public_key().verify(
            _unpadded(signature),
            f"{head}.{claims}".encode(),
            padding.PKCS1v15(),
            hashes.SHA256(),
        )
        scopes = json.loads(_unpadded(claims))["scope"].split()
        if scopes != ["https://www.googleapis.com/auth/cloudkms"]:
            return Reply.json(400, {"error": "invalid_scope"})
        self.tokens_given += 1
        return Reply.json(200, {"access_token": self.token, "expires_in": 3600})

    def _error(self, status: int, word: str) -> Reply:
        message = f"denied to {self.token}"
        return Reply.json(status, {"error": {"code": status, "status": word, "message": message}})


class FakeAzure(Cloud):
    """A vault, and the token endpoint of a managed identity in App Service.

    Source: https://learn.microsoft.com/en-us/rest/api/keyvault/keys/unwrap-key/unwrap-key,
    https://learn.microsoft.com/en-us/azure/app-service/overview-managed-identity#rest-endpoint-reference
    """

    provider = "azure"
    algorithm = "RSA-OAEP-256"

    def __init__(self) -> None:
        super().__init__()
        self.tokens_given = 0
        self.resources: list[str] = []

    @property
    def key_id(self) -> str:
        return "https://vault.vault.azure.net/keys/clef"

    @property
    def environment(self) -> dict[str, str]:
        return {
            "IDENTITY_ENDPOINT": f"{self.url}/msi/token",
            "IDENTITY_HEADER": "the-identity-header",
            "CLEF_AGENT_KMS_ENDPOINT": self.url,
        }

    def is_unwrap(self, asked: Asked) -> bool:
        return asked.path.endswith("/unwrapkey")

    def _reply(self, asked: Asked) -> Reply:
        return self._token(asked) if asked.path == "/msi/token" else super()._reply(asked)

    def answer(self, asked: Asked) -> Reply:
        if asked.headers.get("authorization") != f"Bearer {self.token}":
            return self._error(401, "Unauthorized")
        if asked.query.get("api-version") != "7.4":
            return self._error(400, "BadParameter")
        request: dict[str, Any] = json.loads(asked.body)
        text = request["value"]
        if request["alg"] != self.algorithm or set(text) & set("+/="):
            return self._error(400, "BadParameter")
        data = _unpadded(text)
        match asked.path.split("/")[1:]:
            case ["keys", "clef", "abc", "unwrapkey"]:
                found = self.wrapped.get(data)
            case ["keys", "clef", "wrapkey"]:
                found = self.wrap(data)
            case _:
                return self._error(404, "KeyNotFound")
        if found is None:
            return self._error(400, "BadParameter")
        value = base64.urlsafe_b64encode(found).rstrip(b"=").decode()
        return Reply.json(200, {"kid": f"{self.key_id}/abc", "value": value})

    def refuse(self, asked: Asked) -> Reply:
        return self._error(403, "Forbidden")

    def _token(self, asked: Asked) -> Reply:
        if asked.headers.get("x-identity-header") != "the-identity-header":
            return Reply.json(400, {"error": "no header"})
        self.tokens_given += 1
        self.resources.append(asked.query["resource"])
        expires_on = str(int(time.time()) + 3600)
        return Reply.json(
            200, {"access_token": self.token, "expires_on": expires_on, "token_type": "Bearer"}
        )

    def _error(self, status: int, code: str) -> Reply:
        message = f"denied to {self.token}"
        return Reply.json(status, {"error": {"code": code, "message": message}})


def _unpadded(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
