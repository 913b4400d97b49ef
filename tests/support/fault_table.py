"""`pytest --faults`: a run ends with a table of the faults of real inputs, one row for each mark that ran.

    @pytest.mark.fault(number, input, right) --> results --> number | input | right value | result

Of a test that is tried with several parameters the worst result counts.
"""

from __future__ import annotations

import re
from collections.abc import Generator

import pytest

__all__ = ["pytest_addoption", "pytest_runtest_makereport", "pytest_terminal_summary"]

_WORST = ("failed", "skipped", "passed")
_RESULTS = pytest.StashKey[dict[tuple[str, str, str], str]]()


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the option."""
    parser.addoption("--faults", action="store_true", help="end with a table of the faults of real inputs")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep the result of a marked test."""
    report = yield
    if report.when == "call" or (report.when == "setup" and report.outcome != "passed"):
        results = item.config.stash.setdefault(_RESULTS, {})
        for mark in item.iter_markers("fault"):
            number, given, right = (*map(str, mark.args), *map(str, mark.kwargs.values()))
            worst = min(report.outcome, results.get((number, given, right), "passed"), key=_WORST.index)
            results[number, given, right] = worst
    return report


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    """Write the table."""
    if not config.getoption("--faults"):
        return
    results = config.stash.get(_RESULTS, {})
    terminalreporter.section("faults of real inputs")
    terminalreporter.write_line("| number | input | right value | result |")
    terminalreporter.write_line("|---|---|---|---|")
    for row in sorted(results, key=lambda row: (_order(row[0]), row[1:])):
        terminalreporter.write_line("| " + " | ".join([*map(_cell, row), results[row]]) + " |")


def _order(number: str) -> tuple[str, int]:
    found = re.fullmatch(r"([A-Z]+)(\d+)", number)
    return (found[1], int(found[2])) if found else (number, 0)


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())
