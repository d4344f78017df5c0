"""The style of all charts: font, colours, title. matplotlib is used through one function.

Figures are made and saved without pyplot, so that the process's matplotlib settings do not change.
"""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

from tfos_job.reports.lettering import font_files

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

INK, MUTED, LINE = "#1f2933", "#616e7c", "#d9dee4"
BLUE, ORANGE, GREEN, RED, PALE = "#2b6cb0", "#d9730d", "#2f855a", "#c53030", "#bcd3ea"
DPI = 125
_HEAD_IN = 0.78  # inches of title and subtitle
_MARGIN_IN = 0.18


@functools.cache
def _families() -> tuple[str, ...]:
    """Registers the fonts with matplotlib; returns their names, the preferred one first."""
    from matplotlib import font_manager

    for path in font_files():
        font_manager.fontManager.addfont(path)
    return tuple(font_manager.FontProperties(fname=path).get_name() for path in font_files())


def _settings() -> dict[str, Any]:
    return {
        "font.family": list(_families()),
        "font.size": 10,
        "text.color": INK,
        "text.parse_math": False,  # a class's name may be $
        "axes.unicode_minus": False,
        "axes.edgecolor": LINE,
        "axes.labelcolor": MUTED,
        "axes.titlelocation": "left",
        "axes.titlesize": 11,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "axes.grid.axis": "both",
        "grid.color": LINE,
        "grid.linewidth": 0.6,
        "xtick.color": LINE,
        "ytick.color": LINE,
        "xtick.labelcolor": INK,
        "ytick.labelcolor": INK,
        "legend.frameon": False,
        "figure.facecolor": "white",
        "savefig.facecolor": "white",
    }


def chart(
    width: float, height: float, paint: Callable[[Figure], None], *, title: str = "", subtitle: str = ""
) -> bytes:
    """Draws a chart.

    Args:
      width: inches.
      height: inches, with title and subtitle.
      paint: adds axes to the figure, which arranges them below the title.
      title: subject of the chart.
      subtitle: its data, with counts.

    Returns:
      A PNG of `width` × `height` × 125 pixels an inch.
    """
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    with matplotlib.rc_context():
        matplotlib.rcdefaults()  # ignores the user's matplotlibrc, which is for other pictures
        matplotlib.rcParams.update(_settings())
        figure = Figure(figsize=(width, height), dpi=DPI)
        FigureCanvasAgg(figure)
        head = _HEAD_IN / height if title else 0.0
        margin = _MARGIN_IN / height if title else 0.0
        pad = {"w_pad": 0.12, "h_pad": 0.12, "wspace": 0.06, "hspace": 0.06}
        figure.set_layout_engine("constrained", rect=(0, margin / 2, 1, 1 - head - margin / 2), **pad)
        left = _MARGIN_IN / width
        figure.text(left, 1 - 0.36 / height, title, fontsize=14, va="baseline")
        figure.text(left, 1 - 0.62 / height, subtitle, fontsize=9.5, color=MUTED, va="baseline")
        paint(figure)
        png = io.BytesIO()
        figure.savefig(png, format="png", metadata={"Software": None})
        return png.getvalue()


def plain(axes: Axes, *, grid: Literal["x", "y"] = "y") -> None:
    """Draws grid lines along one axis alone, without tick marks."""
    axes.grid(visible=True, axis=grid)
    axes.tick_params(length=0)
