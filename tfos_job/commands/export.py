"""`export`."""

from __future__ import annotations

from tfos_job.commands import container_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.commands.evaluate import size_of_work
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import ExportConfig
from tfos_job.config.defaults import PREDICTED_BATCH


def run(config: ExportConfig, context: Context) -> None:
    from tfos_job.local_jobs.export import export

    check(config)
    context.emit(export(config, load_tensorflow=lambda: load_tensorflow(loud=context.is_debug)))


def check(config: ExportConfig) -> None:
    """Raises MissingInputError for a run or a checkpoint that is not there."""
    from tfos_job import storage
    from tfos_job.config.defaults import NAMED_CHECKPOINTS
    from tfos_job.errors import MissingInputError
    from tfos_job.layout import RunLayout
    from tfos_job.run import checkpoints

    if config.checkpoint in NAMED_CHECKPOINTS and not storage.is_dir(config.train_dir):
        raise MissingInputError("no such folder", place=config.train_dir, next_step="Check --train_dir")
    checkpoints.require(RunLayout(config.train_dir), config.checkpoint)


def containers(config: ExportConfig, work: Work, master: str) -> dict[str, str]:
    """A driver that exports in its own process, and no executor."""
    return container_memory.evaluating_driver(network=work.network, batch_size=PREDICTED_BATCH).of_driver()


EXPORT = Command(
    name="export",
    config=ExportConfig,
    run=run,
    help="publish a checkpoint as a network that needs nothing of this package",
    when_stopped="No part of a version is left under its number; run it again",
    submission=Submission(
        profiles=("common", "driver"),
        containers=containers,
        size_of_work=size_of_work,
        check=check,
    ),
)
