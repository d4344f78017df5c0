"""The account of a run, over all attempts and commands that worked on it: the content of `report.json`. Pure.

Times are arguments: `now_s` is of a clock that only goes forward.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tfos_job.errors import InterruptedJobError, JobError
from tfos_job.protocol import messages
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.topology import WORKER, Task
from tfos_job.run import attempt_account, goodput
from tfos_job.run.attempts import attempts_of
from tfos_job.run.folder import FAILED, RUNNING
from tfos_job.run.placement import wire
from tfos_job.run.summary import ABANDONED, seconds_of

FORMAT_VERSION = 1
_MAX_CURVE_POINTS = 1000
_MAX_ATTEMPTS = 100

Attempt = dict[str, Any]


class RunAccount:
    """The values of a report.

    Attributes:
      values: as JSON has them; those that follow from the time are as of the last `snapshot`.
    """

    def __init__(
        self, previous: Mapping[str, Any] | None, facts: Mapping[str, Any], *, application: str, now_s: float
    ) -> None:
        """The account before the command's first attempt.

        Args:
          previous: the report of the run so far, whose curves and attempts go on; None for a new run.
          facts: values that are known before the start.
          application: YARN's id of this one; empty elsewhere.
          now_s: the time from which seconds of this command count.
        """
        previous = previous or {}
        self._began_s = now_s
        self._elapsed_before_s = _elapsed_s(previous, application)
        self._counted_s = 0.0
        self._num_begun = 0  # attempts of this command
        self._phase: tuple[str, float] | None = None
        self._closed_s: float | None = None  # when the last attempt ended, if no phase began since
        self._between: dict[str, float] = {}  # phases since then
        self._step_s: dict[Task, tuple[float, int]] = {}  # sum of means and their number, by worker
        self.values: dict[str, Any] = {
            "format_version": FORMAT_VERSION,
            "attempts": _closed(previous),
            "num_attempts": previous.get("num_attempts", len(attempts_of(previous))),
            "num_restarts": previous.get("num_restarts", 0),
            "phases": dict(previous.get("phases") or {}),
            "curve": list(previous.get("curve") or []),
            "validation": list(previous.get("validation") or []),
            "step": 0,
            "metrics": {},
            "images_per_second": previous.get("images_per_second"),
            "slowest_worker": None,
            "excluded_hosts": list(previous.get("excluded_hosts") or []),
            "application": application,
            **facts,
        }

    @property
    def attempt(self) -> Attempt:
        """The last attempt."""
        found: Attempt = self.values["attempts"][-1]
        return found

    def begin(self, attempt: Attempt, *, checkpoint: str | None, now_s: float) -> None:
        """Opens an attempt.

        Args:
          attempt: what is known of it: `number`, `start_step` and others.
          checkpoint: the checkpoint that it starts from.
          now_s: the time.
        """
        self.end_phase(now_s)
        values, start_step = self.values, attempt["start_step"]
        values.update(state=RUNNING, exit_code=None, exit_class=None, first_cause=None)
        values.update(step=start_step, checkpoint=checkpoint, slowest_worker=None)
        values["num_restarts"] += self._num_begun > 0
        values["num_attempts"] += 1
        if not start_step:
            values["images_per_second"] = None  # of another network, perhaps
        # Steps after the checkpoint that training resumes from will be repeated.
        self._counted_s = goodput.counted_s(values["curve"], start_step)
        for name in ("curve", "validation"):
            values[name] = [point for point in values[name] if point["step"] <= start_step]
        values["metrics"] = self._last_metrics()
        values["attempts"].append({**attempt, "phases": self._between})
        self._between, self._closed_s = {}, None
        _shorten(values["attempts"])
        self._step_s = {}
        self._num_begun += 1

    def begin_phase(self, name: str, now_s: float) -> None:
        """Ends the phase before, and begins this one."""
        self.end_phase(now_s)
        self._phase, self._closed_s = (name, now_s), None

    def end_phase(self, now_s: float) -> None:
        """Gives the phase's seconds to the run's phases and to the attempt's; of two attempts to the later one's."""
        if self._phase is None:
            return
        name, began_s = self._phase
        self._phase = None
        if name == "first_step":
            # With tracing of the graph and the first batch: a user waits for it after `build`.
            self.values["first_step_s"] = round(now_s - began_s, 3)
        for phases in (self._between if self._is_closed else self.attempt["phases"], self.values["phases"]):
            phases[name] = round(phases.get(name, 0.0) + now_s - began_s, 3)

    @property
    def _is_closed(self) -> bool:
        return "state" in self.attempt

    def hear(self, message: messages.ToDriver) -> None:
        """Takes a message of the coordinator."""
        match message:
            case messages.Built():
                self._hear_built(message)
            case messages.Progress():
                self._hear_progress(message)
            case messages.CheckpointPublished():
                self.values["checkpoint"] = message.path
            case messages.Evaluated():
                _add(self.values["validation"], {"step": message.step, **message.metrics})
                self.values["metrics"] = self._last_metrics()
            case messages.Finished():
                self._hear_finished(message)

    def _hear_built(self, built: messages.Built) -> None:
        self.values |= {"num_parameters": built.num_parameters, "num_trained": built.num_trained}
        names = ("wire_dtype", "ps_placement", "num_ps_tasks", "num_workers", "link_gbit")
        self.values["wire"] = wire(built.step_bytes, **{name: self.values[name] for name in names})

    def _hear_bound(self, bound: messages.Bottleneck) -> None:
        self.values["bound"] = bound.to_json()
        if "wire" in self.values:
            self.values["wire"]["measured_step_s"] = bound.network_s

    def _hear_progress(self, progress: messages.Progress) -> None:
        self._counted_s += progress.seconds
        rate = round(progress.images_per_second, 2)
        self.values["step"] = progress.step
        self.values["images_per_second"] = rate
        self.values["input_wait_fraction"] = progress.input_wait_fraction
        self._hear_bound(progress.bound)
        point = {
            "step": progress.step,
            "loss": progress.loss,
            "top_1": progress.top_1,
            "learning_rate": progress.learning_rate,
            "images_per_second": rate,
            "seconds": round(self._counted_s, 3),
        }
        _add(self.values["curve"], point)
        self.values["metrics"] = self._last_metrics()
        for index, step_s in progress.worker_step_s.items():
            total_s, count = self._step_s.get(Task(WORKER, int(index)), (0.0, 0))
            self._step_s[Task(WORKER, int(index))] = (total_s + step_s, count + 1)
        means = {str(task): total_s / count for task, (total_s, count) in self._step_s.items()}
        self.values["slowest_worker"] = attempt_account.slowest_worker(means, {})

    def _hear_finished(self, finished: messages.Finished) -> None:
        self.values["step"] = finished.step
        self.values["records_read"] = finished.records_read
        # Epochs of one worker; with several, how often each has read its part.
        parts = self.values.get("records_per_worker", [])
        self.values["passes"] = [
            round(read / part, 4) for read, part in zip(finished.records_read, parts, strict=False)
        ]
        if finished.bound:
            self._hear_bound(finished.bound)
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

    def end_attempt(
        self, end: AttemptEnd, decision: str, excluded: Mapping[str, str], now_s: float, *, gave_up: bool = False
    ) -> None:
        """Closes the attempt.

        Args:
          end: of the attempt.
          decision: what follows, and why.
          excluded: the hosts that the next attempt leaves out, with the reasons.
          now_s: the time.
          gave_up: restarts have not helped, so that YARN's next driver need not try.
        """
        self.end_phase(now_s)
        self._closed_s = now_s
        hosts = [{"host": host, "reason": reason} for host, reason in excluded.items()]
        account = attempt_account.of_end(end)
        self.attempt.update(
            {**account, "ended": now(), "decision": decision, "gave_up": gave_up, "excluded_hosts": hosts}
        )
        others = [host for host in self.values["excluded_hosts"] if host["host"] not in excluded]
        self.values["excluded_hosts"] = [*others, *hosts]
        if account["slowest_worker"] is not None:
            self.values["slowest_worker"] = account["slowest_worker"]

    def end(self, error: JobError | None, now_s: float) -> None:
        """Closes the command's account, and its attempt if that is open."""
        if self._closed_s is not None:
            self._phase = ("end", self._closed_s)
        self.end_phase(now_s)
        state, told = attempt_account.state_of(error), attempt_account.of_error(error) if error else None
        last = self.attempt
        for name, seconds in self._between.items():  # of a restart that has not come about
            last["phases"][name] = round(last["phases"].get(name, 0.0) + seconds, 3)
        if not self._is_closed:
            of_attempt = None if isinstance(error, InterruptedJobError) else told
            last.update(ended=now(), state=state, end_step=self.values["step"], first_cause=of_attempt)
        elif told and last["state"] == FAILED and (cause := last["first_cause"])["exit_code"] == told["exit_code"]:
            told = {**cause, **told}
        self.values.update(
            state=state,
            exit_code=told["exit_code"] if told else 0,
            exit_class=told["class"] if told else None,
            first_cause=told,
        )

    def snapshot(self, now_s: float) -> dict[str, Any]:
        """A copy of the values, which no later event changes."""
        elapsed_s = self._elapsed_before_s + now_s - self._began_s
        self.values["elapsed_s"] = round(elapsed_s, 3)
        self.values["counted_s"] = round(self._counted_s, 3)
        self.values["goodput"] = goodput.goodput(self._counted_s, elapsed_s)
        self.values["updated"] = now()
        copy: dict[str, Any] = _finite(self.values)
        return copy


def now() -> str:
    """The time of day, as reports have it."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _closed(previous: Mapping[str, Any]) -> list[Attempt]:
    """The attempts so far; one that was never closed lasted until its report was last written."""
    attempts = [dict(attempt) for attempt in attempts_of(previous)]
    if attempts and "state" not in attempts[-1]:
        attempts[-1].update(state=ABANDONED, ended=previous.get("updated"), end_step=previous.get("step"))
    return attempts


def _elapsed_s(previous: Mapping[str, Any], application: str) -> float:
    """Seconds of the commands so far; between two attempts of one YARN application nobody pauses, so they count."""
    elapsed_s = float(previous.get("elapsed_s") or 0.0)
    updated_s = seconds_of(previous.get("updated"))
    if application and previous.get("application") == application and updated_s is not None:
        elapsed_s += max(0.0, time.time() - updated_s)
    return elapsed_s


def _shorten(attempts: list[Attempt]) -> None:
    """Keeps a report of many attempts small: the details of the last ones, and the first attempt."""
    for i in range(len(attempts) - attempt_account.NUM_DETAILED):
        attempts[i] = attempt_account.without_details(attempts[i])
    if len(attempts) > _MAX_ATTEMPTS:
        del attempts[1 : len(attempts) - _MAX_ATTEMPTS + 1]


def _add(points: list[dict[str, Any]], point: dict[str, Any]) -> None:
    points.append(point)
    if len(points) > _MAX_CURVE_POINTS:
        del points[1:-1:2]


def _finite(value: Any) -> Any:
    """A copy with null for numbers that JSON does not have."""
    if isinstance(value, Mapping):
        return {name: _finite(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
