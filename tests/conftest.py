from pathlib import Path

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print what the tests counted, such as how much was acknowledged before a kill and how much of it was missing."""
    lines = [
        f"{Path(report.nodeid).name}: {value}"
        for outcome in ("passed", "failed")
        for report in terminalreporter.getreports(outcome)
        for name, value in report.user_properties
        if name == "tally" and report.when == "call"
    ]
    if lines:
        terminalreporter.section("what was acknowledged, and what became of it")
        for line in sorted(lines):
            terminalreporter.write_line(line)
