"""What a run of the tests has cost, told at its end: time by folder, commands started, images trained; the slowest."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest

from tests.command import tally

_COUNTED = ("starts", "trainings", "images")
_NUM_SLOWEST = 15


@pytest.fixture(autouse=True)
def account(request: pytest.FixtureRequest) -> Iterator[None]:
    """What a test and the fixtures made for it have started goes into its report, and so comes from any worker."""
    yield
    request.node.user_properties += [(name, tally.pop(name, 0)) for name in _COUNTED]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    seconds: Counter[str] = Counter()
    tests: defaultdict[str, set[str]] = defaultdict(set)
    counted: defaultdict[str, Counter[str]] = defaultdict(Counter)
    by_test: Counter[str] = Counter()
    for report in (r for reports in terminalreporter.stats.values() for r in reports if hasattr(r, "duration")):
        folder = "/".join(report.nodeid.split("/")[:2])
        seconds[folder] += report.duration
        by_test[report.nodeid] += report.duration
        tests[folder].add(report.nodeid)
        if report.when == "teardown":
            counted[folder].update(dict(report.user_properties))
    if not tests:
        return
    terminalreporter.section("what it took (CONTRIBUTING.md has the budgets)")
    row = "{:<16}{:>8}{:>12}{:>10}{:>12}{:>12}".format
    terminalreporter.write_line(row("", "tests", "seconds", "commands", "trainings", "images"))
    for folder in sorted(tests):
        numbers = [f"{counted[folder][name]:,}" for name in _COUNTED]
        terminalreporter.write_line(row(folder, len(tests[folder]), f"{seconds[folder]:,.0f}", *numbers))
    terminalreporter.write_line("the slowest:")
    for test, took_s in by_test.most_common(_NUM_SLOWEST):
        terminalreporter.write_line(f"{took_s:8.1f} s  {test}")
