"""`evaluate`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from tfos_job.commands import container_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.commands.container_memory import Network
from tfos_job.commands.dataset_dirs import adopted_dirs
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import EvaluateConfig, PredictConfig
from tfos_job.config.defaults import NAMED_CHECKPOINTS
from tfos_job.errors import SettingsError

if TYPE_CHECKING:
    from tfos_job.run.evaluation_input import JudgedSplit


def run(config: EvaluateConfig, context: Context) -> None:
    from tfos_job import storage
    from tfos_job.layout import RunLayout

    check(config)
    if config.checkpoint in NAMED_CHECKPOINTS:  # others may not be recorded
        storage.require_writable(RunLayout(config.train_dir).evaluation_dir)
    judged = _judged(config, context)
    load_tensorflow(loud=context.is_debug)
    from tfos_job.local_jobs.evaluate import evaluate

    result = evaluate(config, judged)
    for key, value in result.items():
        context.say(f"{key:<14}{value:.4f}" if isinstance(value, float) else f"{key:<14}{value}")
    context.emit(result)


def _judged(config: EvaluateConfig, context: Context) -> JudgedSplit | None:
    """What executors made of the shards, if there are to be any."""
    if context.master is None and not config.num_executors:
        if config.num_gpus:
            raise SettingsError(
                "they would be those of executors, and there are none",
                place="--num_gpus",
                next_step="Give --num_executors; without it TensorFlow takes the GPUs that CUDA_VISIBLE_DEVICES allows",
            )
        return None
    from tfos_job.driver.on_demand import SparkOnDemand
    from tfos_job.jobs.evaluate import judge
    from tfos_job.protocol.topology import resolve_master

    master = resolve_master(context.master, num_nodes=config.num_executors or 1)
    with SparkOnDemand(f"tfos_job evaluate {config.train_dir}", master) as spark:
        return judge(spark, config)


def check(config: EvaluateConfig) -> None:
    """Raises what a split, a run or a checkpoint does that is not there, or whose network nobody has named."""
    from tfos_job.conversion.dataset import refuse_non_folder
    from tfos_job.formats.adopted_shards import load_unchanged
    from tfos_job.layout import DatasetLayout, RunLayout
    from tfos_job.run import own_network

    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    load_unchanged(DatasetLayout(config.dataset_dir).split(config.dataset_split_name))
    own_network.check(RunLayout(config.train_dir), config.checkpoint, config.model_name)


def size_of_work(config: EvaluateConfig | PredictConfig) -> Work:
    """The run's network, as far as its report has it."""
    return size_of_run(config.train_dir)


def size_of_run(train_dir: str) -> Work:
    """A run's network, as far as its report has it."""
    from tfos_job import storage
    from tfos_job.layout import RunLayout

    report = RunLayout(train_dir).report
    model = storage.read_json(report).get("model", {}) if storage.exists(report) else {}
    return Work(network=network_of(model))


def network_of(model: Mapping[str, Any]) -> Network:
    """The network of the arguments that a run, or an export, was built with, as far as they are there."""
    names = [field.name for field in dataclasses.fields(Network)]
    return Network(**{name: model[name] for name in names if name in model})


def containers(config: EvaluateConfig, work: Work, master: str) -> dict[str, str]:
    """A driver that evaluates in its own process, or draws there; the executors that are asked for."""
    driver = container_memory.evaluating_driver(network=work.network, batch_size=config.batch_size).of_driver()
    if not config.num_executors:
        return driver
    executor = container_memory.scoring_executor(
        network=work.network, batch_size=config.batch_size, of_pictures=False, on_gpu=config.num_gpus > 0
    )
    number = {"spark.dynamicAllocation.enabled": "false", "spark.executor.instances": str(config.num_executors)}
    return driver | executor.of_executor() | number


EVALUATE = Command(
    name="evaluate",
    config=EvaluateConfig,
    run=run,
    help="count top-k and loss of a checkpoint exactly; draw them",
    when_stopped="Numbers are written before pictures; run it again to have all of them",
    on_spark=True,
    submission=Submission(
        profiles=("common", "driver"),
        containers=containers,
        size_of_work=size_of_work,
        check=check,
        other_dirs=lambda config: adopted_dirs(config.dataset_dir, [config.dataset_split_name]),
        fills_executors=True,
    ),
)
