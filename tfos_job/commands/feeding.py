"""Training on images that a Python program holds: rows of a DataFrame, or arrays. The Python API alone has it.

The images are first converted into a dataset in the run's own folder, each exactly once; then the run trains as ever.
So a run that was stopped goes on like any other, also by `tfos-job train --train_dir RUN`.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tfos_job import storage
from tfos_job.commands.train import train
from tfos_job.config import IMAGES, FeedConfig, TrainConfig, to_dict
from tfos_job.errors import BusyError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.protocol.topology import check_slots, topology_of
from tfos_job.run import fed_dataset, folder, preparation, start
from tfos_job.run.training_data import SHARDS_PER_WORKER

if TYPE_CHECKING:
    from pyspark.sql import DataFrame

_log = logging.getLogger(__name__)


def train_dataframe(
    frame: DataFrame,
    config: FeedConfig,
    *,
    validation: DataFrame | None = None,
    class_names: Sequence[str] | None = None,
    num_channels: int = 1,
    keep_dataset: bool = False,
    master: str | None = None,
) -> dict[str, Any]:
    """Trains on the rows of a Spark DataFrame.

    They are converted into TRAIN_DIR/dataset, as `convert_dataframe` does, unless an earlier call has done that: a run
    that is resumed reads no DataFrame. The DataFrame's SparkSession is stopped then, since training has one of its own.
    The dataset is removed when the run is finished.

    Args:
      frame: columns `label` and `image`, and `height` and `width` where images are flat pixels: as of
        `convert_dataframe`.
      config: the run. `dataset_name` "gnt" is for glyphs in grey, whose labels are characters.
      validation: the rows of `config.validation_split_name`.
      class_names: the classes in their order (default: those that the rows hold).
      num_channels: of the images that the network sees, 1 or 3.
      keep_dataset: leave TRAIN_DIR/dataset where it is, for `evaluate`, `inspect` and more epochs.
      master: Spark's master for the training (default: the DataFrame's).

    Returns:
      The run's report.

    Raises:
      SettingsError: the program runs in a container of the cluster, where there is one SparkContext only.
      JobError: what `convert_dataframe` and `train` raise.
    """
    from tfos_job.driver import session

    if session.in_cluster_mode():  # and its settings are not those of a training
        raise SettingsError(
            "in cluster mode a program has one SparkContext, and training needs one of its own",
            place="train_dataframe",
            next_step="Call `convert_dataframe` there, then submit `train`; or submit the program in client mode",
        )
    spark = frame.sparkSession
    master = master or spark.sparkContext.master

    def convert(rows: DataFrame, split_name: str, fed: TrainConfig) -> None:
        from tfos_job.jobs.dataframe import convert_dataframe

        convert_dataframe(
            rows,
            dataset_dir=fed.dataset_dir,
            dataset_split_name=split_name,
            dataset_name=fed.dataset_name or IMAGES,
            charset=class_names or "auto",
            num_channels=num_channels,
            num_shards=max(rows.rdd.getNumPartitions(), _num_shards(fed)),
        )

    def begin(fed: TrainConfig) -> dict[str, Any]:
        spark.stop()
        return train(fed, master)

    return _train(frame, validation, config, master, convert, begin, keep_dataset=keep_dataset)


def train_arrays(
    images: Iterable[Any],
    labels: Iterable[Any],
    config: FeedConfig,
    *,
    validation: tuple[Iterable[Any], Iterable[Any]] | None = None,
    class_names: Sequence[str] | None = None,
    num_channels: int | None = None,
    keep_dataset: bool = False,
    master: str | None = None,
) -> dict[str, Any]:
    """Trains on numpy arrays, or on an iterable of them that is gone through once.

    They are converted into TRAIN_DIR/dataset, as `convert_arrays` does, unless an earlier call has done that: a run
    that is resumed goes through no images. The dataset is removed when the run is finished.

    Args:
      images: uint8 [N, h, w], [N, h, w, 1] or [N, h, w, 3], or an iterable of such images or of picture files' bytes.
      labels: as many class names, or whole numbers from 0.
      config: the run. `dataset_name` "gnt" is for glyphs in grey, whose labels are characters.
      validation: images and labels of `config.validation_split_name`.
      class_names: the classes in their order (default: the names that there are, or the numbers from 0 to the largest).
      num_channels: of the images that the network sees, 1 or 3 (default: those of the first array; 1 for files).
      keep_dataset: leave TRAIN_DIR/dataset where it is, for `evaluate`, `inspect` and more epochs.
      master: Spark's master for the training, such as local[4] (default: spark-submit's, else local Spark).

    Returns:
      The run's report.

    Raises:
      JobError: what `convert_arrays` and `train` raise.
    """

    def convert(rows: tuple[Iterable[Any], Iterable[Any]], split: str, fed: TrainConfig) -> None:
        from tfos_job.jobs.arrays import convert_arrays

        convert_arrays(
            *rows,
            dataset_dir=fed.dataset_dir,
            dataset_split_name=split,
            dataset_name=fed.dataset_name or IMAGES,
            class_names=class_names,
            num_channels=num_channels,
            num_shards=_num_shards(fed),
        )

    def begin(fed: TrainConfig) -> dict[str, Any]:
        return train(fed, master)

    return _train((images, labels), validation, config, master, convert, begin, keep_dataset=keep_dataset)


def _num_shards(config: TrainConfig) -> int:
    return SHARDS_PER_WORKER * config.num_workers


def _train(
    rows: Any,
    validation: Any,
    config: FeedConfig,
    master: str | None,
    convert: Callable[..., None],
    begin: Callable[[TrainConfig], dict[str, Any]],
    *,
    keep_dataset: bool,
) -> dict[str, Any]:
    """Converts what is not yet there, trains, and removes the dataset of a finished run."""
    run = RunLayout(storage.absolute(config.train_dir))
    _check(config, validation, master)
    fed = TrainConfig(**to_dict(config) | {"dataset_dir": fed_dataset.dataset_of(run).root})
    splits = {config.dataset_split_name: rows}
    if config.validation_split_name is not None:
        splits[config.validation_split_name] = validation
    with folder.lock(run):  # nobody trains on what is replaced here
        found = folder.read(run, overwrite=config.overwrite)
        if found.clear:
            fed_dataset.remove(run, list(splits))
        there = fed_dataset.published(run, list(splits))
        if config.dataset_split_name not in there and found.report is not None and folder.is_done(found.report, fed):
            _log.info("%s is finished. Nothing to do", run.root)
            return dict(found.report)
        start.decide(preparation.with_absolute_paths(fed), found)  # fails now for what fits no run that is resumed
        for name, images in splits.items():
            if name in there:
                _log.info("split %s of %s is there: no image is read again", name, fed.dataset_dir)
            else:
                convert(images, name, fed)
    report = begin(fed)
    if report["state"] == folder.FINISHED and not keep_dataset:
        _remove(run, list(splits))
    return report


def _remove(run: RunLayout, split_names: Sequence[str]) -> None:
    """Removes the dataset of a finished run, unless another call has begun to use it."""
    try:
        with folder.lock(run):
            fed_dataset.remove(run, split_names)
    except BusyError as error:
        _log.warning("%s stays: %s", fed_dataset.dataset_of(run).root, error)


def _check(config: FeedConfig, validation: Any, master: str | None) -> None:
    """Refuses what can be told before anything is written."""
    if config.dataset_dir:
        raise SettingsError(
            "given, and the images go into a dataset in the run's folder",
            place=f"dataset_dir {config.dataset_dir}",
            next_step="Give a FeedConfig without it",
        )
    if (validation is None) != (config.validation_split_name is None):
        raise SettingsError(
            "one of `validation` and `validation_split_name` is not given",
            place="validation",
            next_step="Give both or none of them",
        )
    if config.validation_split_name == config.dataset_split_name:
        raise SettingsError(
            "it is the training split's, too",
            place=f"validation_split_name {config.validation_split_name}",
            next_step="Give another name",
        )
    if master is not None:
        check_slots(topology_of(config, master), master)
