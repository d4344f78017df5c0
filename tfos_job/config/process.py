"""The flags of every command, which are about its process."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.flags import Flags, Subject, flag, path, refuse_both

TEXT, JSON = "text", "json"


@dataclass(frozen=True, kw_only=True)
class ProcessConfig(Flags):
    """Every command: its logs, and the Spark that it runs on."""

    master: str | None = flag(
        "Spark's master, such as local[4] or local-cluster[3,1,1024] (default: what spark-submit has set, else local "
        "Spark with a slot per core or per node, whichever is more)",
        None,
        subject=Subject.PROCESS,
    )
    config: str | None = path(
        "YAML or JSON file of flags, or a run's config.json; flags that are given are stronger",
        None,
        metavar="FILE",
        subject=Subject.PROCESS,
    )
    quiet: bool = flag("log warnings and errors alone, and no progress", False, short="q", subject=Subject.PROCESS)
    verbose: bool = flag(
        "log more, such as the variables of the environment that are left out",
        False,
        short="v",
        subject=Subject.PROCESS,
    )
    log_format: str = flag(
        "form of the log on stderr: `text` lines, or `json`, one object a line",
        TEXT,
        choices=(TEXT, JSON),
        subject=Subject.PROCESS,
    )
    debug: bool = flag("show a traceback with an error", False, subject=Subject.PROCESS)

    def __post_init__(self) -> None:
        super().__post_init__()
        refuse_both(self.quiet and self.verbose, "quiet", "verbose")
