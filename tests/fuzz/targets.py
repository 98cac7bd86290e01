"""What is fed with bytes, and the promise that each must keep.

A target returns the name of what came of its input: a success, or one of our documented errors.
Whatever else it raises is a finding.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from clef_agent import config
from clef_agent.artifact import strict_json
from clef_agent.artifact.model import Artifact, Envelope, Moment, NotAMoment
from clef_agent.artifact.parse import parse
from clef_agent.artifact.verify import Policy, VerifiedArtifact, verify
from clef_agent.aws import Aws
from clef_agent.cache.disk import DiskCache
from clef_agent.cli.dotenv import DotenvMalformed, parse_dotenv
from clef_agent.clock import Instant
from clef_agent.config.s3_url import parse_https_url, parse_s3_url
from clef_agent.decrypt import Decryptor
from clef_agent.decrypt.age import AgeKeyring
from clef_agent.decrypt.envelope import EnvelopeOpener, open_envelope
from clef_agent.decrypt.places import Places
from clef_agent.decrypt.secrets import parse_payload
from clef_agent.errors import (
    ArtifactError,
    ConfigInvalid,
    DecryptFailed,
    DiskCopyUnusable,
    PayloadInvalid,
    SourceMisdirected,
)
from clef_agent.keys import (
    KeyMalformed,
    decode_base64,
    encode_base64,
    parse_age_identities,
    parse_verify_key,
)
from clef_agent.sources.status import http_date, retry_after_s
from clef_agent.web.address import Address, parse_url
from clef_agent.wiring import make_source
from fakes import (
    AGE_KEY,
    ECDSA_SIGNER,
    ECDSA_VERIFY_KEY,
    ED25519_SIGNER,
    ED25519_VERIFY_KEY,
    NOW,
    FakeFiles,
    FakeKeyService,
    encrypted,
    packed,
    rehashed,
)

FOUND: Final = Path(__file__).parent / "found"
_VECTORS: Final = Path(__file__).resolve().parents[3] / "shared"
#: What a value holds that must not be repeated; no word of ours has it.
_CANARY: Final = "kAnArIe"


@dataclass(frozen=True)
class Target:
    """``feed`` takes an input of at most ``max_bytes``; ``share`` is its part of all inputs."""

    feed: Callable[[bytes], str]
    seeds: Callable[[], list[bytes]]
    max_bytes: int = 4096
    share: float = 1.0


class PromiseBroken(AssertionError):
    """An input was taken, but for something else than it is."""


def promise(holds: object, what: str) -> None:
    if not holds:
        raise PromiseBroken(what)


# --- artifacts --------------------------------------------------------------------------------

_ARTIFACT: Final = packed()
_DECRYPTOR: Final = Decryptor(AgeKeyring(AGE_KEY, None, FakeFiles()), EnvelopeOpener({}))
_KEYS: Final = (ED25519_VERIFY_KEY, ECDSA_VERIFY_KEY)
_POLICIES: Final = (Policy(), *(Policy(parse_verify_key(key)) for key in _KEYS))


def _decrypted(verified: VerifiedArtifact) -> str:
    coroutine = _DECRYPTOR.decrypt(verified)
    try:
        coroutine.send(None)  # small ciphertexts are opened without a loop
    except StopIteration as end:
        json.loads(bytes(end.value.json))
        return "opened"
    finally:
        coroutine.close()
    raise PromiseBroken("a small ciphertext waits for something")


def feed_artifact(data: bytes) -> str:
    """The whole way of an artifact's bytes, with each kind of verify key and without."""
    try:
        artifact = parse(data)
    except ArtifactError as exc:
        return exc.reason
    promise(isinstance(json.loads(data), dict), "taken for an object")
    outcome = ""
    for policy in _POLICIES:
        try:
            verified = verify(artifact, policy, wall=NOW)
            outcome = _decrypted(verified)
        except ArtifactError as exc:
            outcome = exc.reason
    return outcome


def feed_fields(data: bytes) -> str:
    """A sound artifact with one field's JSON replaced, and its hash made to fit."""
    number, _, value = data.partition(b":")
    names = ("identity", "packedAt", "expiresAt", "signature", "ciphertext", "envelope", "version")
    name = names[len(number) % len(names)]
    try:
        document = {**json.loads(_ARTIFACT), name: json.loads(value)}
        text = json.dumps(document).encode()
        text = rehashed(text) if isinstance(document["ciphertext"], str) else text
    except (ValueError, RecursionError):
        return "no input"
    return feed_artifact(text)


def feed_moment(data: bytes) -> str:
    """A date of an artifact."""
    try:
        moment = Moment.parse(data.decode("utf-8", "surrogateescape"))
    except NotAMoment:
        return "refused"
    promise(moment.wall == moment.wall, "a moment that is no number")  # NaN
    return "a moment"


def feed_strict_json(data: bytes) -> str:
    """JSON: what is taken, the standard library reads alike, and it can be written again."""
    try:
        value = strict_json.loads(data)
    except (strict_json.NotStrict, strict_json.LoneSurrogate) as exc:
        return type(exc).__name__
    promise(json.loads(data.decode()) == value, "read otherwise than by json")
    promise(strict_json.loads(json.dumps(value).encode()) == value, "not read as it was written")
    return "a value"


# --- ciphertexts and what is in them ------------------------------------------------------------


def feed_age(data: bytes) -> str:
    """An age file within an artifact that is sound otherwise."""
    verified = verify(parse(rehashed(_ARTIFACT, data or b"\0")), _POLICIES[0], wall=NOW)
    try:
        return _decrypted(verified)
    except (DecryptFailed, PayloadInvalid) as exc:
        return exc.reason


def feed_envelope(data: bytes) -> str:
    """An envelope's iv, tag, data key and ciphertext, of any length."""
    lengths, rest = data[:3].ljust(3, b"\0"), data[3:]
    parts = []
    for length in lengths:
        parts.append(rest[: length % 40])
        rest = rest[length % 40 :]
    iv, tag, _ = parts
    texts = (encode_base64(iv), encode_base64(tag))
    if lengths[0] > 200:  # text that is hardly base64
        texts = (iv.decode("latin-1"), tag.decode("latin-1"))
    envelope = Envelope("aws", "k", "w", "a", *texts)
    try:
        parse_payload(open_envelope(envelope, rest, bytearray(32)))
    except (DecryptFailed, PayloadInvalid) as exc:
        return exc.reason
    return "opened"


def feed_payload(data: bytes) -> str:
    """A plaintext. The way of the small and that of the large agree, and json reads the same."""
    try:
        places: Places | None = Places(data)
    except ValueError:
        places = None
    try:
        secrets = parse_payload(data)
    except PayloadInvalid as exc:
        promise(places is None, "refused when small, taken when large")
        promise(_CANARY not in str(exc), "repeated in an error")
        return exc.reason
    promise(places is not None, "taken when small, refused when large")
    document = json.loads(data)
    for entry in places or ():
        holder = document if entry.namespace is None else document[entry.namespace]
        promise(json.loads(secrets.value_json(entry)) == holder[entry.key], "another's value")
    with contextlib.suppress(ValueError):  # names that collide
        flat = json.loads(bytes(secrets.flat_json()))
        promise(list(flat) == secrets.names(), "flattened to other names")
    return "secrets"


# --- configuration ----------------------------------------------------------------------------

_NAMES: Final = config.VARIABLES
_PATHS: Final = {"/key": AGE_KEY.encode(), "/text": b"no key", "/bytes": b"\xff"}


def _as_environment(data: bytes) -> dict[str, str]:
    """Lines of a variable's number, as a byte, and its value."""
    lines = data.split(b"\n")
    found = {}
    for line in lines[:12]:
        name = _NAMES[(line[0] if line else 0) % len(_NAMES)]
        found[name] = line[1:].decode("utf-8", "surrogateescape").replace("\0", "")
    return found


def as_input(env: Mapping[str, str]) -> bytes:
    """The input that ``env`` is read from."""
    return b"\n".join(bytes([_NAMES.index(name)]) + text.encode() for name, text in env.items())


def feed_config(data: bytes) -> str:
    """An environment. What makes a configuration makes a source, too, and no value is repeated."""
    env = _as_environment(data)
    try:
        found = config.load(env, FakeFiles(_PATHS))
    except ConfigInvalid as exc:
        promise(exc.problems, "invalid, and nothing is wrong")
        promise(_CANARY not in str(exc), "repeated in an error")
        return "refused"
    promise(_CANARY not in repr(found), "repeated in a repr")
    source = make_source(found.source, _AWS)
    promise(source.describe(), "a source without a name")
    return source.type


_AWS: Final = Aws({})


def feed_url(data: bytes) -> str:
    """A URL, by each of its readers, and as the place that a redirect leads to."""
    text = data.decode("utf-8", "surrogateescape")
    outcome = "refused"
    location = parse_s3_url(text)
    if location is not None:
        promise(text.endswith(location.key), "another key than it names")
        outcome = "s3"
    try:
        address, _ = parse_url(text)
    except ValueError:
        pass
    else:
        _check_sent(address)
        outcome = address.scheme
    with contextlib.suppress(ValueError):
        from urllib.parse import urlsplit

        if parse_https_url(urlsplit(text)) is not None:
            outcome = "s3 by https"
    with contextlib.suppress(SourceMisdirected):
        target = _HOME.redirected(data.decode("latin-1"))
        promise(target.scheme == "https" or target.origin == _HOME.origin, "led astray")
        _check_sent(target)
    return outcome


_HOME: Final = Address("http", "127.0.0.1", 8080, "/a/b?c")
_VISIBLE: Final = re.compile(r"/[!-~]*")


def _check_sent(address: Address) -> None:
    promise(_VISIBLE.fullmatch(address.target), "no target for a request line")
    promise("?" not in str(address), "a query that is shown")


def feed_dotenv(data: bytes) -> str:
    """A ``.env`` file."""
    try:
        found = parse_dotenv(data.decode("utf-8", "replace"))
    except DotenvMalformed as exc:
        promise(_CANARY not in str(exc), "repeated in an error")
        return "refused"
    promise(all(re.fullmatch(r"[A-Za-z_]\w*", n, re.ASCII) for n in found), "no variable's name")
    return "variables"


def feed_keys(data: bytes) -> str:
    """Key material as text."""
    text = data.decode("utf-8", "surrogateescape")
    outcome = "refused"
    with contextlib.suppress(ValueError):
        promise(len(decode_base64(text)) <= len(text), "more bytes than characters")
        outcome = "base64"
    for read in (parse_age_identities, parse_verify_key):
        try:
            read(text)
        except KeyMalformed as exc:
            promise(_CANARY not in str(exc), "repeated in an error")
        else:
            outcome = read.__name__
    return outcome


def feed_headers(data: bytes) -> str:
    """The times in an answer's headers."""
    text = data.decode("latin-1")
    seconds = retry_after_s(text, wall=NOW)
    promise(seconds is None or seconds >= 0, "a time that has passed")
    http_date(text)
    return "none" if seconds is None else "seconds"


# --- the copy on disk ---------------------------------------------------------------------------


@functools.cache
def _copy() -> tuple[DiskCache, Path, bytes]:
    directory = Path(tempfile.mkdtemp(prefix="clef-fuzz-"))
    cache = DiskCache(str(directory), key="k", boot_id="b")
    import hashlib

    cache.store(_ARTIFACT, hashlib.sha256(_ARTIFACT).hexdigest(), Instant(NOW, 1.0), None)
    record = next(directory.glob("*.record.json"))
    return cache, record, record.read_bytes()


def feed_record(data: bytes) -> str:
    """The record beside the copy on disk."""
    cache, record, _ = _copy()
    record.write_bytes(data)
    try:
        found = cache.load(Instant(NOW, 1.0))
    except DiskCopyUnusable:
        return "refused"
    promise(found is None or found.data == _ARTIFACT, "a copy of something else")
    promise(found is None or found.age_s >= 0, "a copy from the future")
    return "none" if found is None else "a copy"


# --- seeds --------------------------------------------------------------------------------------


def _artifacts() -> list[bytes]:
    vectors = sorted((_VECTORS / "vectors").glob("*.json")) if _VECTORS.exists() else []
    made = [packed(signer=signer) for signer in (None, ED25519_SIGNER, ECDSA_SIGNER)]
    small = [data for path in vectors if len(data := path.read_bytes()) <= 4096]
    return [*made, packed(expires_at=NOW + 1), packed(service=FakeKeyService()), *small]


def _age_files() -> list[bytes]:
    import zlib

    files = [decode_base64(_of(data).ciphertext) for data in (_ARTIFACT, encrypted(b"{}"))]
    folder = _VECTORS / "cctv-age"
    for path in sorted(folder.iterdir()) if folder.exists() else ():
        head, _, body = path.read_bytes().partition(b"\n\n")
        files.append(zlib.decompress(body) if b"compressed: zlib" in head else body)
    return [file for file in files if len(file) <= 4096]


def _envelopes() -> list[bytes]:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    iv = bytes(range(12))
    sealed = [AESGCM(bytes(32)).encrypt(iv, text, None) for text in (b'{"a":"b"}', b"no json")]
    good = [bytes([12, 16, 0]) + iv + data[-16:] + data[:-16] for data in sealed]
    return [*good, bytes([12, 4, 0]) + iv + sealed[0][-16:-12] + sealed[0][:-16], bytes(9)]


def _of(data: bytes) -> Artifact:
    return parse(data)


def _environments() -> list[bytes]:
    vcs = {
        "CLEF_AGENT_VCS_REPO": "org/repo",
        "CLEF_AGENT_VCS_TOKEN": _CANARY,
        "CLEF_AGENT_VCS_IDENTITY": "api",
        "CLEF_AGENT_VCS_ENVIRONMENT": "production",
        "CLEF_AGENT_VCS_API_URL": "https://git.example/api/v3",
    }
    http = {
        "CLEF_AGENT_SOURCE": f"https://u:{_CANARY}@h.example:8443/a?b={_CANARY}",
        "CLEF_AGENT_AGE_KEY_FILE": "/key",
        "CLEF_AGENT_CACHE_TTL": "300",
        "CLEF_AGENT_POLL_INTERVAL": "5",
        "CLEF_AGENT_TELEMETRY_URL": "http://127.0.0.1:4318",
        "CLEF_AGENT_LOG_FORMAT": "json",
    }
    found = [
        http,
        {**http, "CLEF_AGENT_TOKEN": _CANARY, "CLEF_AGENT_PORT": "7779"},
        {"CLEF_AGENT_SOURCE": "/etc/a.json", "CLEF_AGENT_AGE_KEY": _CANARY},
        {
            "CLEF_AGENT_SOURCE": "s3://bucket/key",
            "CLEF_AGENT_VERIFY_KEY": ED25519_VERIFY_KEY,
            "CLEF_AGENT_ROLLBACK_PROTECTION": "on",
        },
        {"CLEF_AGENT_SOURCE": "https://b.s3.eu-west-1.amazonaws.com/k?versionId=1"},
        *(
            {**vcs, "CLEF_AGENT_VCS_PROVIDER": provider}
            for provider in ("github", "gitlab", "bitbucket", "bitbucket-server")
        ),
    ]
    return [as_input(env) for env in found]


_URLS: Final = [
    b"s3://bucket/a/key?x#y",
    b"s3://arn:aws:s3:eu-west-1:111122223333:accesspoint/name/key",
    b"https://b.s3.dualstack.eu-west-1.amazonaws.com/a%2Fb?versionId=x",
    b"https://s3-us-west-2.amazonaws.com/bucket/key",
    b"https://name-111122223333.s3-accesspoint.cn-north-1.amazonaws.com.cn/key",
    b"HTTPS://user:p%40ss@[::1]:8443/a/../b?X-Amz-Signature=abc#f",
    b"//h/x",
    b"../x?y",
    "https://b\u00fccher.example/\u00fc".encode(),
]
_PAYLOADS: Final = [
    b'{"app":{"KEY":"value","K2":"\\ud83d\\ude00"},"flat":"x"}',
    b'{"a__b":{"c":"1"},"a":{"b__c":"2"}}',
    b' {\n"a" : "\\u00e9", "b":{}}\r\n',
    _CANARY.encode().join([b'{"a":"', b'"}']),
    b"[1,2.5e3,null,true]",
]
_DOTENVS: Final = [
    b'# comment\nA=b # c\nexport B=\'x\ny\'\nC="a\\n\\""\r\n',
    b"\xef\xbb\xbfA=\nD=" + _CANARY.encode(),
]
_TIMES: Final = [
    b"2027-01-15T08:00:00Z",
    b"2027-01-15",
    b"2016-12-31t23:59:60.5+01:30",
    b"120",
    b"Fri, 15 Jan 2027 08:00:00 GMT",
    b"Sunday, 06-Nov-94 08:49:37 GMT",
    b"Sun Nov  6 08:49:37 1994",
]

TARGETS: Final[Mapping[str, Target]] = {
    "artifact": Target(feed_artifact, _artifacts, share=2),
    "field": Target(
        feed_fields,
        lambda: [
            *(b"x" * n + b":" + v for n in range(7) for v in (b'"a"', b"null", b"1", b'{"a":[]}')),
            b"xx:" + b'"2027-01-15T08:00:00Z"',
        ],
        share=2,
    ),
    "age": Target(feed_age, _age_files, share=2),
    "envelope": Target(feed_envelope, _envelopes),
    "payload": Target(feed_payload, lambda: _PAYLOADS, share=2),
    "json": Target(feed_strict_json, lambda: _PAYLOADS),
    "moment": Target(feed_moment, lambda: _TIMES, max_bytes=64),
    "config": Target(feed_config, _environments, share=3),
    "url": Target(feed_url, lambda: _URLS, share=3),
    "dotenv": Target(feed_dotenv, lambda: _DOTENVS, share=2),
    "keys": Target(
        feed_keys, lambda: [AGE_KEY.encode(), *(k.encode() for k in _KEYS), _CANARY.encode()]
    ),
    "headers": Target(feed_headers, lambda: _TIMES, max_bytes=128),
    "record": Target(feed_record, lambda: [_copy()[2]], share=0.5),
}
