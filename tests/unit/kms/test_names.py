"""Key ids are checked before anybody is asked: whoever writes the store chooses them."""

from __future__ import annotations

import asyncio
import os
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clef_agent.aws import Aws
from clef_agent.errors import UnwrapFailed
from clef_agent.kms.aws import AwsKms, _check, _region
from clef_agent.kms.azure import _DOMAINS, AzureKeys, _encoded, _key, _value
from clef_agent.kms.gcp import GcpKms, crc32c
from clef_agent.kms.gcp import _check as check_gcp


@pytest.mark.parametrize(
    ("key_id", "region"),
    [
        (
            "arn:aws:kms:eu-west-1:111122223333:key/6b1f6f0e-1111-4222-8333-1d8cab17af1a",
            "eu-west-1",
        ),
        ("arn:aws:kms:us-east-1:111122223333:alias/a/b_c", "us-east-1"),
        ("arn:aws-us-gov:kms:us-gov-west-1:111122223333:key/mrk-1", "us-gov-west-1"),
        ("arn:aws-cn:kms:cn-north-1:111122223333:key/1", "cn-north-1"),
        ("alias/clef", None),
        ("mrk-1234", None),
    ],
)
def test_an_aws_key_id_picks_a_region_or_none(key_id: str, region: str | None) -> None:
    _check(key_id)
    assert _region(key_id) == region


@given(st.text())
def test_a_region_is_always_one_label_of_a_name(text: str) -> None:
    try:
        _check(f"arn:aws:kms:{text}:111122223333:key/k")
    except UnwrapFailed:
        return
    assert not set(text) & set("./@:#?%")
    assert text.isascii()


@pytest.mark.parametrize(
    ("key_id", "host", "path"),
    [
        ("https://v.vault.azure.net/keys/k/1a", "v.vault.azure.net", "/keys/k/1a"),
        ("https://V.VAULT.azure.net/keys/k", "v.vault.azure.net", "/keys/k"),
        ("https://v.vault.azure.net:443/keys/k/", "v.vault.azure.net", "/keys/k"),
        ("https://h.managedhsm.azure.net/keys/k/1", "h.managedhsm.azure.net", "/keys/k/1"),
        ("https://v.vault.usgovcloudapi.net/keys/k", "v.vault.usgovcloudapi.net", "/keys/k"),
        ("https://v.vault.azure.cn/keys/k", "v.vault.azure.cn", "/keys/k"),
    ],
)
def test_an_azure_key_lies_in_a_vault_of_a_known_cloud(key_id: str, host: str, path: str) -> None:
    key = _key(key_id)
    assert (key.host, key.path) == (host, path)
    assert key.domain in _DOMAINS


@pytest.mark.parametrize(
    "key_id",
    [
        "https://a.b.vault.azure.net/keys/k",
        "https://vault.azure.net/keys/k",
        "https://v.vault.azure.net./keys/k",
        "https://v.vault.azure.net.evil.example/keys/k",
        "https://evil.example/v.vault.azure.net/keys/k",
        "https://u:p@v.vault.azure.net/keys/k",
        "https://v.vault.azure.net@evil.example/keys/k",
        "https://v.vault.azure.net\\@evil.example/keys/k",
        "https://v\uff0evault.azure.net/keys/k",
        "https://v.vault.azure.net:444/keys/k",
        "https://v.vault.azure.net:x/keys/k",
        "http://v.vault.azure.net/keys/k",
        "//v.vault.azure.net/keys/k",
        "https://v.vault.azure.net/keys/k?x=y",
        "https://v.vault.azure.net/keys/k#x",
        "https://v.vault.azure.net/keys/k/1/2",
        "https://v.vault.azure.net/keys/..%2fk",
        "https://v.vault.azure.net/secrets/k",
        "https://[::1/keys/k",
        "",
    ],
)
def test_any_other_azure_key_id_is_refused(key_id: str) -> None:
    with pytest.raises(UnwrapFailed):
        _key(key_id)


@given(st.text())
def test_whatever_passes_leads_to_a_known_domain(text: str) -> None:
    for key_id in (text, f"https://{text}.vault.azure.net/keys/k", f"https://{text}/keys/k"):
        try:
            key = _key(key_id)
        except UnwrapFailed:
            continue
        host = urlsplit(f"https://{key.host}").hostname or ""
        assert host.partition(".")[2] in _DOMAINS


@pytest.mark.parametrize(
    "name",
    [
        "projects/p/locations/global/keyRings/r/cryptoKeys/k",
        "projects/example.com:p-1/locations/europe-west3/keyRings/R_1/cryptoKeys/K-1",
    ],
)
def test_a_name_of_cloud_kms_passes(name: str) -> None:
    check_gcp(name)


@pytest.mark.parametrize(
    "name",
    [
        "projects/p/locations/global/keyRings/r/cryptoKeys/k/cryptoKeyVersions/1",
        "projects/../locations/global/keyRings/r/cryptoKeys/k",
        "projects/p/locations/global/keyRings/r/cryptoKeys/k\n",
        "projects/p/locations/global/keyRings/r/cryptoKeys/",
        "/projects/p/locations/global/keyRings/r/cryptoKeys/k",
        "projects/p/locations/global/keyRings/r%2f/cryptoKeys/k",
    ],
)
def test_any_other_name_of_cloud_kms_is_refused(name: str) -> None:
    with pytest.raises(UnwrapFailed):
        check_gcp(name)


@pytest.mark.parametrize(
    ("service", "key_id"),
    [
        (AwsKms(Aws(os.environ)), "alias/k"),
        (GcpKms(None), "projects/p/locations/global/keyRings/r/cryptoKeys/k"),
        (AzureKeys(None), "https://v.vault.azure.net/keys/k/1"),
    ],
)
def test_an_algorithm_of_another_service_asks_nobody(
    service: AwsKms | GcpKms | AzureKeys, key_id: str
) -> None:
    with pytest.raises(UnwrapFailed, match="algorithm"):
        asyncio.run(service.unwrap(key_id, b"wrapped", "ROT13"))


def test_the_checksum_is_castagnolis() -> None:
    assert crc32c(b"123456789") == 0xE3069283
    assert crc32c(b"") == 0


@given(st.binary(max_size=200))
def test_base64url_has_no_padding_and_comes_back(data: bytes) -> None:
    text = _encoded(data)
    assert not set(text) & set("+/=")
    assert _value({"value": text}) == data


@pytest.mark.parametrize("answer", [{}, {"value": None}, {"value": 7}, {"value": "a=b"}])
def test_a_value_that_is_no_base64url_is_refused(answer: dict[str, object]) -> None:
    with pytest.raises(UnwrapFailed):
        _value(answer)
