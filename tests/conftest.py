from pathlib import Path

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest: a file is run by one process, and the last one should not be waited for."""
    items.sort(key=lambda item: item.get_closest_marker("system") is None)


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
