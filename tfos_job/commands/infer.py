"""`infer`."""

from __future__ import annotations

import dataclasses
from typing import Any

from tfos_job.commands import container_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.commands.evaluate import network_of, size_of_run
from tfos_job.config import InferConfig


def run(config: InferConfig, context: Context) -> None:
    from tfos_job.driver.on_demand import SparkOnDemand
    from tfos_job.jobs.infer import infer
    from tfos_job.protocol.topology import resolve_master

    master = resolve_master(context.master, num_nodes=1)
    with SparkOnDemand(f"tfos_job infer {config.output_dir}", master) as spark:
        result = infer(spark, config)
    context.emit(result.to_dict())


def check(config: InferConfig) -> Any | None:
    """Raises what the job would; returns the result of one that has nothing left to do."""
    from tfos_job import storage
    from tfos_job.jobs.infer import prepare

    work = prepare(config)
    if work.finished is not None:
        return work.finished.to_dict()
    storage.require_writable(work.output.root)
    return None


def size_of_work(config: InferConfig) -> Work:
    """The network, as far as the run's report has it, or the export's. Any input may be one of pictures."""
    from tfos_job.run import exports

    if config.train_dir is not None:
        return dataclasses.replace(size_of_run(config.train_dir), of_pictures=True)
    assert config.export_dir is not None
    model = exports.read(exports.resolve(config.export_dir)).document.get("model", {})
    return Work(network=network_of(model), of_pictures=True)


def containers(config: InferConfig, work: Work, master: str) -> dict[str, str]:
    """A driver that hands out partitions, and executors of one task each."""
    executor = container_memory.scoring_executor(
        network=work.network,
        batch_size=config.batch_size,
        of_pictures=work.of_pictures,
        on_gpu=config.num_gpus > 0,
    )
    return container_memory.scoring_driver(network=work.network).of_driver() | executor.of_executor()


def other_dirs(config: InferConfig) -> list[tuple[str, str]]:
    """The folder of adopted shards, if the input is a split of such."""
    from tfos_job.commands.dataset_dirs import adopted_dirs

    folder, _, name = config.input.rstrip("/").rpartition("/")
    return adopted_dirs(folder, [name]) if folder else []


INFER = Command(
    name="infer",
    config=InferConfig,
    run=run,
    help="name the classes of many inputs on Spark: Parquet or JSON lines",
    when_stopped="Parts that are written stay; run the same command again, and it makes those that are missing",
    on_spark=True,
    submission=Submission(
        profiles=("common", "batch", "infer"),
        containers=containers,
        size_of_work=size_of_work,
        check=check,
        other_dirs=other_dirs,
        fills_executors=True,
    ),
)
