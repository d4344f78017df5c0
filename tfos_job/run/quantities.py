"""Quantities as people read them: no more digits than the count behind a number carries."""

from __future__ import annotations

import math
from typing import Any, TypeGuard

NOTHING = "–"
_FINE_FROM = 1000  # records from which a hundredth of a percent means something


def is_number(value: Any) -> TypeGuard[float]:
    return isinstance(value, int | float) and not isinstance(value, bool)


def number(value: float) -> str:
    """A whole number with separators; another one with three digits that count, of large ones all before the point."""
    if isinstance(value, int):
        return f"{value:,}"
    if not math.isfinite(value):
        return str(value)
    if value == 0 or abs(value) >= 100:
        return f"{value:,.0f}"
    decimals = 2 - math.floor(math.log10(abs(value)))
    return f"{value:.3g}" if decimals > 6 else f"{value:.{decimals}f}"


def measured(value: Any) -> str:
    """The number that was measured, where one was."""
    return number(float(value)) if is_number(value) else NOTHING


def share(value: float, num_records: int | None = None) -> str:
    """A share of `num_records` as a percentage: a tenth of a percent of few records, a hundredth of many."""
    fine = num_records is not None and num_records >= _FINE_FROM
    return f"{100 * value:.{2 if fine else 1}f} %"


def points(difference: float) -> str:
    """A difference of two shares, in percentage points, with its sign."""
    return f"{100 * difference:+.2f}".replace("-", "−")


def size(value_bytes: float) -> str:
    """Bytes of memory or disk, in MiB or GiB."""
    mib = value_bytes / (1 << 20)
    return f"{mib / 1024:.1f} GiB" if mib >= 1024 else f"{mib:.0f} MiB" if mib >= 10 else f"{mib:.1f} MiB"


def megabytes(value_bytes: float) -> str:
    """Bytes on a wire, in powers of ten as the speed of links is."""
    return f"{value_bytes / 1e6:,.1f} MB"


def images_of_step(replicas: int, push_every: int, batch_size: int) -> str:
    """The images of a step as a product; factors of 1 are left out."""
    factors = [factor for factor in (replicas, push_every) if factor > 1]
    return " × ".join(map(str, [*factors, batch_size]))


def duration(value_s: float) -> str:
    """Seconds, in the two units that matter."""
    if value_s < 1:
        return f"{value_s * 1000:.0f} ms"
    if value_s < 60:
        return f"{value_s:.1f} s" if value_s < 10 else f"{value_s:.0f} s"
    minutes, rest_s = divmod(round(value_s), 60)
    if minutes < 60:
        return f"{minutes} min {rest_s} s" if rest_s else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min" if minutes else f"{hours} h"
    return f"{hours // 24} d {hours % 24} h"
