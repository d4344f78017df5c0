"""The flags of `export`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import NAMED_CHECKPOINTS
from tfos_job.config.flags import Flags, flag, path


@dataclass(frozen=True, kw_only=True)
class ExportConfig(Flags):
    """`export`: a checkpoint as a network that needs nothing of this package."""

    train_dir: str = path("folder of the run")
    export_dir: str = path("folder of the versions, in TensorFlow Serving's layout; local or on HDFS")
    checkpoint: str = path(
        "`last`, `best` or the path of a checkpoint", "last", metavar="last|best|PATH", words=NAMED_CHECKPOINTS
    )
    top_k: int = flag("classes in an answer of the exported network; all of them if there are fewer", 5, minimum=1)
    keep_versions: int | None = flag(
        "versions to keep, the new one among them; older ones are removed", None, minimum=1
    )
