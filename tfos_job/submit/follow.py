"""Progress of a running application for the submitter: the URL of its driver's log, and a training's steps."""

from __future__ import annotations

import logging
import threading
from typing import Any

from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.layout import RunLayout
from tfos_job.outcome import outcome_path
from tfos_job.run.news import News

log = logging.getLogger(__name__)

_POLL_S = 3.0
_SAY_EVERY_POLLS = 3


class Follower:
    """A thread that polls the job's files, so that a slow NameNode does not delay signals."""

    def __init__(self, outcome_dir: str, application: str, train_dir: str | None) -> None:
        self._outcome_path = outcome_path(outcome_dir, application)
        self._application = application
        self._report_path = RunLayout(train_dir).report if train_dir else None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="follow", daemon=True)
        self._attempt = 0
        self._news = News()

    def __enter__(self) -> Follower:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(_POLL_S)

    def _run(self) -> None:
        polls = 0
        while not self._stop.wait(_POLL_S):
            polls += 1
            try:
                self._report_driver()
                if self._report_path:
                    self._report_run(in_full=polls % _SAY_EVERY_POLLS == 0)
            except (JobError, ValueError, KeyError) as e:
                log.debug("cannot follow: %s", e)

    def _report_driver(self) -> None:
        if not storage.exists(self._outcome_path):
            return
        outcome = storage.read_json(self._outcome_path)
        if outcome["attempt"] != self._attempt:
            self._attempt = outcome["attempt"]
            again = f"attempt {self._attempt}, " if self._attempt > 1 else ""
            log.info("%sdriver on %s: %s", again, outcome["host"], outcome["log_url"])

    def _report_run(self, *, in_full: bool) -> None:
        assert self._report_path is not None
        if not storage.exists(self._report_path):
            return
        report = storage.read_json(self._report_path)
        if report.get("application") != self._application:
            return  # the report is of an earlier application
        for line in self._news.of(report, with_step=in_full):
            log.info("%s", line)


def read_outcome(outcome_dir: str, application: str) -> dict[str, Any] | None:
    """Returns the outcome that the job wrote; None if there is none, or it cannot be read."""
    path = outcome_path(outcome_dir, application)
    try:
        return storage.read_json(path) if storage.exists(path) else None
    except (JobError, ValueError) as e:
        log.warning("The job's own account cannot be read: %s", e)
        return None


def read_report(train_dir: str) -> dict[str, Any]:
    """Returns the current report of a run, for display; empty if there is none, or it cannot be read."""
    path = RunLayout(train_dir).report
    try:
        return storage.read_json(path) if storage.exists(path) else {}
    except (JobError, ValueError) as e:
        log.warning("The run's report cannot be read: %s", e)
        return {}
