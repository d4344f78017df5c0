"""The results of an evaluation, of which its tables and pictures are made."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from tfos_job.formats.form import Form
from tfos_job.run import predictions as analysis
from tfos_job.run.predictions import Calibration, Confusion, PerClass, Predictions


@dataclass(frozen=True, kw_only=True)
class EvaluationResults:
    """The results of an evaluation.

    Attributes:
      names: of the classes, in the order of their ids.
      shard_paths: of the split, local or remote.
      form: of the network's images.
    """

    step: int
    split_name: str
    predictions: Predictions
    names: Sequence[str]
    shard_paths: Sequence[str]
    form: Form

    @functools.cached_property
    def confusions(self) -> list[Confusion]:
        return analysis.confusions(self.predictions)

    @functools.cached_property
    def per_class(self) -> PerClass:
        return analysis.per_class(self.predictions, self.confusions, len(self.names))

    @functools.cached_property
    def calibration(self) -> Calibration:
        return analysis.calibration(self.predictions)

    def title(self, what: str) -> str:
        return f"{self.split_name}, step {self.step:,}: {what}"

    @property
    def wrong(self) -> str:
        """The number of wrong predictions, in words."""
        num_wrong = int((~self.predictions.is_correct).sum())
        return f"{num_wrong:,} of {self.predictions.num_records:,} records are taken for another class"
