"""What several modules ask of one service."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from moto_server import Moto, moto_server


@pytest.fixture(scope="module")
def aws_server() -> Iterator[Moto]:
    """moto's server, one for a module. It keeps what a test puts there: begin with ``reset``."""
    with moto_server() as moto:
        yield moto
