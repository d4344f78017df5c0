"""`convert`."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from tfos_job.commands.command import Command, Context, Submission, Work, batch_containers
from tfos_job.config import ConvertConfig

if TYPE_CHECKING:
    from tfos_job.driver.on_demand import Spark
    from tfos_job.jobs.adopt import AdoptedSplit
    from tfos_job.jobs.convert import ConvertResult
    from tfos_job.jobs.convert_images import ConvertedImages

log = logging.getLogger(__name__)


def convert(spark: Spark, config: ConvertConfig) -> ConvertResult | ConvertedImages | AdoptedSplit:
    """Makes one split of a dataset from GNT files, images or TFRecords, or brings it up to date."""
    from tfos_job.jobs.adopt import adopt
    from tfos_job.jobs.convert import convert
    from tfos_job.jobs.convert_images import convert_images

    if config.tfrecord_dir is not None:
        return adopt(spark, config)
    return convert(spark, config) if config.image_dir is None else convert_images(spark, config)


def run(config: ConvertConfig, context: Context) -> None:
    from tfos_job.conversion.dataset import require_folders
    from tfos_job.driver.on_demand import SparkOnDemand
    from tfos_job.protocol.topology import resolve_master

    require_folders(config)
    log.info("Looking through %s", config.input_dir)
    master = resolve_master(context.master, num_nodes=1)
    with SparkOnDemand(f"tfos_job convert {config.dataset_dir}", master) as spark:
        result = convert(spark, config)
    context.emit(result.to_dict())


def check(config: ConvertConfig) -> None:
    """Raises MissingInputError for input that is not there."""
    from tfos_job import storage
    from tfos_job.conversion.dataset import require_folders
    from tfos_job.errors import MissingInputError

    require_folders(config)
    for name in ("labels_csv", "labels"):
        file = getattr(config, name)
        if file is not None and not storage.exists(file):
            raise MissingInputError("no such file", place=file, next_step=f"Check --{name}")


CONVERT = Command(
    name="convert",
    config=ConvertConfig,
    run=run,
    help="make one split of a dataset from GNT shards, images or TFRecords",
    when_stopped="A split is published whole or not at all; run the same command again",
    on_spark=True,
    submission=Submission(
        profiles=("common", "batch"),
        containers=batch_containers,
        size_of_work=lambda config: Work(of_pictures=config.of_pictures),
        check=check,
    ),
)
