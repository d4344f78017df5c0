"""The outcome of a submitted command: a JSON file that the driver writes and the submitting host reads.

In YARN's cluster mode the driver runs in a container, and neither its exit code nor its results reach the submitting
host. `submit` names a folder in `OUTCOME_DIR_VARIABLE`. Each attempt of the application writes `<application
id>.json` there at its start and its end, and submit reads it. Without the variable nothing is written.
"""

from __future__ import annotations

import logging
import os
import socket
import time
from typing import Any

from tfos_job import storage
from tfos_job.errors import JobError
from tfos_job.host import container
from tfos_job.layout import join

OUTCOME_DIR_VARIABLE = "TFOS_JOB_OUTCOME_DIR"
_log = logging.getLogger(__name__)


def outcome_path(outcome_dir: str, application: str) -> str:
    return join(outcome_dir, f"{application}.json")


class Outcome:
    """The outcome file of one attempt. A failure to write it is logged only: YARN's diagnostics have the exit code."""

    def __init__(self, command: str) -> None:
        folder, application = os.environ.get(OUTCOME_DIR_VARIABLE), container.application_id()
        self._path = outcome_path(folder, application) if folder and application else ""
        self._results: list[Any] = []
        self._values: dict[str, Any] = {
            "command": command,
            "application": application,
            "attempt": container.attempt_number(),
            "host": socket.gethostname(),
            "log_url": container.log_url(),
            "started_s": time.time(),
        }

    def begin(self) -> None:
        self._write({"exit_code": None})

    def add(self, result: Any) -> None:
        """Adds a JSON value that the command prints."""
        if self._path:
            self._results.append(result)

    def end(self, exit_code: int, error: JobError | None) -> None:
        fields = {"fact": error.fact, "place": error.place, "next_step": error.next_step} if error else None
        self._write({"exit_code": exit_code, "error": fields, "results": self._results, "ended_s": time.time()})

    def _write(self, values: dict[str, Any]) -> None:
        if not self._path:
            return
        try:
            storage.write_json(self._path, {**self._values, **values})
        except JobError as e:
            _log.warning("The submitter will not learn the outcome: %s", e)
