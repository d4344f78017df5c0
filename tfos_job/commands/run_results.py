"""`predict` and `tensorboard`: commands that read a run, in one process."""

from __future__ import annotations

from tfos_job.commands import container_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.commands.evaluate import size_of_work
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import PredictConfig, TensorboardConfig
from tfos_job.config.defaults import PREDICTED_BATCH, STDIN


def _predict(config: PredictConfig, context: Context) -> None:
    from tfos_job.local_jobs.predict import predict

    for result in predict(config, load_tensorflow=lambda: load_tensorflow(loud=context.is_debug)):
        context.emit(result)


def _check_predict(config: PredictConfig) -> None:
    """Raises MissingInputError for a run, or pictures of which none is there, SettingsError for standard input."""
    from tfos_job.errors import JobError, SettingsError
    from tfos_job.inference import picture_files
    from tfos_job.layout import RunLayout
    from tfos_job.run import own_network

    if STDIN in config.images:
        raise SettingsError(
            "standard input is that of this host, and the job has none",
            place=f"IMAGE {STDIN}",
            next_step="Give the picture's path on HDFS, or call `tfos-job predict` here",
        )
    own_network.check(RunLayout(config.train_dir), config.checkpoint, config.model_name)
    found = [source for _, source in picture_files.requests_of(config.images)]
    errors = [source for source in found if isinstance(source, JobError)]
    if len(errors) == len(found):
        raise errors[0]


def _predict_containers(config: PredictConfig, work: Work, master: str) -> dict[str, str]:
    """A driver that predicts in its own process, and no executor."""
    memory = container_memory.evaluating_driver(network=work.network, batch_size=PREDICTED_BATCH, of_pictures=True)
    return memory.of_driver()


def _tensorboard(config: TensorboardConfig, context: Context) -> None:
    from tfos_job.local_jobs.tensorboard import tensorboard

    tensorboard(config, context.write)


PREDICT = Command(
    name="predict",
    config=PredictConfig,
    run=_predict,
    help="name the classes of images",
    when_stopped="Nothing is left; run it again",
    submission=Submission(
        profiles=("common", "driver"),
        containers=_predict_containers,
        size_of_work=size_of_work,
        check=_check_predict,
    ),
)
TENSORBOARD = Command(
    name="tensorboard",
    config=TensorboardConfig,
    run=_tensorboard,
    help="show a run's summaries, also those on HDFS",
    when_stopped="Nothing is left",
)
