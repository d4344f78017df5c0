"""Curves of several runs over one another: a chart a quantity, a colour and a stroke a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tfos_job.reports.curves import Points
from tfos_job.reports.figure import BLUE, GREEN, INK, MUTED, ORANGE, RED, chart, plain

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Each colour has its own stroke and mark, so that runs stay apart in grey and to the colour-blind.
_COLOURS = (BLUE, ORANGE, GREEN, RED, "#805ad5", INK, "#b7791f", MUTED)
_STROKES: tuple[Any, ...] = ("-", (0, (6, 2)), (0, (1.5, 1.5)), (0, (8, 2, 1.5, 2)))
_CSS_STROKES = ("solid", "dashed", "dotted", "double")
_MARKS = "os^Dv*Px"
_NUM_MARKS = 8  # on a line


@dataclass(frozen=True, kw_only=True)
class RunLine:
    """The points of one run, by step."""

    name: str
    points: Points


@dataclass(frozen=True, kw_only=True)
class Style:
    """How a run is drawn, in the page's own words too."""

    colour: str
    stroke: Any
    css_stroke: str
    mark: str


def style(index: int) -> Style:
    """The style of the run at `index`; after 8 runs colours repeat, with another stroke."""
    stroke = (index + index // len(_COLOURS)) % len(_STROKES)
    return Style(
        colour=_COLOURS[index % len(_COLOURS)],
        stroke=_STROKES[stroke],
        css_stroke=_CSS_STROKES[stroke],
        mark=_MARKS[index % len(_MARKS)],
    )


def draw(
    key: str, title: str, lines: Sequence[RunLine], *, limit: float | None = None, legend: str = "best"
) -> bytes | None:
    """Draws one quantity of all runs over global steps; returns a PNG, or None if no run has it.

    Args:
      key: of the quantity in a point.
      title: of the chart.
      lines: of the runs, in their order; one without the quantity keeps its style for the others.
      limit: upper end of the axis.
      legend: its corner, where the curves of this quantity leave room.
    """
    series = [[(point["step"], point[key]) for point in line.points if point.get(key) is not None] for line in lines]
    if not any(series):
        return None

    def paint(figure: Figure) -> None:
        axes = figure.subplots()
        for index, (line, pairs) in enumerate(zip(lines, series, strict=True)):
            if pairs:
                look = style(index)
                every = max(1, len(pairs) // _NUM_MARKS)
                axes.plot(
                    *zip(*pairs, strict=True), label=line.name, color=look.colour, linestyle=look.stroke,
                    linewidth=1.3, marker=look.mark, markersize=4, markevery=(index % every, every),
                )  # fmt: skip
        axes.set(title=title, xlabel="global step")
        axes.set_ylim(bottom=0, top=limit)
        axes.xaxis.set_major_formatter("{x:,.0f}")
        plain(axes)
        axes.legend(fontsize=8.5, handlelength=4, loc=legend)

    return chart(6, 3.4, paint)
