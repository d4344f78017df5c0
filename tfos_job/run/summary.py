"""A run as its folder tells it: its report, its settings and its evaluations, for those who only read."""

from __future__ import annotations

import calendar
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfos_job import storage
from tfos_job.errors import BadDataError, JobError, MissingInputError
from tfos_job.layout import RunLayout
from tfos_job.lock_file import is_abandoned
from tfos_job.run.attempts import attempts_of
from tfos_job.run.folder import FINISHED, RUNNING
from tfos_job.run.quantities import is_number

ABANDONED = "abandoned"
"""The state, for readers, of a run that says `running` though its driver is gone."""
_TIME = "%Y-%m-%dT%H:%M:%SZ"


@dataclass(frozen=True, kw_only=True)
class Score:
    """The newest result of a run on one split.

    Attributes:
      is_validation: the run was validated on this split while it trained.
      metrics: `top_1`, `loss`, `num_examples` and others; of in-training evaluations, without `ece`.
    """

    split: str
    is_validation: bool
    step: int
    metrics: Mapping[str, Any]

    @property
    def top_1(self) -> float | None:
        value = self.metrics.get("top_1")
        return float(value) if is_number(value) else None

    @property
    def num_records(self) -> int | None:
        value = self.metrics.get("num_examples")
        return int(value) if is_number(value) else None

    @property
    def label(self) -> str:
        return f"{self.split} (validation)" if self.is_validation and self.split != "validation" else self.split


@dataclass(frozen=True, kw_only=True)
class RunSummary:
    """What is known of a run.

    Attributes:
      place: its folder, an absolute path or a URL.
      report: `report.json`, with `abandoned` where the state is `running` and no process holds the lock.
      settings: those of the last command; empty if they could not be read.
      evaluations: all evaluations, as their files have them.
      notes: what could not be read, by section of the page.
    """

    place: str
    report: Mapping[str, Any]
    settings: Mapping[str, Any] = field(default_factory=dict)
    evaluations: Sequence[Mapping[str, Any]] = ()
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The last part of its path."""
        return self.place.rstrip("/").rpartition("/")[2]

    @property
    def state(self) -> str:
        return ABANDONED if self.report.get("abandoned") else str(self.report.get("state", "unknown"))

    @property
    def attempts(self) -> list[Mapping[str, Any]]:
        return attempts_of(self.report)

    @property
    def host(self) -> str:
        """The host of the last attempt's driver; empty for runs that did not record it."""
        return str(self.attempts[-1].get("host") or "") if self.attempts else ""

    @property
    def started(self) -> str:
        """The start of the first attempt, as it is written; empty if unknown."""
        return str(self.attempts[0].get("started") or "") if self.attempts else ""

    @property
    def ended(self) -> str:
        """The end of the last attempt, or what was last heard of it; empty if unknown."""
        last = self.attempts[-1].get("ended") if self.attempts else None
        return str(last or self.report.get("updated") or "")

    @property
    def duration_s(self) -> float | None:
        """Seconds of all attempts, without the pauses between commands; None if unknown."""
        elapsed_s = self.report.get("elapsed_s")  # of earlier versions, too, only by their attempts
        summed_s = total_s(self.attempts, str(self.report.get("updated") or ""))
        return max(summed_s, float(elapsed_s)) if summed_s is not None and is_number(elapsed_s) else summed_s

    @property
    def goodput(self) -> float | None:
        """The share of that time that went into steps that count; None if unknown."""
        value = self.report.get("goodput")
        return float(value) if is_number(value) else None

    @property
    def scores(self) -> list[Score]:
        """The newest result on each split: those of `evaluate` first, validation last."""
        validation = self.settings.get("validation_split_name")
        newest: dict[str, Mapping[str, Any]] = {}
        for metrics in [*self._last_validation(validation), *self.evaluations]:
            split = str(metrics.get("split"))
            if split not in newest or _step(metrics) >= _step(newest[split]):
                newest[split] = metrics
        found = [
            Score(split=split, is_validation=split == validation, step=_step(metrics), metrics=metrics)
            for split, metrics in newest.items()
        ]
        return sorted(found, key=lambda score: (score.is_validation, score.split != "test", score.split))

    def score(self, split: str) -> Score | None:
        return next((score for score in self.scores if score.split == split), None)

    def _last_validation(self, split: Any) -> list[Mapping[str, Any]]:
        """The report's own: an evaluation within training need not have a file that can be read."""
        metrics = self.report.get("metrics")
        if not split or not isinstance(metrics, Mapping) or "evaluated_step" not in metrics:
            return []
        of_training = ("train_step", "train_loss", "train_top_1", "evaluated_step")
        own = {name: value for name, value in metrics.items() if name not in of_training}
        return [{**own, "split": split, "step": metrics["evaluated_step"]}]


def read_report(train_dir: str) -> dict[str, Any]:
    """Reads the report of a run; adds `abandoned` if its state is "running" but no process holds its lock.

    Raises:
      MissingInputError: the run has no report.
      BadDataError: the report is damaged.
    """
    path = RunLayout(train_dir).report
    try:
        report = storage.read_json(path)
        if not isinstance(report, dict):
            raise ValueError(f"{type(report).__name__}, expected an object")
    except MissingInputError as error:
        raise MissingInputError(
            "no such run: it has no report", place=path, next_step="Check its path: `train` writes the report"
        ) from error
    except ValueError as error:
        raise BadDataError(
            f"not a report: {error}", place=path, next_step="Run `train` again, which renews it"
        ) from error
    if report.get("state") == RUNNING and is_abandoned(RunLayout(train_dir).lock):
        report["abandoned"] = True
    return report


def read(train_dir: str, report: Mapping[str, Any] | None = None) -> RunSummary:
    """Reads what is known of a run; its report, unless it is given, must be there.

    Raises:
      MissingInputError: the run has no report.
      BadDataError: the report is damaged.
    """
    run, notes = RunLayout(train_dir), dict[str, list[str]]()
    known = read_report(train_dir) if report is None else report
    settings: Mapping[str, Any] = {}
    try:
        settings = dict(storage.read_json(run.config))
    except (JobError, ValueError, TypeError) as error:
        notes["settings"] = [f"No settings: {reason(error)}"]
    evaluations = []
    if storage.is_dir(run.evaluation_dir):
        names = [entry.path for entry in storage.list_dir(run.evaluation_dir) if not entry.name.startswith("_")]
        for path in (path for path in names if path.endswith(".json")):
            try:
                metrics = dict(storage.read_json(path))
                evaluations.append({**metrics, "step": int(metrics.get("step", 0)), "file": path})
            except (JobError, ValueError, TypeError) as error:
                notes.setdefault("evaluations", []).append(f"No {path.rpartition('/')[2]}: {reason(error)}")
    else:
        notes["evaluations"] = ["None yet: `tfos-job evaluate` makes them."]
    return RunSummary(
        place=storage.absolute(run.root), report=known, settings=settings, evaluations=evaluations, notes=notes
    )


def phases_of(report: Mapping[str, Any], application: str) -> dict[str, float]:
    """Seconds of the phases of all attempts in one YARN application."""
    found: dict[str, float] = {}
    for attempt in attempts_of(report):
        if attempt.get("application") == application:
            for name, seconds in (attempt.get("phases") or {}).items():
                found[name] = found.get(name, 0.0) + seconds
    return found


def words(run: RunSummary) -> str:
    """The state in words, with the exit code where it is not 0."""
    code = run.report.get("exit_code")
    if run.state == ABANDONED:
        return "abandoned: it says that it runs, but its driver is gone; the same train command resumes it"
    return run.state if run.state in (RUNNING, FINISHED) or code is None else f"{run.state}, exit code {code}"


def cause(report: Mapping[str, Any]) -> tuple[str, str, str] | None:
    """Fact, place and next step of what ended a run; None if nothing did."""
    found = report.get("first_cause")
    if not isinstance(found, Mapping) or report.get("state") == FINISHED:
        return None
    return str(found.get("fact", "not told")), str(found.get("place") or ""), str(found.get("next_step") or "")


def total_s(attempts: Sequence[Mapping[str, Any]], updated: str) -> float | None:
    """Seconds of all attempts together; one without an end lasted until `updated`. None if a time is missing."""
    total = 0.0
    for attempt in attempts:
        began, ended = seconds_of(attempt.get("started")), seconds_of(attempt.get("ended") or updated)
        if began is None or ended is None:
            return None
        total += max(0.0, ended - began)
    return total if attempts else None


def seconds_of(text: Any) -> float | None:
    """The Unix time of a report's time; None for anything else."""
    try:
        return float(calendar.timegm(time.strptime(str(text), _TIME)))
    except ValueError:
        return None


def _step(metrics: Mapping[str, Any]) -> int:
    value = metrics.get("step")
    return int(value) if is_number(value) else 0


def reason(error: Exception) -> str:
    """Why something could not be read, in words."""
    return str(error) if isinstance(error, JobError) else f"{type(error).__name__}: {error}"
