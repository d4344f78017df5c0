"""The share of a run's time that went into steps that count. Pure.

The loss curve of a report has at each point the seconds of all blocks of steps up to it. Training that goes back to a
checkpoint takes the points after it off the curve, and with them the seconds of the steps that it repeats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tfos_job.run.quantities import is_number


def counted_s(curve: Sequence[Mapping[str, Any]], step: int) -> float:
    """Seconds of the blocks of steps up to `step`, each step once.

    Between two points of the curve, which may have lost some, the steps are taken to be equally long. 0 before the
    first point: no step of this run is before it.
    """
    before: tuple[float, float] | None = None
    for point in curve:
        seconds, at = point.get("seconds"), point.get("step")
        if not is_number(seconds) or not is_number(at):
            continue  # of an earlier version
        if at > step:
            if before is None:
                return 0.0
            return before[1] + (seconds - before[1]) * (step - before[0]) / (at - before[0])
        before = (at, float(seconds))
    return before[1] if before else 0.0


def goodput(counted: float, elapsed: float) -> float | None:
    """Seconds that counted over elapsed seconds; None before there is either."""
    return round(min(1.0, counted / elapsed), 4) if counted > 0 and elapsed > 0 else None
