"""The results of a run beside those of the run before it. Pure."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfos_job.run.quantities import points
from tfos_job.run.summary import RunSummary, Score

_NORMAL_95 = 1.96


@dataclass(frozen=True, kw_only=True)
class Standing:
    """Top-1 on one split, and that of the other run on a split of the same name; None where there is none.

    Attributes:
      other_records: records that the other run was counted on.
      margin: how far two runs of the same accuracy differ by chance, in 95 of 100 cases, if their records were drawn
        anew each time; on the same records they differ less.
    """

    score: Score
    top_1: float
    other: float | None = None
    other_records: int | None = None
    margin: float | None = None

    @property
    def difference(self) -> float | None:
        return None if self.other is None else self.top_1 - self.other

    @property
    def may_be_chance(self) -> bool:
        return self.difference is not None and self.margin is not None and abs(self.difference) <= self.margin

    @property
    def words(self) -> str:
        """The difference in percentage points, and whether chance alone may make it."""
        if self.difference is None:
            return ""
        chance = " (may be chance)" if self.may_be_chance and self.difference else ""
        return f"{points(self.difference)} points{chance}"


def standings(run: RunSummary, other: RunSummary | None) -> list[Standing]:
    """Top-1 of the run on each split, with the difference to `other`."""
    found = []
    for score in run.scores:
        if score.top_1 is None:
            continue
        before = other.score(score.split) if other is not None else None
        found.append(
            Standing(
                score=score,
                top_1=score.top_1,
                other=before.top_1 if before is not None else None,
                other_records=before.num_records if before is not None else None,
                margin=_margin(score, before) if before is not None else None,
            )
        )
    return found


def _margin(a: Score, b: Score) -> float | None:
    if a.top_1 is None or b.top_1 is None or not a.num_records or not b.num_records:
        return None
    return _NORMAL_95 * math.sqrt(a.top_1 * (1 - a.top_1) / a.num_records + b.top_1 * (1 - b.top_1) / b.num_records)
