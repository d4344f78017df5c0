"""`export`."""

from __future__ import annotations

import importlib.util

from tfos_job.commands import container_memory
from tfos_job.commands.command import Command, Context, Submission, Work
from tfos_job.commands.container_memory import Network
from tfos_job.commands.evaluate import size_of_run
from tfos_job.commands.tensorflow_start import load_tensorflow
from tfos_job.config import NETWORKS, ExportConfig
from tfos_job.config.defaults import KERAS_SUFFIXES, ONNX, PREDICTED_BATCH, SAVED_MODEL, TFLITE

# What a format needs beside TensorFlow, by import name: the extras of pyproject.toml.
_PACKAGES = {SAVED_MODEL: (), TFLITE: ("ai_edge_litert",), ONNX: ("tf2onnx", "onnx", "onnxruntime")}


def run(config: ExportConfig, context: Context) -> None:
    from tfos_job.local_jobs.export import export

    check(config)
    context.emit(export(config, load_tensorflow=lambda: load_tensorflow(loud=context.is_debug)))


def check(config: ExportConfig) -> None:
    """Raises MissingInputError for a run, a checkpoint or a file, SettingsError for a package or a name that is."""
    from tfos_job import storage
    from tfos_job.errors import SettingsError
    from tfos_job.layout import RunLayout
    from tfos_job.run import own_network

    if config.train_dir is not None:
        own_network.check(RunLayout(config.train_dir), config.checkpoint, config.model_name)
    for file in filter(None, (config.weights, config.labels)):
        if file == config.labels or file.endswith(KERAS_SUFFIXES):  # else it is the beginning of names
            storage.stat(file)
    for name in config.all_formats:
        missing = [module for module in _PACKAGES[name] if importlib.util.find_spec(module) is None]
        if missing:
            raise SettingsError(
                f"the package {missing[0]} is not installed",
                place=f"--formats {name}",
                next_step=f"pip install 'tfos_job[{name}]'",
            )


def check_submitted(config: ExportConfig) -> None:
    """The same, and refuses what the job's containers have no packages for."""
    from tfos_job.errors import SettingsError

    if config.all_formats != (SAVED_MODEL,):
        raise SettingsError(
            "their packages are extras, which do not travel with a job",
            place=f"--formats {config.formats}",
            next_step="Call `tfos-job export` on a host that has them; --export_dir may be on HDFS",
        )
    check(config)


def size_of_work(config: ExportConfig) -> Work:
    if config.train_dir is not None:
        return size_of_run(config.train_dir)
    assert config.model_name is not None
    side = config.image_size or NETWORKS[config.model_name]
    return Work(network=Network(model_name=config.model_name, image_size=side, num_channels=3, num_classes=1001))


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
        check=check_submitted,
    ),
)
