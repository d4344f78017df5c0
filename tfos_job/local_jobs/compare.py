"""`report` of several runs: beside each other, as JSON and as one page, in this process.

A run that cannot be read is named, and does not keep the others from being compared.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.errors import JobError
from tfos_job.reports import comparison, page_file
from tfos_job.reports.page_parts import Picture
from tfos_job.run import summary
from tfos_job.run.summary import RunSummary

# Key, title, where its points are, the upper end of its axis, and the legend's corner.
_CHARTS = (
    ("loss", "training loss (nats)", "curve", None, "upper right"),
    ("top_1", "training top-1", "curve", 1.0, "lower right"),
    ("loss", "validation loss (nats)", "validation", None, "upper right"),
    ("top_1", "validation top-1", "validation", 1.0, "lower right"),
    ("learning_rate", "learning rate", "curve", None, "lower left"),
    ("images_per_second", "images/s", "curve", None, "lower right"),
)


@dataclass(frozen=True, kw_only=True)
class Compared:
    """The runs that could be read, in their order, and the errors of the others, by run."""

    runs: Sequence[RunSummary]
    errors: dict[str, JobError]


def read(train_dirs: Sequence[str]) -> Compared:
    """Reads all runs.

    Raises:
      JobError: none of them could be read; the error of the first.
    """
    runs, errors = [], dict[str, JobError]()
    for train_dir in train_dirs:
        try:
            runs.append(summary.read(train_dir))
        except JobError as error:
            errors[train_dir] = error
    if not runs:
        raise next(iter(errors.values()))
    return Compared(runs=runs, errors=errors)


def to_json(compared: Compared) -> dict[str, Any]:
    """Results of each run, settings that differ in the runs' order, and the errors of the runs without results."""
    return {
        "runs": [
            {
                "run": run.place,
                "state": run.state,
                "exit_code": run.report.get("exit_code"),
                "step": run.report.get("step"),
                "total_steps": run.report.get("total_steps"),
                "duration_s": run.duration_s,
                "host": run.host or None,
                "num_attempts": run.report.get("num_attempts", len(run.attempts)),
                "goodput": run.goodput,
                "images_per_second": run.report.get("images_per_second"),
                "scores": {score.split: {"step": score.step, **_metrics(score.metrics)} for score in run.scores},
            }
            for run in compared.runs
        ],
        "settings": comparison.differing(compared.runs),
        "errors": {train_dir: str(error) for train_dir, error in compared.errors.items()},
    }


def lines(compared: Compared) -> list[str]:
    """The same for people: results, then settings that differ."""
    blocks = [comparison.results(compared.runs), comparison.settings(compared.runs)]
    rows = [[list(block.head), *block.cells] for block in blocks if block.rows]
    return [line for block in rows for line in ["", *_aligned(block)]]


def write_page(compared: Compared, path: str) -> dict[str, Any]:
    """Writes one HTML file with all that is known of the runs; returns its path and size.

    Raises:
      JobError: the file cannot be written.
    """
    curves, notes = _curves(compared.runs)
    text = comparison.render(
        compared.runs, [str(error) for error in compared.errors.values()], curves, notes, page_file.made()
    )
    return {"html": path, "size_bytes": page_file.write(path, text), "num_pictures": len(curves)}


def _curves(runs: Sequence[RunSummary]) -> tuple[list[Picture], list[str]]:
    from tfos_job.reports import run_curves

    names = comparison.short_names([run.place for run in runs])
    pictures, notes = [], []
    for key, title, where, limit, corner in _CHARTS:
        try:
            points = [[p for p in run.report.get(where) or [] if isinstance(p, dict)] for run in runs]
            drawn = [run_curves.RunLine(name=n, points=p) for n, p in zip(names, points, strict=True)]
            png = run_curves.draw(key, title, drawn, limit=limit, legend=corner)
        except Exception as e:  # noqa: BLE001 - an odd report does not prevent the other charts
            notes.append(f"No curves of {title}: {summary.reason(e)}")
            continue
        if png is None:
            notes.append(f"No run has values of {title}.")
        else:
            pictures.append(Picture(png=png, alt=f"Curves of {title} over global steps, a line a run", large=False))
    return pictures, notes


def _metrics(metrics: Any) -> dict[str, Any]:
    return {name: value for name, value in metrics.items() if name not in ("split", "step", "file")}


def _aligned(rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
