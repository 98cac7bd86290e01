"""``curl`` as far as it downloads from GitHub, and ``gh attestation``."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final

from deployments import IMAGE, REPOSITORY, ROOT
from stand_ins import Asked, Refused, command, options

_RELEASE: Final = f"https://github.com/{REPOSITORY}/releases/latest/download/"
_RAW: Final = f"https://raw.githubusercontent.com/{REPOSITORY}/main/"


def curl(arguments: list[str]) -> Asked:
    """``curl -fLO URL``: a file of a release is in the folder that STAND_INS_RELEASE names, and one
    of the repository is the one that is here.

    Source: https://curl.se/docs/manpage.html
    """
    parser = options("curl")
    parser.add_argument("-f", "--fail", action="store_true")
    parser.add_argument("-L", "--location", action="store_true")
    parser.add_argument("-O", "--remote-name", action="store_true")
    parser.add_argument("-s", "--silent", action="store_true")
    parser.add_argument("-o", "--output")
    parser.add_argument("url")
    given = parser.parse_args(arguments)
    if not given.fail:
        raise Refused("without -f a page that says 404 is taken for the file")
    name = given.url.rpartition("/")[2]
    if given.url.startswith(_RELEASE):
        if not given.location:
            raise Refused("without -L GitHub answers with a redirect alone")
        source = Path(os.environ["STAND_INS_RELEASE"], given.url.removeprefix(_RELEASE))
    elif given.url.startswith(_RAW):
        source = ROOT / given.url.removeprefix(_RAW)
    else:
        raise Refused(f"(6) could not resolve host: {given.url}")
    if not source.is_file():
        raise Refused("(22) the requested URL returned error: 404")
    if not (given.remote_name or given.output):
        raise Refused("binary output can mess up your terminal")
    Path(given.output or name).write_bytes(source.read_bytes())
    return Asked({"url": given.url})


def gh(arguments: list[str]) -> Asked:
    """``gh attestation verify FILE --repo OWNER/NAME``.

    Source: https://cli.github.com/manual/gh_attestation_verify
    """
    parser = options("gh")
    commands = parser.add_subparsers(dest="command", required=True)
    attestation = command(commands, "attestation").add_subparsers(dest="action", required=True)
    verify = command(attestation, "verify")
    verify.add_argument("subject")
    owner = verify.add_mutually_exclusive_group(required=True)
    owner.add_argument("--repo", "-R")
    owner.add_argument("--owner", "-o")
    verify.add_argument("--signer-workflow")
    given = parser.parse_args(arguments)
    if given.repo is not None and not re.fullmatch(r"[\w-]+/[\w.-]+", given.repo):
        raise Refused(f"{given.repo} is no repository")
    if given.subject.startswith("oci://"):
        if given.subject != f"oci://{IMAGE}":
            raise Refused(f"there is no image {given.subject}")
    elif not Path(given.subject).is_file():
        raise Refused(f"there is no file {given.subject}")
    return Asked({"subject": given.subject, "repo": given.repo})
