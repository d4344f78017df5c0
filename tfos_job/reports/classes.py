"""Charts of one number per class: bars with names for few classes, a sorted curve for many."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from tfos_job.reports.figure import BLUE, INK, MUTED, ORANGE, PALE, RED, chart, plain
from tfos_job.reports.lettering import short
from tfos_job.run.quantities import share

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

MOST_BARS = 60
"""Largest number of classes that are drawn as bars; more are drawn as a curve."""
_NAMED = 10  # classes that a curve's margin names, at either end
_LONGEST_LINE = 20  # characters
_LINE_PT = 13.5


def histogram(counts: np.ndarray, names: Sequence[str], *, title: str) -> bytes:
    """Draws the number of records of each class; returns a PNG.

    Args:
      counts: int64 [C].
      names: of the C classes.
      title: of the chart.
    """
    summary = f"{counts.sum():,} records of {len(counts):,} classes: {_spread(counts)}"
    if len(counts) <= MOST_BARS:
        labels = [f"{count:,}" for count in counts]
        order = list(range(len(counts)))
        return _bars(counts, order, names, labels, title, f"{summary}, by class id", "records")
    order = np.argsort(counts, kind="stable").tolist()
    empty = np.flatnonzero(counts == 0).tolist()
    rarest = [i for i in order if counts[i]][:_NAMED]
    notes = [
        ("most frequent", [f"{short(names[i])}  {counts[i]:,}" for i in order[::-1][:_NAMED]]),
        ("rarest", [f"{short(names[i])}  {counts[i]:,}" for i in rarest]),
        (f"without records: {len(empty):,}", _wrapped([short(names[i]) for i in empty]) if len(empty) else []),
    ]
    return _curve(counts[order], notes, title, summary, "records of a class", "classes, the rarest first")


def accuracy(num_correct: np.ndarray, num_records: np.ndarray, names: Sequence[str], *, title: str) -> bytes:
    """Draws top-1 of each class, the worst first; returns a PNG.

    Args:
      num_correct: int64 [C].
      num_records: int64 [C]; classes without records are named, not drawn.
      names: of the C classes.
      title: of the chart, with run and step.
    """
    seen = np.flatnonzero(num_records)
    shares = num_correct / np.maximum(num_records, 1)
    order = seen[np.lexsort((-num_records[seen], shares[seen]))].tolist()
    unseen = [short(names[i]) for i in np.flatnonzero(num_records == 0).tolist()]
    summary = (
        f"{num_records.sum():,} records of {len(seen):,} classes: mean of the classes "
        f"{share(shares[seen].mean())}, worst {share(shares[seen].min())}, median {share(np.median(shares[seen]))}"
    )
    if len(seen) <= MOST_BARS:
        if unseen:
            summary += f"; no records of {_cut(unseen)}"
        labels = [f"{num_correct[i]:,} of {num_records[i]:,}" for i in range(len(shares))]
        return _bars(shares, order, names, labels, title, summary, "top-1", limit=1.0)
    notes = [
        ("worst", [f"{short(names[i])}  {shares[i]:.2f}  ({num_correct[i]} of {num_records[i]})" for i in order[:16]]),
        (f"all right: {int((shares[seen] == 1).sum()):,} classes", []),
        (f"without records: {len(unseen):,}", _wrapped(unseen) if unseen else []),
    ]
    return _curve(shares[order], notes, title, summary, "top-1 of a class", "classes, the worst first", limit=1.0)


def _spread(counts: np.ndarray) -> str:
    return f"{counts.min():,} at least, {np.median(counts):,.0f} in the middle, {counts.max():,} at most"


def _cut(names: list[str]) -> str:
    return ", ".join(names[:8]) + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _wrapped(names: list[str], most_lines: int = 4) -> list[str]:
    """Wraps names to the width of the margin; names that do not fit are counted."""
    lines, shown = [""], 0
    for name in names:
        if len(lines[-1]) + len(name) > _LONGEST_LINE:
            if len(lines) == most_lines:
                break
            lines.append("")
        lines[-1] += f"{name} "
        shown += 1
    if shown < len(names):
        lines.append(f"and {len(names) - shown:,} more")
    return [line.rstrip() for line in lines]


def _bars(
    values: np.ndarray,
    order: list[int],
    names: Sequence[str],
    labels: Sequence[str],
    title: str,
    subtitle: str,
    unit: str,
    *,
    limit: float | None = None,
) -> bytes:
    """Draws a horizontal bar for each class of `order`, from the top, with its name before and its label after it."""

    def paint(figure: Figure) -> None:
        axes = figure.add_subplot()
        places = np.arange(len(order))
        shown = values[order]
        highest = limit or max(float(shown.max(initial=0)), 1.0)
        axes.barh(places, shown, height=0.72, color=[BLUE if value else RED for value in shown])
        axes.set_yticks(places, [short(names[i]) for i in order])
        for place, i in enumerate(order):
            axes.text(values[i] + highest * 0.008, place, labels[i], va="center", fontsize=8.5, color=MUTED)
        axes.set(xlabel=unit, xlim=(0, highest * 1.12), ylim=(len(order) - 0.4, -0.6))
        if limit:
            axes.set_xticks(np.linspace(0, limit, 6))
        plain(axes, grid="x")
        axes.spines["bottom"].set_visible(False)

    return chart(8, 1.5 + 0.26 * len(order), paint, title=title, subtitle=subtitle)


def _curve(
    values: np.ndarray,
    notes: list[tuple[str, list[str]]],
    title: str,
    subtitle: str,
    unit: str,
    along: str,
    *,
    limit: float | None = None,
) -> bytes:
    """Draws sorted values as a filled step curve, with min, median and max marked and names in the margin."""

    def paint(figure: Figure) -> None:
        axes, margin = figure.subplots(1, 2, width_ratios=(3.4, 1))
        places = np.arange(len(values) + 1)
        steps = np.append(values, values[-1:])
        axes.fill_between(places, steps, step="post", color=PALE, linewidth=0)
        axes.step(places, steps, where="post", color=BLUE, linewidth=1.3)
        highest = limit or max(float(values[-1]), 1.0)
        for name, at in (("min", 0), ("median", len(values) // 2), ("max", len(values) - 1)):
            _mark(axes, name, at, float(np.median(values)) if name == "median" else float(values[at]), highest)
        axes.set(xlabel=along, ylabel=unit, xlim=(0, len(values)), ylim=(0, highest * 1.12))
        axes.xaxis.set_major_formatter("{x:,.0f}")
        if limit:
            axes.set_yticks(np.linspace(0, limit, 6))
        else:
            axes.yaxis.set_major_formatter("{x:,.0f}")
        plain(axes)
        _write_margin(margin, notes)

    return chart(10, 6.8, paint, title=title, subtitle=subtitle)


def _mark(axes: Axes, name: str, at: int, value: float, highest: float) -> None:
    """Marks a point of the curve with its value, at a side that a sorted curve leaves free."""
    text = f"{name} {value:,.2f}".rstrip("0").rstrip(".") if value % 1 else f"{name} {value:,.0f}"
    shift, side = (-6, 7), "right"
    if at == 0:
        shift, side = (9, -14 if value > 0.1 * highest else 14), "left"
    axes.plot([at + 0.5], [value], marker="o", markersize=5, color=ORANGE, clip_on=False, zorder=3)
    axes.annotate(
        text, (at + 0.5, value), shift, textcoords="offset points", color=INK, fontsize=9.5, ha=side,
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.75, "pad": 1},
    )  # fmt: skip


def _write_margin(axes: Axes, notes: list[tuple[str, list[str]]]) -> None:
    axes.axis("off")
    down = 0.0

    def write(text: str, size: float, colour: str) -> None:
        place: dict[str, Any] = {"xycoords": "axes fraction", "textcoords": "offset points", "annotation_clip": False}
        note = axes.annotate(text, (0, 1), (0, -down), va="top", fontsize=size, color=colour, **place)
        note.set_in_layout(False)

    for head, lines in notes:
        write(head, 10, MUTED)
        for text in lines:
            down += _LINE_PT
            write(text, 9, INK)
        down += 1.7 * _LINE_PT
