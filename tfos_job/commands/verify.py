"""`verify`."""

from __future__ import annotations

from tfos_job.commands.command import Command, Context, Submission, Work, batch_containers
from tfos_job.commands.dataset_dirs import adopted_dirs, splits_of
from tfos_job.config import VerifyConfig


def run(config: VerifyConfig, context: Context) -> None:
    from tfos_job.conversion.dataset import refuse_non_folder
    from tfos_job.driver.on_demand import SparkOnDemand
    from tfos_job.jobs.verify import verify
    from tfos_job.protocol.topology import resolve_master

    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    if config.gnt_dir not in (None, "auto"):
        refuse_non_folder(config.gnt_dir, "--gnt_dir")
    master = resolve_master(context.master, num_nodes=1)
    with SparkOnDemand(f"tfos_job verify {config.dataset_dir}", master) as spark:
        result = verify(spark, config)
    for line in result.lines():
        context.say(line)
    context.emit(result.to_dict())
    result.raise_for_findings()


def size_of_work(config: VerifyConfig) -> Work:
    """Finds out whether a split has picture files; faults of a split are left to the job."""
    return Work(of_pictures=any(manifest.of_pictures for manifest in splits_of(config.dataset_dir, None)))


def other_dirs(config: VerifyConfig) -> list[tuple[str, str]]:
    """The folders of adopted shards, and with `--gnt_dir auto` those of the GNT files that splits were made from."""
    names = None if config.dataset_split_name == "all" else [config.dataset_split_name]
    found = adopted_dirs(config.dataset_dir, names)
    if config.gnt_dir != "auto":
        return found
    folders = {manifest.settings.get("gnt_dir") or "" for manifest in splits_of(config.dataset_dir, names)}
    return [*found, *(("gnt_dir", folder) for folder in sorted(folders))]


VERIFY = Command(
    name="verify",
    config=VerifyConfig,
    run=run,
    help="prove the splits of a dataset, and that they share nothing",
    when_stopped="Nothing was changed; run it again",
    on_spark=True,
    submission=Submission(
        profiles=("common", "batch"),
        containers=batch_containers,
        size_of_work=size_of_work,
        other_dirs=other_dirs,
    ),
)
