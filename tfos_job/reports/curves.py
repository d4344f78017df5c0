"""Curves over a run's steps, and the reliability diagram."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from tfos_job.reports.figure import BLUE, INK, LINE, MUTED, ORANGE, PALE, chart, plain
from tfos_job.run.predictions import Calibration

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Points = Sequence[dict[str, Any]]


def draw_loss(curve: Points, validation: Points) -> bytes:
    """Draws loss and top-1 over global steps; returns a PNG."""

    def paint(figure: Figure) -> None:
        loss, top_1 = figure.subplots(1, 2)
        _over_steps(loss, "loss", "loss (nats)", curve, validation)
        _over_steps(top_1, "top_1", "top-1", curve, validation, limit=1.0)

    return chart(8, 3.2, paint)


def draw_one(
    key: str, name: str, curve: Points, validation: Points = (), *, limit: float | None = None
) -> bytes | None:
    """Draws one value over global steps; returns a PNG, or None if no point has the value."""
    if not any(key in point for point in (*curve, *validation)):
        return None
    return chart(6, 3.2, lambda figure: _over_steps(figure.subplots(), key, name, curve, validation, limit=limit))


def _over_steps(
    axes: Axes, key: str, name: str, curve: Points, validation: Points, *, limit: float | None = None
) -> None:
    styles: tuple[tuple[Points, str, dict[str, Any]], ...] = (
        (curve, "training", {"color": BLUE, "linewidth": 1.2}),
        (validation, "validation", {"color": ORANGE, "linewidth": 1.2, "marker": "o", "markersize": 4}),
    )
    lines = 0
    for points, label, style in styles:
        pairs = [(point["step"], point[key]) for point in points if point.get(key) is not None]
        if pairs:
            lines += 1
            axes.plot(*zip(*pairs, strict=True), label=label, **style)
    axes.set(title=name, xlabel="global step")
    axes.set_ylim(bottom=0, top=limit)
    axes.xaxis.set_major_formatter("{x:,.0f}")
    plain(axes)
    if lines > 1:
        axes.legend(loc="lower right" if limit else "upper right")  # where an accuracy and a loss leave room


def reliability(found: Calibration, *, title: str, subtitle: str) -> bytes:
    """Draws accuracy by the predicted probability, and the number of predictions in each bin; returns a PNG."""

    def paint(figure: Figure) -> None:
        above, below = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
        bins = [b for b in found.bins if b.num_examples]
        width = (found.bins[0].high - found.bins[0].low) * 0.92
        middles = [(b.low + b.high) / 2 for b in bins]
        above.bar(middles, [b.accuracy for b in bins], width, color=PALE, label="right in this bin")
        above.plot([0, 1], [0, 1], color=MUTED, linewidth=1, linestyle=(0, (4, 3)), label="as it should be")
        for b, middle in zip(bins, middles, strict=True):
            above.plot([middle, middle], [b.accuracy, b.confidence], color=ORANGE, linewidth=1.4, zorder=3)
        above.plot(
            middles,
            [b.confidence for b in bins],
            "o",
            color=ORANGE,
            markersize=4,
            label="mean probability of the guess",
        )
        above.set(ylabel="share of right guesses", ylim=(0, 1.04), xlim=(0, 1))
        above.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=3, fontsize=9, columnspacing=1.4)
        below.bar(middles, [b.num_examples for b in bins], width, color=BLUE)
        for b, middle in zip(bins, middles, strict=True):
            below.annotate(
                f"{b.num_examples:,}", (middle, b.num_examples), (0, 2), textcoords="offset points", ha="center",
                fontsize=7.5, color=INK,
            )  # fmt: skip
        below.set(
            xlabel="probability of the guess", ylabel="records", ylim=(0, max(b.num_examples for b in bins) * 1.25)
        )
        below.yaxis.set_major_formatter("{x:,.0f}")
        for axes in (above, below):
            plain(axes)
            axes.spines["left"].set_color(LINE)

    return chart(6.4, 6.4, paint, title=title, subtitle=subtitle)
