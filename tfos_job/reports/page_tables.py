"""The tables of a run's page, the columns that matter first: a narrow screen shows those. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.reports.page_parts import Picture, Table, clock, shares_and_numbers, shown
from tfos_job.run import given_settings, summary
from tfos_job.run.quantities import duration
from tfos_job.run.summary import RunSummary

_OF_ATTEMPT = ("state", "start_step", "end_step", "started", "ended", "host", "changes", "records", "settings")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One evaluation: its name, numbers, pictures and tables, and its missing parts."""

    name: str
    metrics: Mapping[str, Any]
    pictures: Sequence[Picture] = ()
    tables: Sequence[Table] = ()
    notes: Sequence[str] = ()


def metrics(evaluations: Sequence[Evaluation]) -> Table | None:
    """The shares first: they are what a narrow screen shows."""
    if not evaluations:
        return None
    there = dict.fromkeys(name for e in evaluations for name in e.metrics if name not in ("split", "step", "file"))
    names = sorted(there, key=lambda name: (not name.startswith("top_"), name == "num_examples"))
    rows = [
        (e.name, *shares_and_numbers([(name, e.metrics.get(name)) for name in names], e.metrics.get("num_examples")))
        for e in evaluations
    ]
    words = {"num_examples": "records", "ece": "calibration error"}
    head = [words.get(name, name.replace("_", "-") if name.startswith("top_") else name) for name in names]
    return Table(head=("evaluation", *head), rows=rows, caption="Every evaluation")


def settings(given: Mapping[str, Any]) -> list[Table]:
    if not given:
        return []
    changed, same = given_settings.split(given)
    tables = [Table(head=("setting", "value", "default"), rows=changed, caption="Settings that were given")]
    if same:
        rows = [(setting.name, setting.value) for setting in same]
        tables.append(Table(head=("setting", "value"), rows=rows, caption=f"{len(same)} defaults", folded=True))
    return tables


def attempts(run: RunSummary) -> Table | None:
    if not run.attempts:
        return None
    more = sorted({name for attempt in run.attempts for name in attempt} - set(_OF_ATTEMPT))
    updated = str(run.report.get("updated") or "")
    rows = []
    for count, attempt in enumerate(run.attempts, start=1):
        took = summary.total_s([attempt], updated)
        changes = attempt.get("changes")
        rows.append(
            (
                count,
                attempt.get("state"),
                f"{shown(attempt.get('start_step'))} → {shown(attempt.get('end_step'))}",
                None if took is None else duration(took),
                clock(str(attempt.get("started") or "")),
                attempt.get("host"),
                "; ".join(map(str, changes)) if isinstance(changes, list) else changes,
                _records(attempt.get("records")),
                *(attempt.get(name) for name in more),
            )
        )
    head = ("attempt", "state", "steps", "duration", "started", "host", "changed settings", "records", *more)
    return Table(head=head, rows=rows, caption="Each start of training")


def _records(value: Any) -> str:
    if not isinstance(value, Mapping):
        return "other ones than before"
    return f"{value.get('seen_twice', 0)} seen twice, {value.get('skipped', 0)} skipped"
