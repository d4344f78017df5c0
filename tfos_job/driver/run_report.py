"""`report.json`, a run's machine-readable report, and the chart of its loss.

Written at the start, with every checkpoint and at the end, and every few seconds between, whole each time: a scheduler
that finds `"state": "running"` and no holder of the lock knows that the driver was killed. Whatever ends a run, its end
is written, unless another job has the run by then.
"""

from __future__ import annotations

import copy
import logging
import socket
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from tfos_job import __version__, storage
from tfos_job.errors import InterruptedJobError, JobError, MissingInputError
from tfos_job.host import container
from tfos_job.layout import RunLayout
from tfos_job.protocol import messages
from tfos_job.run.folder import FAILED, FINISHED
from tfos_job.run.resume import Change

log = logging.getLogger(__name__)

RUNNING, INTERRUPTED = "running", "interrupted"
_MAX_CURVE_POINTS = 1000
_PROGRESS_S = 5.0


class RunReport:
    """The report of one run, over all commands that worked on it."""

    def __init__(
        self, run: RunLayout, previous: dict[str, Any] | None, facts: dict[str, Any], *, held: bool = False
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
        previous = previous or {}
        self.values: dict[str, Any] = {
            "attempts": previous.get("attempts", []),
            "curve": previous.get("curve", []),
            "validation": previous.get("validation", []),
            "step": 0,
            "metrics": {},
            "images_per_second": previous.get("images_per_second"),
            "package_version": __version__,
            "application": container.application_id(),
            **facts,
        }
        self._phase: tuple[str, float] | None = None
        self._training_began: float | None = None
        self._written = 0.0
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="report")
        self._writing: Future[None] | None = None

    def begin(self, start_step: int, checkpoint: str | None, records: dict[str, int] | None) -> None:
        """Opens an attempt.

        Args:
          start_step: its first step.
          checkpoint: the checkpoint that it starts from.
          records: of the split, how many the current epoch will see twice and how many not at all, since their order
            has changed; None if the records have changed, too.
        """
        self.values.update(
            state=RUNNING, exit_code=None, step=start_step, checkpoint=checkpoint, first_cause=None, phases={}
        )
        # Steps after the checkpoint that training resumes from will be repeated.
        self.values["curve"] = [point for point in self.values["curve"] if point["step"] <= start_step]
        self.values["validation"] = [point for point in self.values["validation"] if point["step"] <= start_step]
        self.values["metrics"] = self._last_metrics()
        attempt = {"start_step": start_step, "started": _now(), "host": socket.gethostname(), "records": records}
        if container.application_id():
            attempt |= {
                "application": container.application_id(),
                "application_attempt": container.attempt_number(),
                "log_url": container.log_url(),
            }
        self.values["attempts"].append(attempt)
        self.write()

    def commit(self, settings: str, changes: Sequence[Change]) -> None:
        """Makes this report the run's: from now on it is written.

        Args:
          settings: the file with the settings of this attempt.
          changes: between these and the settings before.
        """
        self.values["attempts"][-1].update(settings=settings, changes=[str(change) for change in changes])
        self._held = False
        self.write()

    def on_phase(self, name: str) -> None:
        """Ends the phase before, whose seconds go to `phases`, and begins this one."""
        now = time.monotonic()
        if self._phase is not None:
            phase, began = self._phase
            phases = self.values["phases"]
            phases[phase] = round(phases.get(phase, 0.0) + now - began, 3)
        self._phase = (name, now)
        if name == "training":
            self._training_began = now

    def on_message(self, message: messages.ToDriver) -> None:
        match message:
            case messages.Built():
                self.values |= {"num_parameters": message.num_parameters, "num_trained": message.num_trained}
            case messages.Progress():
                self._on_progress(message)
            case messages.CheckpointPublished():
                self.values["checkpoint"] = message.path
                self.write()
            case messages.Evaluated():
                self.values["validation"].append({"step": message.step, **message.metrics})
                self.values["metrics"] = self._last_metrics()
            case messages.Finished():
                self._on_finished(message)

    def _on_progress(self, progress: messages.Progress) -> None:
        if self._training_began is not None:
            # With tracing of the graph and the first batch: a user waits for it after `coordinator`.
            self.values["first_step_s"] = round(time.monotonic() - self._training_began, 3)
            self._training_began = None
        self.values["step"] = progress.step
        self.values["images_per_second"] = round(progress.images_per_second, 2)
        self.values["input_wait_fraction"] = progress.input_wait_fraction
        self.values["bound"] = progress.bound.to_json()
        self._add_to_curve(
            {
                "step": progress.step,
                "loss": progress.loss,
                "top_1": progress.top_1,
                "learning_rate": progress.learning_rate,
                "images_per_second": round(progress.images_per_second, 2),
            }
        )
        self.values["metrics"] = self._last_metrics()
        self._write_in_background()

    def _on_finished(self, finished: messages.Finished) -> None:
        self.values["step"] = finished.step
        self.values["records_read"] = finished.records_read
        # Epochs of one worker; with several, how often each has read its part.
        parts = self.values.get("records_per_worker", [])
        self.values["passes"] = [
            round(read / part, 4) for read, part in zip(finished.records_read, parts, strict=False)
        ]
        if finished.bound:
            self.values["bound"] = finished.bound.to_json()
        if finished.seconds:
            self.values["images_per_second"] = round(finished.images / finished.seconds, 2)

    def _last_metrics(self) -> dict[str, Any]:
        """The last metrics of training and of validation, each with its step."""
        metrics: dict[str, Any] = {}
        for point in self.values["curve"][-1:]:
            metrics |= {f"train_{name}": point[name] for name in ("step", "loss", "top_1")}
        for point in self.values["validation"][-1:]:
            metrics |= {"evaluated_step" if name == "step" else name: value for name, value in point.items()}
        return metrics

    def _add_to_curve(self, point: dict[str, Any]) -> None:
        curve = self.values["curve"]
        curve.append(point)
        if len(curve) > _MAX_CURVE_POINTS:
            del curve[1:-1:2]

    def end(self, error: JobError | None) -> None:
        self.on_phase("end")
        state = INTERRUPTED if isinstance(error, InterruptedJobError) else FAILED if error else FINISHED
        self.values.update(state=state, exit_code=error.exit_code if error else 0)
        if error is not None:
            self.values["first_cause"] = {"fact": error.fact, "place": error.place, "next_step": error.next_step}
        self.values["attempts"][-1].update(ended=_now(), state=state, end_step=self.values["step"])
        self.write()
        if self.values["curve"] and not self._held:
            self._draw()

    def _draw(self) -> None:
        from tfos_job.reports.curves import draw_loss

        try:
            storage.write_bytes(self._run.loss_png, draw_loss(self.values["curve"], self.values["validation"]))
        except Exception as e:  # noqa: BLE001 - a chart that fails must not turn a good end into a bad one
            log.warning("No %s: %s", self._run.loss_png, e)

    def is_undisturbed(self) -> bool:
        """True if the report in the folder is still this one: another job that begins adds an attempt, or clears it."""
        if self._writing is not None:
            self._writing.exception()
        try:
            found = storage.read_json(self._run.report)
        except (MissingInputError, ValueError):
            return False
        return bool(isinstance(found, dict) and found.get("attempts") == self.values["attempts"])

    def write(self) -> None:
        """Writes now; raises what the file system does. Nothing older is written afterwards."""
        if self._held:
            return
        if self._writing is not None:
            self._writing.exception()
        self._written = time.monotonic()
        storage.write_json(self._run.report, self._snapshot())

    def _write_in_background(self) -> None:
        """Writes on a thread: training does not wait for it; after a failure the next write tries again."""
        is_early = time.monotonic() - self._written < _PROGRESS_S
        if self._held or is_early or (self._writing and not self._writing.done()):
            return
        self._written = time.monotonic()
        self._writing = self._writer.submit(storage.write_json, self._run.report, self._snapshot())

    def _snapshot(self) -> dict[str, Any]:
        return {**copy.deepcopy(self.values), "updated": _now()}


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
