"""`inspect`."""

from tfos_job.commands.command import Command, Context
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import InspectConfig


def run(config: InspectConfig, context: Context) -> None:
    load_tensorflow(loud=context.is_debug)
    from tfos_job.local_jobs.inspect import inspect

    context.emit(inspect(config))


INSPECT = Command(
    name="inspect",
    config=InspectConfig,
    run=run,
    help="draw a split: a sample as the network sees it, its classes",
    when_stopped="Pictures may be missing; run it again to draw all of them",
)
