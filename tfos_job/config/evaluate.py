"""The flags of `evaluate`."""

from __future__ import annotations

import re
from dataclasses import dataclass

from tfos_job.config.defaults import NAMED_CHECKPOINTS
from tfos_job.config.flags import Flags, flag, path
from tfos_job.config.own_network import own_network
from tfos_job.config.values import SPLIT_NAME, TextForm

_WHOLE_NUMBERS = TextForm(
    re.compile(r"0*[1-9]\d*(,0*[1-9]\d*)*", re.ASCII).fullmatch,
    "{!r} is not a list of whole numbers",
    "Write it as 1,3,5",
)


@dataclass(frozen=True, kw_only=True)
class EvaluateConfig(Flags):
    """`evaluate`: exact counts of a checkpoint on a split."""

    dataset_dir: str = path("folder of the dataset")
    train_dir: str = path("folder of the run")
    dataset_split_name: str = flag("split to evaluate on", "test", form=SPLIT_NAME)
    checkpoint: str = path(
        "`last`, `best` or the path of a checkpoint", "last", metavar="last|best|PATH", words=NAMED_CHECKPOINTS
    )
    model_name: str | None = own_network()
    batch_size: int = flag("images per step", 128, minimum=1)
    top_k: str = flag("comma-separated k of the top-k accuracies; 1 is always included", "1,3,5", form=_WHOLE_NUMBERS)
    num_executors: int = flag(
        "executors that share the shards; 0: this process alone, or with --master Spark as it is", 0, minimum=0
    )
    num_gpus: int = flag("GPUs of each task on an executor", 0, minimum=0)
    numbers_only: bool = flag("write numbers and tables, and no pictures", False)

    @property
    def ks(self) -> tuple[int, ...]:
        # `best` selects a checkpoint by top-1.
        return tuple(sorted({1, *(int(part) for part in self.top_k.split(","))}))
