"""The tables of a run's page, the columns that matter first: a narrow screen shows those. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.reports.page_parts import Picture, Table, shares_and_numbers
from tfos_job.run import given_settings


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
