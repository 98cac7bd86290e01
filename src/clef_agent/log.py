"""Log lines: information on stdout, warnings and errors on stderr, as text or as JSON.

The text lines begin with ``[clef-agent] ``; deployments wait for some of them by their words.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import time

LOGGER = logging.getLogger("clef_agent")

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS = ("text", "json")


#: What would end the line, drive the reader's terminal, or not fit into UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("[clef-agent] %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        # One event is one line: whoever writes the store must not be able to forge another.
        return _UNPRINTABLE.sub(_escaped, super().format(record))


class _Json(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
            + f".{int(record.msecs):03d}Z",
            "level": record.levelname.lower(),
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)  # ASCII only: nothing in it can end the line


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class _BelowWarning(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING


def configure(log_format: str = "text", level: str = "info") -> None:
    """Sends the agent's lines to stdout and stderr. Can be called again with other settings."""
    formatter = _Json() if log_format == "json" else _Text()
    out, err = logging.StreamHandler(sys.stdout), logging.StreamHandler(sys.stderr)
    out.addFilter(_BelowWarning())
    err.setLevel(logging.WARNING)
    for handler in (out, err):
        handler.setFormatter(formatter)
    # uvicorn's own lines: only what it cannot explain to the client.
    for name, lowest in (("clef_agent", LEVELS[level]), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [out, err]
        logger.setLevel(lowest)
        logger.propagate = False
    # A reader that went away must not end the agent with a traceback on each line.
    logging.raiseExceptions = False
