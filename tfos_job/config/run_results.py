"""The flags of the commands that read a run and write no checkpoint or dataset: `predict`, `report`, `tensorboard`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.flags import Flags, flag, path


@dataclass(frozen=True, kw_only=True)
class PredictConfig(Flags):
    """`predict`: the characters or other classes on images."""

    train_dir: str = path("folder of the run")
    checkpoint: str = path(
        "`last`, `best` or the path of a checkpoint", "last", metavar="last|best|PATH", words=("last", "best")
    )
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
    )


@dataclass(frozen=True, kw_only=True)
class ReportConfig(Flags):
    """`report`: a run's settings and results, as JSON or as one page."""

    train_dir: str = path("folder of the run")
    html: str | None = path(
        "write one self-contained HTML file: settings, curves, evaluations and all pictures", None, metavar="FILE"
    )


@dataclass(frozen=True, kw_only=True)
class TensorboardConfig(Flags):
    """`tensorboard`: TensorBoard over a run's summaries."""

    train_dir: str = path("folder of the run")
    host: str = flag("address to serve on; 0.0.0.0 accepts connections from other hosts", "localhost")
    port: int = flag("port to serve on; 0 for any free port", 6006, minimum=0, maximum=65_535)
    reload_interval: int = flag("seconds between checks for new summaries", 5, minimum=1)
