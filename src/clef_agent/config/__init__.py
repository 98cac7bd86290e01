"""The environment, read once into a frozen :class:`Config`.

``load`` is a pure function of a mapping and a file reader. It reports every problem at once, by
the variable's name, and prints no value: a secret may stand in any variable by mistake.
"""

from __future__ import annotations

from collections.abc import Mapping

from clef_agent.config.loopback import is_loopback
from clef_agent.config.model import (
    DEFAULT_PORT,
    VARIABLES,
    Config,
    Credential,
    FileSourceConfig,
    HttpSourceConfig,
    ReadFile,
    S3SourceConfig,
    SourceConfig,
    VcsSourceConfig,
)
from clef_agent.config.reader import Reader
from clef_agent.config.s3_url import S3Location

__all__ = [
    "DEFAULT_PORT",
    "VARIABLES",
    "Config",
    "Credential",
    "FileSourceConfig",
    "HttpSourceConfig",
    "ReadFile",
    "S3Location",
    "S3SourceConfig",
    "SourceConfig",
    "VcsSourceConfig",
    "is_loopback",
    "load",
]


def load(env: Mapping[str, str], read_file: ReadFile) -> Config:
    """The configuration that ``env`` describes.

    ``read_file`` gets a path and returns the file's bytes, or raises OSError.

    Raises:
        ConfigInvalid: with every problem there is, none of which repeats a value.
    """
    return Reader(env, read_file).config()
