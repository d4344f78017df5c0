"""`inspect`."""

from tfos_job.commands.command import Command, Context
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import InspectConfig


def run(config: InspectConfig, context: Context) -> None:
    check(config)
    load_tensorflow(loud=context.is_debug)
    from tfos_job.local_jobs.inspect import inspect

    context.emit(inspect(config))


def check(config: InspectConfig) -> None:
    """Raises what is wrong with a split, a run or the folder of the pictures, which it makes."""
    from tfos_job import storage
    from tfos_job.conversion.dataset import refuse_non_folder
    from tfos_job.errors import MissingInputError
    from tfos_job.formats.adopted_shards import load_unchanged
    from tfos_job.layout import DatasetLayout, RunLayout

    refuse_non_folder(config.dataset_dir, "--dataset_dir")
    split = DatasetLayout(config.dataset_dir).split(config.dataset_split_name)
    config.require_channels(load_unchanged(split).num_channels)
    if config.train_dir is not None and not storage.exists(RunLayout(config.train_dir).config):
        raise MissingInputError(
            "no such run: it has no settings", place=config.train_dir, next_step="Check --train_dir"
        )
    storage.require_writable(config.output_dir)


INSPECT = Command(
    name="inspect",
    config=InspectConfig,
    run=run,
    help="draw a split: a sample as the network sees it, its classes",
    when_stopped="Pictures may be missing; run it again to draw all of them",
)
