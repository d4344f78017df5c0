"""`train`."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from typing import Any

from tfos_job.commands import training_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.commands.container_memory import RESERVE, Network, TooSmall
from tfos_job.commands.dataset_dirs import adopted_dirs
from tfos_job.config import TrainConfig
from tfos_job.config.recipes import with_recipe
from tfos_job.host.memory import gib

log = logging.getLogger(__name__)


def train(config: TrainConfig, master: str | None = None) -> dict[str, Any]:
    """Trains until the run is finished, and returns its report; with `dry_run` what it would do.

    Args:
      config: the run.
      master: Spark's master, such as local[4] (default: that of the SparkSession that there is, or of spark-submit,
        else local Spark).
    """
    if config.dry_run:
        from tfos_job.commands import dry_run

        return dry_run.forecast(config, master)
    from tfos_job.driver.session import program_master
    from tfos_job.jobs.train import train
    from tfos_job.protocol.topology import resolve_master

    return train(config, resolve_master(master or program_master(), config.num_executors))


def run(config: TrainConfig, context: Context) -> None:
    found = train(config, context.master)
    if config.dry_run:
        say_forecast(found)
        context.emit(found)
    else:
        context.emit(_summary(found))


def say_forecast(found: Mapping[str, Any]) -> None:
    """Logs what `dry_run.forecast` has found, as a table."""
    from tfos_job.commands import dry_run_table

    log.info("%s", "\n".join(dry_run_table.lines(found)))


def _summary(report: dict[str, Any]) -> dict[str, Any]:
    """The part of a run's report that is a result of `train`."""
    keys = ("state", "step", "total_steps", "images_per_second", "metrics", "checkpoint")
    return {key: report[key] for key in keys if key in report}


def configure(given: Mapping[str, Any]) -> TrainConfig:
    """The flags that are given, on those of the recipe that they name, on those of the run that is resumed."""
    from tfos_job.run import resume  # with storage, which `--help` need not import

    return resume.settings(with_recipe(given))


def check(config: TrainConfig) -> dict[str, Any] | None:
    """The result of a run that is finished; raises what `train` would raise about dataset and run."""
    from tfos_job.run import preparation

    report = preparation.check(config)
    if report is None:
        return None
    log.info("%s is finished. Nothing to do", config.train_dir)
    return _summary(report)


def size_of_work(config: TrainConfig) -> Work:
    from tfos_job import storage
    from tfos_job.formats import manifest as manifests
    from tfos_job.layout import DatasetLayout, RunLayout
    from tfos_job.protocol.topology import largest_part
    from tfos_job.run import outgrown

    split = manifests.load(DatasetLayout(config.dataset_dir).split(config.dataset_split_name))
    run = RunLayout(config.train_dir)
    has_run = not config.overwrite and storage.exists(run.report)
    shards = [(shard.file, shard.num_records) for shard in split.shards]
    return Work(
        network=Network(
            model_name=config.model_name,
            image_size=config.side,
            num_channels=split.num_channels,
            num_classes=split.num_classes,
        ),
        worker_records=largest_part(shards, config.num_workers),
        record_bytes=split.record_bytes,
        outgrown=outgrown.of_run(run, storage.read_json(run.report)) if has_run else None,
    )


def other_dirs(config: TrainConfig) -> list[tuple[str, str]]:
    """The folders of adopted shards."""
    names = [config.dataset_split_name, config.validation_split_name]
    return adopted_dirs(config.dataset_dir, [name for name in names if name is not None])


def containers(config: TrainConfig, work: Work, master: str) -> dict[str, str]:
    """An executor for each node that is not on the driver's host. Static executors are all alike."""
    from tfos_job.protocol.spark_settings import executor_failures
    from tfos_job.protocol.topology import topology_of

    topology = topology_of(config, master)
    driver, executor = training_memory.containers(training_memory.roles(config, work, topology))
    return {
        **driver.of_driver(),
        **executor.of_executor(),
        **executor_failures(topology.num_spark_executors, config.max_restarts),
        "spark.executor.instances": str(topology.num_spark_executors),
    }


def remarks(config: TrainConfig, work: Work, master: str) -> dict[str, str]:
    """Why containers get more memory than what runs in them is thought to need, by the setting."""
    from tfos_job.protocol.topology import topology_of

    before = training_memory.outgrown(work, topology_of(config, master))
    usual, asked = (containers(config, it, master) for it in (dataclasses.replace(work, outgrown=None), work))
    found = {}
    for name in ("driver", "executor"):
        setting = f"spark.{name}.memoryOverhead"
        if asked[setting] != usual[setting]:
            those = [it for role, it in before.items() if (role == training_memory.DRIVER) == (name == "driver")]
            found[setting] = (
                f"Memory has run out in an attempt of this run{_had(those)}: asking for {RESERVE:g} times as much, "
                f"{setting}={asked[setting]} instead of {usual[setting]}"
            )
    return found


def _had(before: Sequence[TooSmall]) -> str:
    """What was too little, in words."""
    peak, container = max(it.peak_bytes for it in before), max(it.container_bytes for it in before)
    of_peak = f", with {gib(peak)} at the peak" if peak else ""
    return of_peak + (f", in a container of {gib(container)}" if container else "")


TRAIN = Command(
    name="train",
    config=TrainConfig,
    run=run,
    help="train on a TFCluster, with parameter servers or by all-reduce",
    when_stopped="Run train again to go on from the last checkpoint",
    on_spark=True,
    submission=Submission(
        profiles=("common", "train"),
        queue="gpu",
        containers=containers,
        remarks=remarks,
        size_of_work=size_of_work,
        check=check,
        foretell=lambda config, master: say_forecast(train(dataclasses.replace(config, dry_run=True), master)),
        other_dirs=other_dirs,
        fills_executors=True,
        trains=True,
    ),
    configure=configure,
)
