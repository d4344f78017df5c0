"""`report.json`, a run's machine-readable report, with the files of its attempts and the chart of its loss.

Written at the start, with every checkpoint and at the end, and every few seconds between, whole each time: a scheduler
that finds `"state": "running"` and no holder of the lock knows that the driver was killed. Whatever ends a run, its end
is written, unless another job has the run by then.

Only `begin` and `commit` of a command's first attempt, and `end`, wait until the report is written, and raise what the
file system does. All else is written on a thread: steps do not wait for it, and a failure is tried again with the next.
"""

from __future__ import annotations

import logging
import socket
import time
from collections.abc import Mapping, Sequence
from typing import Any

import pyspark

from tfos_job import __version__, storage
from tfos_job.doctor import machine
from tfos_job.driver import run_account
from tfos_job.driver.report_writer import Document, ReportWriter
from tfos_job.driver.run_account import RunAccount
from tfos_job.errors import JobError, MissingInputError
from tfos_job.host import container
from tfos_job.layout import RunLayout, join
from tfos_job.protocol import messages
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.run import attempts, checkpoint_files
from tfos_job.run.attempts import AttemptFile, attempts_of
from tfos_job.run.resume import Change

log = logging.getLogger(__name__)

_PROGRESS_S = 5.0


class RunReport:
    """The report of one run, over all commands that worked on it."""

    def __init__(
        self, run: RunLayout, previous: Mapping[str, Any] | None, facts: Mapping[str, Any], *, held: bool = False
    ) -> None:
        """Writes nothing yet.

        Args:
          run: the folder of the run.
          previous: the report of the run so far, whose curves and attempts go on; None for a new run.
          facts: values that are known before the start.
          held: write nothing before `commit`: the report in the folder is of a run that has not changed yet.
        """
        self._run = run
        self._held = held
        facts = {
            "package_version": __version__,
            "versions": {**machine.versions(), "pyspark": pyspark.__version__},
            **facts,
        }
        self._account = RunAccount(previous, facts, application=container.application_id(), now_s=time.monotonic())
        self._file: AttemptFile | None = None
        self._writer = ReportWriter()
        self._put_s = 0.0
        self._digest: tuple[str | None, str | None] = (None, None)  # of a checkpoint, by its path

    @property
    def values(self) -> dict[str, Any]:
        """The report, as JSON values."""
        return self._account.values

    def begin(self, *, number: int, start_step: int, checkpoint: str | None, records: Mapping[str, int] | None) -> None:
        """Opens an attempt: the command's first one, or a restart.

        Args:
          number: of the attempt in its run.
          start_step: its first step.
          checkpoint: the checkpoint that it starts from.
          records: of the split, how many the current epoch will see twice and how many not at all, since their order
            has changed; None if the records have changed, too.
        """
        attempt = {
            "number": number,
            "start_step": start_step,
            "started": run_account.now(),
            "host": socket.gethostname(),
            "records": records,
        }
        if container.application_id():
            attempt |= {
                "application": container.application_id(),
                "application_attempt": container.attempt_number(),
                "log_url": container.log_url(),
            }
        is_restart = self._file is not None
        if self._file is not None:
            self._file = attempts.restart(self._run, number, self._file)
            attempt |= {"settings": self._file.path, "changes": []}
        self._account.begin(attempt, checkpoint=checkpoint, now_s=time.monotonic())
        if is_restart:
            self._put(with_attempt=True)
        else:
            self._write()

    def commit(self, file: AttemptFile, changes: Sequence[Change]) -> None:
        """Makes this report the run's: from now on it is written.

        Args:
          file: of this attempt, with its settings.
          changes: between these and the settings before.
        """
        self._file = file
        self._account.attempt.update(settings=file.path, changes=[str(change) for change in changes])
        self.values["flags"] = dict(file.values["settings"])
        self._held = False
        self._write()

    def on_phase(self, name: str) -> None:
        """Ends the phase before, whose seconds go to `phases`, and begins this one."""
        self._account.begin_phase(name, time.monotonic())

    def on_message(self, message: messages.ToDriver) -> None:
        """Takes a message of the coordinator."""
        self._account.hear(message)
        is_due = time.monotonic() - self._put_s >= _PROGRESS_S
        if isinstance(message, messages.CheckpointPublished) or (isinstance(message, messages.Progress) and is_due):
            self._put()

    def end_attempt(
        self, end: AttemptEnd, decision: str, *, excluded: Mapping[str, str] | None = None, gave_up: bool = False
    ) -> None:
        """Closes the attempt.

        Args:
          end: of the attempt.
          decision: what follows, and why, in words.
          excluded: the hosts that the next attempt leaves out, with the reasons.
          gave_up: restarts have not helped, so that YARN's next driver need not try.
        """
        self._account.end_attempt(end, decision, excluded or {}, time.monotonic(), gave_up=gave_up)
        self._put(with_attempt=True)

    def end(self, error: JobError | None) -> None:
        """Closes the command's account; nothing is written afterwards."""
        self._account.end(error, time.monotonic())
        try:
            self._write(with_attempt=True)
        finally:
            self._writer.close()
        if self.values["curve"] and not self._held:
            self._draw()

    def abandon(self) -> None:
        """Writes nothing any more, not even what is waiting: whose the run is now is not known."""
        self._writer.close()

    def _draw(self) -> None:
        from tfos_job.reports.curves import draw_loss

        try:
            storage.write_bytes(self._run.loss_png, draw_loss(self.values["curve"], self.values["validation"]))
        except Exception as e:  # noqa: BLE001 - a chart that fails must not turn a good end into a bad one
            log.warning("No %s: %s", self._run.loss_png, e)

    def is_undisturbed(self) -> bool:
        """True if the report in the folder is still this one: another job that begins adds an attempt, or clears it.

        Nothing is written meanwhile, nor afterwards if it is not.
        """
        self._writer.hold()
        try:
            found = storage.read_json(self._run.report)
        except (MissingInputError, ValueError):
            found = None
        theirs = [_identity(attempt) for attempt in attempts_of(found)] if isinstance(found, dict) else []
        ours = [_identity(attempt) for attempt in attempts_of(self.values)]
        # A restart of ours may not have been written yet.
        is_ours = bool(theirs) and theirs == ours[: len(theirs)]
        if not is_ours:
            self._writer.close()
        return is_ours

    def _write(self, *, with_attempt: bool = False) -> None:
        """Writes now; raises what the file system does. Nothing older is written afterwards."""
        if self._put(with_attempt=with_attempt):
            self._writer.flush()
            self.values["checkpoint_digest"] = self._digest[1]

    def _put(self, *, with_attempt: bool = False) -> bool:
        """Writes on the thread; false if this is not the run's report yet."""
        if self._held:
            return False
        self._put_s = time.monotonic()
        values = self._account.snapshot(self._put_s)
        self._writer.put(self._run.report, self._with_digest(values))
        if with_attempt and self._file is not None:
            content = attempts.end(self._file, values["attempts"][-1])
            self._writer.put(self._file.path, lambda: content)
        return True

    def _with_digest(self, values: Mapping[str, Any]) -> Document:
        def document() -> Mapping[str, Any]:
            path = values["checkpoint"]
            if path != self._digest[0]:
                self._digest = (path, _digest_of(path) if path else None)
            return {**values, "checkpoint_digest": self._digest[1]}

        return document


def _digest_of(checkpoint: str) -> str | None:
    """The digest that a checkpoint's document has; None if it is gone already, or damaged."""
    try:
        document = storage.read_json(join(checkpoint, checkpoint_files.DOCUMENT_FILE))
    except (MissingInputError, ValueError):
        return None
    return document.get("document_sha256") if isinstance(document, dict) else None


def _identity(attempt: Mapping[str, Any]) -> tuple[Any, ...]:
    return tuple(attempt.get(name) for name in ("number", "started", "host"))
