"""The flags of `clean`."""

from __future__ import annotations

from dataclasses import dataclass

from tfos_job.config.flags import Flags, flag, path, require

_COUNTS = (("runs_dir", "keep_runs"), ("export_dir", "keep_exports"), ("registry_dir", "keep_versions"))


@dataclass(frozen=True, kw_only=True)
class CleanConfig(Flags):
    """`clean`: old runs, exports, promoted versions and leftovers, by a policy."""

    runs_dir: str | None = path("folder of runs, of which others may lie beside; needs --keep_runs", None)
    keep_runs: int | None = flag(
        "with --runs_dir: newest runs that stay, by their last change; so does the newest finished one", None, minimum=1
    )
    export_dir: str | None = path(
        "folder of exported versions, or of several folders of them, each of which goes as a whole; needs "
        "--keep_exports",
        None,
    )
    keep_exports: int | None = flag("with --export_dir: newest ones that stay", None, minimum=1)
    registry_dir: str | None = path(
        "folder of the promoted networks. Runs and exports that its versions were made from stay", None
    )
    keep_versions: int | None = flag(
        "with --registry_dir: newest versions that stay; so do the current one, its parent and the one that `rollback` "
        "goes back to (default: all)",
        None,
        minimum=1,
    )
    dataset_dir: str | None = path(
        "folder of a dataset: generations that others have replaced, leftovers, quarantines of sources that went", None
    )
    hdfs_dir: str | None = path("`submit --hdfs_dir`: archives, outcomes and event logs", None)
    older_than_days: float = flag(
        "runs, exports and versions that have changed within these days stay, too", 0.0, minimum=0.0
    )
    keep_logs_days: float = flag(
        "with --hdfs_dir: days that outcomes and event logs stay, and archives behind the upload of a newer one; "
        "longer than any application runs",
        30.0,
        above=0.0,
    )
    remove: bool = flag("remove; without it nothing is changed, and what would be removed is shown", False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for folder, count in _COUNTS:
            is_given, is_counted = getattr(self, folder) is not None, getattr(self, count) is not None
            require(is_given or not is_counted, count, f"given without --{folder}")
            if folder != "registry_dir":
                require(is_counted or not is_given, folder, f"given without --{count}", "Say how many stay")
        has_work = self.keep_versions or self.runs_dir or self.export_dir or self.dataset_dir or self.hdfs_dir
        require(
            bool(has_work),
            "registry_dir" if self.registry_dir else "runs_dir",
            "there is nothing to clean",
            "Give --runs_dir, --export_dir, --registry_dir with --keep_versions, --dataset_dir or --hdfs_dir",
        )
