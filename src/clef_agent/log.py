"""Log lines: information on stdout, warnings and errors on stderr, as text or as JSON.

The text lines begin with ``[clef-agent] ``; deployments wait for some of them by their words.
"""

from __future__ import annotations

import json
import logging
import re
import select
import sys
import time
from typing import TextIO

LOGGER = logging.getLogger("clef_agent")

LEVELS = {
    "debug": logging.DEBUG,
    "info": logging.INFO,
    "warn": logging.WARNING,
    "warning": logging.WARNING,
    "error": logging.ERROR,
}
FORMATS = ("text", "json")


#: Below the page that a pipe has free when it says that it has room.
_MAX_LINE_BYTES = 4000
#: So much of a longer message is kept in JSON, where a character takes twelve bytes at the most.
_MAX_JSON_CHARS = 300
#: What would end the line, drive the reader's terminal, or not fit into UTF-8.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


class _Text(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("[clef-agent] %(message)s")

    def format(self, record: logging.LogRecord) -> str:
        return one_line(super().format(record))


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
        text = json.dumps(line)  # ASCII only: nothing in it can end the line
        if len(text) <= _MAX_LINE_BYTES:
            return text
        return json.dumps({name: value[:_MAX_JSON_CHARS] for name, value in line.items()})


def one_line(text: str, max_bytes: int = _MAX_LINE_BYTES) -> str:
    """``text`` with nothing in it that ends a line, cut where it exceeds ``max_bytes`` of UTF-8.

    One event is one line: whoever writes the store must not be able to forge another.
    """
    line = _UNPRINTABLE.sub(_escaped, text)
    octets = line.encode("utf-8")
    if len(octets) <= max_bytes:
        return line
    return octets[:max_bytes].decode("utf-8", "ignore") + "..."


def _escaped(match: re.Match[str]) -> str:
    return match[0].encode("unicode_escape").decode("ascii")


class _NeverWaiting(logging.StreamHandler):  # type: ignore[type-arg]  # no generic at run time
    """Writes a line, or drops it where the reader has fallen behind: a log that nobody reads must
    not stop the agent. How many lines were lost is told as soon as there is room again.
    """

    _lost = 0

    def emit(self, record: logging.LogRecord) -> None:
        if not _has_room(self.stream):
            self._lost += 1
            return
        if self._lost:
            lost, self._lost = self._lost, 0
            words = f"{lost} lines were lost, because nobody read them"
            super().emit(logging.LogRecord(record.name, logging.WARNING, "", 0, words, (), None))
        super().emit(record)


def _has_room(stream: TextIO) -> bool:
    """Whether a line can be written without waiting: a pipe says so while it has a page free."""
    try:
        poll = select.poll()
        poll.register(stream.fileno(), select.POLLOUT)
        return bool(poll.poll(0))
    except (OSError, ValueError):
        return True  # not a stream of the system's, or a closed one: writing will tell


class _BelowWarning(logging.Filter):
    def filter(self, record: logging.LogRecord) -> bool:
        return record.levelno < logging.WARNING


def configure(log_format: str = "text", level: str = "info") -> None:
    """Sends the agent's lines to stdout and stderr. Can be called again with other settings."""
    formatter = _Json() if log_format == "json" else _Text()
    out, err = _NeverWaiting(sys.stdout), _NeverWaiting(sys.stderr)
    out.addFilter(_BelowWarning())
    err.setLevel(logging.WARNING)
    for handler in (out, err):
        handler.setFormatter(formatter)
    silence_libraries()
    # uvicorn's own lines: only what it cannot explain to the client.
    for name, lowest in (("clef_agent", LEVELS[level]), ("uvicorn.error", logging.ERROR)):
        logger = logging.getLogger(name)
        logger.handlers = [out, err]
        logger.setLevel(lowest)
        logger.propagate = False
    # A reader that went away must not end the agent with a traceback on each line.
    logging.raiseExceptions = False


def silence_libraries() -> None:
    """Lets no library write to the streams: their lines hold URLs, queries, headers, and the
    output of programs that print credentials.
    """
    root = logging.getLogger()
    if not root.handlers:
        root.addHandler(logging.NullHandler())
