"""What is left out of botocore's descriptions changes nothing that the agent asks AWS."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import botocore
import pytest
from botocore.exceptions import BotoCoreError
from botocore.loaders import JSONFileLoader
from botocore.regions import EndpointResolver

from clef_agent.aws_descriptions import SERVICES, LeanDescriptions

DATA = Path(botocore.__file__).parent / "data"
DESCRIPTIONS = sorted(
    str(path.relative_to(DATA)).removesuffix(".gz").removesuffix(".json")
    for service in ("s3", "kms", "sts", "sso", "sso-oidc", "signin")
    for path in (DATA / service).rglob("*.json*")
)


def without_words(part: Any) -> Any:
    if isinstance(part, list):
        return [without_words(one) for one in part]
    if isinstance(part, dict):
        return {
            name: "" if name == "documentation" and isinstance(value, str) else without_words(value)
            for name, value in part.items()
        }
    return part


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_all_but_the_words_is_there_in_the_same_order(name: str) -> None:
    path = str(DATA / name)
    whole, lean = JSONFileLoader().load_file(path), LeanDescriptions().load_file(path)
    assert repr(lean) == repr(without_words(whole))


@pytest.mark.parametrize("service", sorted(SERVICES))
def test_every_region_has_the_same_endpoints(service: str) -> None:
    whole, lean = (
        EndpointResolver(files.load_file(str(DATA / "endpoints")))
        for files in (JSONFileLoader(), LeanDescriptions())
    )
    partitions = whole.get_available_partitions()
    assert lean.get_available_partitions() == partitions
    assert len(partitions) > 4
    regions = [
        region
        for partition in partitions
        for region in (
            *whole.get_available_endpoints("s3", partition, allow_non_regional=True),
            *whole.get_available_endpoints(service, partition, allow_non_regional=True),
        )
    ]
    assert len(regions) > 40
    for region in (*regions, "eu-nowhere-7", None):
        for variants in ({}, {"use_fips_endpoint": True}, {"use_dualstack_endpoint": True}):
            assert endpoint(lean, service, region, variants) == endpoint(
                whole, service, region, variants
            )


def endpoint(resolver: Any, service: str, region: str | None, variants: dict[str, bool]) -> Any:
    try:
        return resolver.construct_endpoint(service, region, **variants)
    except BotoCoreError as exc:
        return str(exc)


def test_a_member_that_is_called_like_the_manual_stays(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text('{"members":{"documentation":{"documentation":"words"}}}')
    assert LeanDescriptions().load_file(str(tmp_path / "a")) == {
        "members": {"documentation": {"documentation": ""}}
    }


def test_packed_ones_are_read_and_missing_ones_are_none(tmp_path: Path) -> None:
    (tmp_path / "a.json.gz").write_bytes(gzip.compress(b'{"documentation":"words"}'))
    descriptions = LeanDescriptions()
    assert descriptions.exists(str(tmp_path / "a"))
    assert descriptions.load_file(str(tmp_path / "a")) == {"documentation": ""}
    assert descriptions.load_file(str(tmp_path / "b")) is None
