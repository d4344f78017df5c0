"""The flags of `infer`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import NAMED_CHECKPOINTS, PARQUET, RESULT_FORMATS
from tfos_job.config.flags import Flags, flag, path, require
from tfos_job.config.own_network import own_network


@dataclass(frozen=True, kw_only=True)
class InferConfig(Flags):
    """`infer`: the classes of many inputs, on Spark."""

    train_dir: str | None = path("folder of the run that answers", None, one_of="model")
    export_dir: str | None = path(
        "folder of an exported model, or of one version of it; the highest version answers", None, one_of="model"
    )
    checkpoint: str = path(
        "of the run: `last`, `best` or the path of a checkpoint",
        "last",
        metavar="last|best|PATH",
        words=NAMED_CHECKPOINTS,
    )
    model_name: str | None = own_network()
    input: str = path(
        "a dataset's split (the folder with its manifest.json), GNT files or ZIP archives of them, pictures, or a "
        "folder of these; a pattern with *, ? or [] names several",
        metavar="PATH",
    )
    output_dir: str = path("folder for the results; the same command again continues there, or finds all of it done")
    output_format: str = flag("form of the results; parquet needs the extra `infer`", PARQUET, choices=RESULT_FORMATS)
    top_k: int = flag("number of classes of each answer", 3, minimum=1)
    raw_image: bool = flag(
        "take each picture as `convert` would store it: no search for the ink. Ignored for records, and for runs on "
        "folders of images",
        False,
    )
    batch_size: int = flag("images at a time", 128, minimum=1)
    num_gpus: int = flag("GPUs of each task; with a local master its tasks share the host's first ones", 0, minimum=0)

    def __post_init__(self) -> None:
        super().__post_init__()
        is_default = self.checkpoint == "last"
        require(self.train_dir is not None or is_default, "checkpoint", "given with --export_dir", "Leave it out")
