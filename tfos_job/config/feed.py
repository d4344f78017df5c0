"""The configuration of `train_dataframe` and `train_arrays`, which only Python programs have."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.flags import EXTENT, path, require
from tfos_job.config.train import TrainConfig


@dataclass(frozen=True, kw_only=True)
class FeedConfig(TrainConfig):
    """A run that makes its dataset in its own folder: every setting of `TrainConfig` but `dataset_dir`."""

    dataset_dir: str = path("not given: it is a folder of the run", "", bond=EXTENT)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            not self.dry_run,
            "dry_run",
            "given for images that have to be converted first",
            "Convert them, and give the dataset to `train` with dry_run=True",
        )
