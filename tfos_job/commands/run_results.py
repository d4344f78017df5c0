"""`predict`, `report` and `tensorboard`: commands that read a run, on this host only."""

from tfos_job.commands.command import Command, Context
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import PredictConfig, ReportConfig, TensorboardConfig


def _predict(config: PredictConfig, context: Context) -> None:
    from tfos_job.local_jobs.predict import predict

    for result in predict(config, load_tensorflow=lambda: load_tensorflow(loud=context.is_debug)):
        context.emit(result)


def _report(config: ReportConfig, context: Context) -> None:
    from tfos_job.local_jobs.report import read, summary, write_page

    if config.html is None:
        report = read(config.train_dir)
        for name, value in summary(report):
            context.say(f"{name:<18}{value}")
        context.emit(report)
        return
    load_tensorflow(loud=context.is_debug)
    context.emit(write_page(config.train_dir, config.html))


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
REPORT = Command(
    name="report",
    config=ReportConfig,
    run=_report,
    help="print a run's report, or write the whole run as one HTML file",
    when_stopped="Nothing is left; run it again",
)
TENSORBOARD = Command(
    name="tensorboard",
    config=TensorboardConfig,
    run=_tensorboard,
    help="show a run's summaries, also those on HDFS",
    when_stopped="Nothing is left",
)
