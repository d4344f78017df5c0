"""`verify`."""

from __future__ import annotations

import contextlib

from tfos_job.commands.command import Command, Context, Submission, Work, batch_containers
from tfos_job.config import VerifyConfig


def run(config: VerifyConfig, context: Context) -> None:
    from tfos_job.conversion.dataset import refuse_non_folder
    from tfos_job.driver import session
    from tfos_job.driver.on_demand import SparkOnDemand
    from tfos_job.jobs.verify import verify

    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    if config.gnt_dir not in (None, "auto"):
        refuse_non_folder(config.gnt_dir, "--gnt_dir")
    master = session.resolve_master(context.master, num_nodes=1)
    with SparkOnDemand(f"tfos_job verify {config.dataset_dir}", master) as spark:
        result = verify(spark, config)
    for line in result.lines():
        context.say(line)
    context.emit(result.to_dict())
    result.raise_for_findings()


def size_of_work(config: VerifyConfig) -> Work:
    """Finds out whether a split was made from image files; other faults of a split are left to the job."""
    from tfos_job import storage
    from tfos_job.errors import BadDataError, MissingInputError
    from tfos_job.formats import manifest as manifests
    from tfos_job.layout import DatasetLayout

    dataset = DatasetLayout(config.dataset_dir)
    for entry in storage.list_dir(dataset.root) if storage.is_dir(dataset.root) else ():
        with contextlib.suppress(BadDataError, MissingInputError):
            if entry.is_dir and manifests.load(dataset.split(entry.name)).of_pictures:
                return Work(of_pictures=True)
    return Work()


def other_dirs(config: VerifyConfig) -> list[tuple[str, str]]:
    """The folders of the GNT files that splits were made from, for `--gnt_dir auto`."""
    from tfos_job import storage
    from tfos_job.errors import BadDataError, MissingInputError
    from tfos_job.formats import manifest as manifests
    from tfos_job.layout import DatasetLayout

    if config.gnt_dir != "auto":
        return []
    dataset, name = DatasetLayout(config.dataset_dir), config.dataset_split_name
    entries = storage.list_dir(dataset.root) if name == "all" else []
    folders = set()
    for split in map(dataset.split, [entry.name for entry in entries if entry.is_dir] or [name]):
        with contextlib.suppress(BadDataError, MissingInputError):  # `verify` reports it
            folders.add(manifests.load(split).settings.get("gnt_dir") or "")
    return [("gnt_dir", folder) for folder in sorted(folders)]


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
