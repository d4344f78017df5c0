"""Runs beside each other: results, settings that differ, and the page of both. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tfos_job.reports import page, run_curves
from tfos_job.reports.page_parts import Picture, Table, template
from tfos_job.run import given_settings, summary, verdict
from tfos_job.run.quantities import NOTHING, measured, number, points, share
from tfos_job.run.summary import RunSummary

SECTIONS = {"results": "Results", "curves": "Curves", "settings": "Settings that differ"}


@dataclass(frozen=True, kw_only=True)
class NamedRun:
    """A run in the page's head, with the stroke of its curves."""

    name: str
    place: str
    state: str
    colour: str
    stroke: str


@dataclass(frozen=True, kw_only=True)
class ComparisonView:
    """The page's content, in its order. `unreadable` names the runs that are missing from it."""

    title: str
    sections: Mapping[str, str]
    runs: Sequence[NamedRun]
    unreadable: Sequence[str]
    results: Table
    curves: Sequence[Picture]
    settings: Table
    notes: Mapping[str, Sequence[str]] = field(default_factory=dict)
    made: str = ""


def render(
    runs: Sequence[RunSummary], unreadable: Sequence[str], curves: Sequence[Picture], notes: Sequence[str], made: str
) -> str:
    """The page, as UTF-8 text."""
    names = short_names([run.place for run in runs])
    looks = [run_curves.style(index) for index in range(len(runs))]
    view = ComparisonView(
        title=f"{len(runs)} runs: {', '.join(names)}",
        sections=SECTIONS,
        runs=[
            NamedRun(
                name=name,
                place=run.place,
                state=summary.words(run),
                colour=look.colour,
                stroke=f"3px {look.css_stroke}",
            )
            for name, run, look in zip(names, runs, looks, strict=True)
        ],
        unreadable=unreadable,
        results=results(runs),
        curves=curves,
        settings=settings(runs),
        notes={"curves": notes},
        made=made,
    )
    return template("comparison.html").render(view=view)


def short_names(places: Sequence[str]) -> list[str]:
    """The part of each path that tells the runs apart: what follows the folders that all have in common."""
    parts = [place.rstrip("/").split("/") for place in places]
    common = 0
    while len(parts) > 1 and all(len(part) > common + 1 and part[common] == parts[0][common] for part in parts):
        common += 1
    return ["/".join(part[common:] if len(parts) > 1 else part[-1:]) for part in parts]


def results(runs: Sequence[RunSummary]) -> Table:
    """The numbers of each run in a column; top-1 with the difference to the first run, in percentage points."""
    rows: list[tuple[str, ...]] = [("state", *(run.state for run in runs))]
    for split in dict.fromkeys(score.split for run in runs for score in run.scores):
        standings = [
            next((one for one in verdict.standings(run, runs[0]) if one.score.split == split), None) for run in runs
        ]
        labels = {one.score.label for one in standings if one is not None}
        rows.append((f"top-1, {labels.pop() if len(labels) == 1 else split}", *_top_1(standings)))
        scores = [run.score(split) for run in runs]
        rows.append((f"loss, {split}", *(measured(score.metrics.get("loss") if score else None) for score in scores)))
        rows.append((f"evaluated at step, {split}", *(number(score.step) if score else NOTHING for score in scores)))
    facts = [page.facts(run) for run in runs]
    rows += [(name, *(of_run[name] for of_run in facts)) for name in facts[0] if name != "validation loss"]
    head = ("", *short_names([run.place for run in runs]))
    return Table(head=head, rows=rows, caption="In brackets: the difference to the first run, in percentage points")


def _top_1(standings: Sequence[verdict.Standing | None]) -> list[str]:
    cells = []
    for index, one in enumerate(standings):
        if one is None:
            cells.append(NOTHING)
            continue
        text = share(one.top_1, one.score.num_records)
        difference = one.difference if index else None
        cells.append(text if difference is None else f"{text} ({points(difference)})")
    return cells


def differing(runs: Sequence[RunSummary]) -> dict[str, list[Any]]:
    """The settings that are not the same in all runs, each with the value of every run; None where a run has none."""
    names = dict.fromkeys(name for run in runs for name in run.settings)
    values = {name: [run.settings.get(name) for run in runs] for name in sorted(names) if name != "train_dir"}
    return {name: of_runs for name, of_runs in values.items() if any(value != of_runs[0] for value in of_runs)}


def settings(runs: Sequence[RunSummary]) -> Table:
    """`differing`, as a table."""
    rows = [(name, *map(given_settings.text, values)) for name, values in differing(runs).items()]
    return Table(head=("setting", *short_names([run.place for run in runs])), rows=rows)
