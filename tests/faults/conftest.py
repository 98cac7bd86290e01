"""What each fault must show, and how many there are."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Prints how many faults were survived; one test may try thousands of arrangements."""
    passed, failed = (
        [
            report
            for report in terminalreporter.stats.get(outcome, ())
            if report.when == "call" and "tests/faults/" in report.nodeid
        ]
        for outcome in ("passed", "failed")
    )
    arrangements = sum(
        int(count)
        for report in passed
        for name, count in report.user_properties
        if name == "arrangements"
    )
    words = "nothing wrong served, nothing lost, service resumed"
    if failed:
        words = f"{len(failed)} more broke a promise"
    terminalreporter.write_line(
        f"{len(passed)} faults, {arrangements:,} arrangements of them in process: {words}"
    )
