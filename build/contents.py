"""What goes into the executable beside what the code imports, and what is left out of it."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

#: Found by name at run time; PyInstaller sees only import statements.
HIDDEN = [
    "azure.identity",
    "botocore.retries.standard",
    "google.auth.transport.requests",
    "google.oauth2.credentials",
    "google.oauth2.service_account",
    "opentelemetry.exporter.otlp.proto.http._log_exporter",
    "opentelemetry.sdk._logs.export",
    "uvicorn.lifespan.off",
    "uvicorn.loops.uvloop",
    "uvicorn.protocols.http.httptools_impl",
    # OpenTelemetry finds it by an entry point, which it asks for when it is first imported.
    "opentelemetry.context.contextvars_context",
]

#: Offered by libraries for uses that the agent has none of.
EXCLUDED = [
    "IPython", "PIL", "_sqlite3", "_tkinter", "brotli", "brotlicffi", "curses", "doctest",
    "ensurepip", "grpc", "idlelib", "lib2to3", "matplotlib", "numpy", "pdb", "pip", "pydantic",
    "pydoc", "readline", "setuptools", "socks", "sqlite3", "test", "tkinter", "trio", "unittest",
    "_bz2", "_lzma", "urllib3.contrib.pyopenssl", "watchfiles", "websockets", "wheel", "wsproto",
    "yaml", "_codecs_cn", "_codecs_hk", "_codecs_iso2022", "_codecs_jp",
    "_codecs_kr", "_codecs_tw", "_multibytecodec", "xmlrpc", "turtle", "bdb", "rlcompleter",
]  # fmt: skip

#: What PyInstaller would run at each start, for uses that the agent has none of: they load
#: multiprocessing and zipfile, a megabyte of memory.
UNHOOKED = {"pyi_rth_inspect", "pyi_rth_multiprocessing"}

#: The services that are asked: the sources and keys, and where credentials come from.
_SERVICES = {"s3", "kms", "sts", "sso", "sso-oidc", "signin"}

#: rich asks for languages and colours to print source text in; the agent prints none.
_LANGUAGES = re.compile(r"pygments\.(lexers|styles|formatters)\.(?!_mapping$|default$|python$)")
_BOTOCORE = re.compile(r"botocore/data/([^/]+)/")
_DIST_INFO = re.compile(r"([^/]+)-[^/-]+\.dist-info/")
#: OpenTelemetry finds its parts by entry points.
_WITH_METADATA = re.compile(r"opentelemetry")

Toc = list[tuple[str, str, str]]


def pruned(files: Toc, work: Path) -> Toc:
    """``files`` without the data of services and packages that are not asked for it.

    botocore's table of endpoints is replaced by a compressed one, which it reads as well; that lies
    in ``work``. Timestamps do not go in: the same files give the same bytes.
    """
    kept: Toc = []
    for name, path, kind in sorted(files):
        if name == "botocore/data/endpoints.json":
            packed = work / "endpoints.json.gz"
            packed.write_bytes(gzip.compress(Path(path).read_bytes(), mtime=0))
            kept.append((f"{name}.gz", str(packed), kind))
        elif _is_needed(name):
            kept.append((name, path, kind))
    return kept


def without_languages(modules: Toc) -> Toc:
    """``modules`` without what would print source text in colours."""
    return [entry for entry in modules if not _LANGUAGES.match(entry[0])]


def _is_needed(name: str) -> bool:
    if service := _BOTOCORE.match(name):
        return service[1] in _SERVICES
    if package := _DIST_INFO.match(name):
        return bool(_WITH_METADATA.match(package[1]))
    # The authorities that are trusted are certifi's; time zones are never asked for by name.
    if name in {"botocore/cacert.pem", "dateutil/zoneinfo/dateutil-zoneinfo.tar.gz"}:
        return False
    return not name.endswith((".pyi", "py.typed"))
