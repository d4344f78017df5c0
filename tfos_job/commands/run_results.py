"""`predict` and `tensorboard`: commands that read a run, on this host only."""

from tfos_job.commands.command import Command, Context
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import PredictConfig, TensorboardConfig


def _predict(config: PredictConfig, context: Context) -> None:
    from tfos_job.local_jobs.predict import predict

    for result in predict(config, load_tensorflow=lambda: load_tensorflow(loud=context.is_debug)):
        context.emit(result)


def _tensorboard(config: TensorboardConfig, context: Context) -> None:
    from tfos_job.local_jobs.tensorboard import tensorboard

    tensorboard(config, context.write)


PREDICT = Command(
    name="predict",
    config=PredictConfig,
    run=_predict,
    help="name the classes of images",
    when_stopped="Nothing is left; run it again",
)
TENSORBOARD = Command(
    name="tensorboard",
    config=TensorboardConfig,
    run=_tensorboard,
    help="show a run's summaries, also those on HDFS",
    when_stopped="Nothing is left",
)
