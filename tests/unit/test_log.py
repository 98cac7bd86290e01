from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator

import pytest

from clef_agent import log


@pytest.fixture(autouse=True)
def _restore() -> Iterator[None]:
    kept = logging.raiseExceptions
    loggers = [logging.getLogger(name) for name in ("clef_agent", "uvicorn.error")]
    before = [(logger.handlers, logger.level, logger.propagate) for logger in loggers]
    yield
    logging.raiseExceptions = kept
    for logger, (handlers, level, propagate) in zip(loggers, before, strict=True):
        logger.handlers, logger.propagate = handlers, propagate
        logger.setLevel(level)


def test_information_goes_to_stdout_and_trouble_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    log.configure()
    log.LOGGER.debug("unseen")
    log.LOGGER.info("source: %s", "/srv/a.json")
    log.LOGGER.warning("careful")
    log.LOGGER.error("broken")
    out, err = capsys.readouterr()
    assert out == "[clef-agent] source: /srv/a.json\n"
    assert err == "[clef-agent] careful\n[clef-agent] broken\n"


@pytest.mark.parametrize(
    ("level", "seen"),
    [
        ("debug", ["d", "i", "w", "e"]),
        ("info", ["i", "w", "e"]),
        ("warn", ["w", "e"]),
        ("warning", ["w", "e"]),
        ("error", ["e"]),
    ],
)
def test_the_level_decides_what_is_said(
    level: str, seen: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure("text", level)
    log.LOGGER.debug("d")
    log.LOGGER.info("i")
    log.LOGGER.warning("w")
    log.LOGGER.error("e")
    out, err = capsys.readouterr()
    assert [line.removeprefix("[clef-agent] ") for line in (out + err).splitlines()] == seen


@pytest.mark.parametrize("log_format", log.FORMATS)
@pytest.mark.parametrize("end", ["\n", "\r", "\r\n", "\x0b", "\x85", "\u2028", "\u2029", "\x1b[2K"])
def test_a_field_of_the_store_cannot_forge_a_line(
    log_format: str, end: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(log_format)
    log.LOGGER.warning("revoked at %s", f"x{end}[clef-agent] Agent ready.")
    err = capsys.readouterr().err
    assert len(err.splitlines()) == 1
    assert "\x1b" not in err


@pytest.mark.parametrize("log_format", log.FORMATS)
def test_a_path_that_is_no_utf8_does_not_swallow_the_line(
    log_format: str, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    log.configure(log_format)
    log.LOGGER.info("source: /srv/grüße-\udcff")
    assert b"udcff" in capsysbinary.readouterr().out


def test_json_lines_are_json(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure("json")
    log.LOGGER.warning("über %d", 3)
    line = json.loads(capsys.readouterr().err)
    assert line["level"] == "warning"
    assert line["message"] == "über 3"
    assert line["time"].endswith("Z")
    assert set(line) == {"time", "level", "message"}


@pytest.mark.parametrize("log_format", log.FORMATS)
def test_a_failure_without_a_name_leaves_its_trace_in_one_line(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(log_format)
    try:
        json.loads("odd")
    except ValueError:
        logging.getLogger("uvicorn.error").exception("in the application")
    (line,) = capsys.readouterr().err.splitlines()
    assert "in the application" in line
    assert "JSONDecodeError: Expecting value" in line


def test_configuring_again_replaces_and_does_not_add(capsys: pytest.CaptureFixture[str]) -> None:
    log.configure()
    log.configure("json", "error")
    log.configure()
    log.LOGGER.info("once")
    assert capsys.readouterr().out == "[clef-agent] once\n"


def test_a_log_that_nobody_reads_does_not_stop_the_agent_and_says_what_was_lost() -> None:
    reading, writing = os.pipe()
    with os.fdopen(reading) as reader, os.fdopen(writing, "w") as writer:
        handler = log._NeverWaiting(writer)
        handler.setFormatter(log._Text())
        record = logging.LogRecord("clef_agent", logging.INFO, "", 0, "x" * 1000, (), None)
        for _ in range(200):
            handler.emit(record)
        os.set_blocking(reading, False)
        assert len(os.read(reading, 1 << 20)) < 100_000
        handler.emit(record)
        told = os.read(reading, 1 << 20).decode()
        assert "lines were lost" in told
        assert told.count("\n") == 2
        assert not reader.closed


@pytest.mark.parametrize("log_format", ["text", "json"])
def test_a_line_is_never_longer_than_a_page(
    log_format: str, capsys: pytest.CaptureFixture[str]
) -> None:
    log.configure(log_format)
    log.LOGGER.info("%s", "\U0001f511" * 5000)
    line = capsys.readouterr().out.rstrip("\n")
    assert len(line.encode()) <= 4096
    if log_format == "json":
        assert json.loads(line)["message"]
