"""`report --follow`: a run as it goes on, on this host or on HDFS, until it ends.

The run is only read: whoever follows it may stop at any time. It ends as its report says, or when nobody holds its lock
any more: a killed driver writes no end.
"""

from __future__ import annotations

import enum
import logging
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from tfos_job import storage
from tfos_job.errors import JobError, MissingInputError, NodeDiedError, exit_code_class
from tfos_job.layout import RunLayout
from tfos_job.lock_file import TTL_S, Hold, Observer
from tfos_job.run import summary
from tfos_job.run.folder import FINISHED, RUNNING
from tfos_job.run.news import News

_POLL_S = 2.0
_log = logging.getLogger(__name__)


class Phase(enum.Enum):
    """Where a run stands for those who follow it."""

    AWAITED = "nothing of it is there yet"
    STARTING = "a command holds it and has not reported yet"
    GOING = "it runs"
    ABANDONED = "it ran, and nobody holds it any more"
    ENDED = "it has ended"


def phase(hold: Hold, state: str | None, *, was_going: bool = False) -> Phase:
    """The phase of a run, from its lock and the state in its report, which is read after the lock. Pure.

    A command that resumes a run takes the lock first and reports later; one that ends, as it does if it `was_going`,
    reports first and then releases the lock.
    """
    if state == RUNNING:
        return Phase.GOING if hold is Hold.HELD else Phase.ABANDONED
    if hold is Hold.HELD:
        return Phase.GOING if was_going else Phase.STARTING
    return Phase.AWAITED if state is None else Phase.ENDED


def follow(train_dir: str, *, sleep: Callable[[float], None] = time.sleep) -> dict[str, Any]:
    """Logs what is new of a run until it ends.

    Returns:
      Its report, with `abandoned` if its driver was killed: it says `running`, and nobody holds the run's lock.

    Raises:
      JobError: the file system has not answered for longer than its retries.
    """
    news, last = News(), None
    for now, report in _observe(train_dir, sleep):
        if now is not last:
            last = now
            _say(now, train_dir)
        if report is not None and now is not Phase.STARTING:
            for line in news.of(report):
                _log.info("%s", line)
    assert report is not None
    return report | {"abandoned": True} if now is Phase.ABANDONED else report


def own_error(train_dir: str, report: Mapping[str, Any]) -> JobError | None:
    """The error that a run has ended with, with its own exit code; None for one that has finished."""
    if report.get("state") == FINISHED:
        return None
    if report.get("abandoned"):
        return NodeDiedError(
            "it says that it runs, but its driver is gone: nobody holds its lock",
            place=train_dir,
            next_step="The same `train` command resumes it from its last checkpoint",
        )
    code = report.get("exit_code")
    fact, place, next_step = summary.cause(report) or (f"the run is {report.get('state')}", "", "")
    error = exit_code_class(int(code or 0))(fact, place=place or train_dir, next_step=next_step)
    error.exit_code = int(code or error.exit_code)
    return error


def _observe(train_dir: str, sleep: Callable[[float], None]) -> Iterator[tuple[Phase, dict[str, Any] | None]]:
    """Yields phase and report, again and again, to the end. A phase without a holder counts when it is seen twice."""
    run, before = RunLayout(train_dir), Phase.AWAITED
    observer = Observer(run.lock)
    while True:
        hold = observer.look()
        report = _read(run.report)
        state = None if report is None else str(report.get("state"))
        now = phase(hold, state, was_going=before is Phase.GOING)
        is_over = now in (Phase.ABANDONED, Phase.ENDED)
        if not is_over or now is before:
            yield now, report
        if is_over and now is before:
            return
        before = now
        sleep(_POLL_S)


def _read(path: str) -> dict[str, Any] | None:
    """The report; None where there is none yet."""
    try:
        report = storage.read_json(path)
    except MissingInputError:
        return None
    except ValueError:
        report = None
    return report if isinstance(report, dict) else {}


def _say(now: Phase, train_dir: str) -> None:
    if now is Phase.AWAITED:
        _log.info("%s: no run there yet; waiting for one to begin", train_dir)
    elif now is Phase.STARTING:
        _log.info("%s: a command has begun to work on it; its report follows", train_dir)
    elif now is Phase.GOING:
        _log.info("%s: running; a driver that dies is noticed within %.0f s", train_dir, TTL_S)
