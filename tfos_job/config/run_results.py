"""The flags of the commands that read a run and write no checkpoint or dataset: `predict`, `report`, `tensorboard`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.defaults import NAMED_CHECKPOINTS, STDIN
from tfos_job.config.flags import Flags, flag, path, require
from tfos_job.config.own_network import own_network
from tfos_job.errors import FlagError


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Flags):
    """`predict`: the characters or other classes on images."""

    train_dir: str = path("folder of the run")
    checkpoint: str = path(
        "`last`, `best` or the path of a checkpoint", "last", metavar="last|best|PATH", words=NAMED_CHECKPOINTS
    )
    model_name: str | None = own_network()
    top_k: int = flag("number of classes to print for each image", 3, minimum=1)
    raw_image: bool = flag(
        "take each picture as `convert` would store it: no search for the ink, white on black stays so. Ignored for "
        "runs on folders of images",
        False,
    )
    images: tuple[str, ...] = path(
        "PNG, JPEG or GIF files, or folders, in which all such files are taken, sorted by name, but for hidden ones; "
        "`-` reads one from stdin",
        nargs="+",
        metavar="IMAGE",
        words=(STDIN,),
    )


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Flags):
    """`report`: a run's settings and results, or those of several runs beside each other."""

    runs: tuple[str, ...] = path("folders of runs; several are compared", (), nargs="*", metavar="RUN")
    train_dir: str | None = path("folder of the run, the same as one RUN", None)
    html: str | None = path(
        "write one self-contained HTML file: verdict, curves, evaluations, settings and all pictures; of several runs "
        "curves, results and settings that differ",
        None,
        metavar="FILE",
    )
    compare_to: str | None = path(
        "run whose results the verdict compares with (default: the newest finished run of the same dataset in the "
        "folders beside the run)",
        None,
        metavar="RUN",
    )
    follow: bool = flag("show the progress of a run until it ends, and end with its exit code", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.train_dirs:
            raise FlagError("a run is needed", place="RUN", next_step="Name its folder, or several to compare them")
        require(not (self.runs and self.train_dir), "train_dir", "given together with RUN", "Name all runs as RUN")
        is_one = len(self.train_dirs) == 1
        require(is_one or not self.follow, "follow", f"{len(self.train_dirs)} runs are named", "Follow one")
        require(is_one or self.compare_to is None, "compare_to", "several runs are named", "Name it as a RUN as well")

    @property
    def train_dirs(self) -> tuple[str, ...]:
        """The runs, however they were named."""
        return self.runs if self.train_dir is None else (self.train_dir,)


@dataclass(frozen=True, kw_only=True)
class TensorboardConfig(Flags):
    """`tensorboard`: TensorBoard over a run's summaries."""

    train_dir: str = path("folder of the run")
    host: str = flag("address to serve on; 0.0.0.0 accepts connections from other hosts", "localhost")
    port: int = flag("port to serve on; 0 for any free port", 6006, minimum=0, maximum=65_535)
    reload_interval: int = flag("seconds between checks for new summaries", 5, minimum=1)
