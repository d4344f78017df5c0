"""A split from a Spark DataFrame, for images that are in no GNT file. Runs on the driver; the Python API alone has it.

from tfos_job import convert_dataframe

frame = spark.read.format("binaryFile").load("hdfs:///images/*/*.png").selectExpr(
    "content AS image", "element_at(split(path, '/'), -2) AS character"
)
convert_dataframe(frame, dataset_dir="hdfs:///data/mine", dataset_split_name="train", charset="auto")
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from pyspark.sql import DataFrame

from tfos_job.config import GNT, IMAGES
from tfos_job.conversion.row_shard import Row, RowsResult, RowsTask, row_of, row_place, write_rows
from tfos_job.driver import task_attempts, tasks
from tfos_job.driver.row_split import RowsOrder, classes_of, order_config, write_split
from tfos_job.driver.task_attempts import TaskFailure
from tfos_job.errors import SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest

_PLACE = "DataFrame"


def convert_dataframe(
    frame: DataFrame,
    *,
    dataset_dir: str,
    dataset_split_name: str = "train",
    dataset_name: str = GNT,
    charset: Sequence[str] | str | None = None,
    image_format: str | None = None,
    num_channels: int = 1,
    num_shards: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Writes a DataFrame's rows as the shards of a split, one a partition.

    Its tasks may run twice and its rows come in any order: each shard is what one run of one task has written. A split
    that was made like this does not grow; it is built as a whole.

    Args:
      frame: columns `label` (or `character`) and `image`. A label is text, or a whole number of 0 or more. An image is
        binary, a file that Pillow reads (for `images` a PNG, JPEG or GIF), or an array of whole numbers from 0 to 255,
        [h][w] or [h][w][3]; where there are integer columns `height` and `width` it is so many grey bytes or flat
        numbers (for `images` also RGB).
      dataset_dir: folder of the dataset.
      dataset_split_name: the split to write.
      dataset_name: `gnt` for glyphs in grey, background 255, whose labels are single characters; `images` for all else.
      charset: the classes in their order, or `auto` for those that the rows hold; None for the dataset's own, else for
        `gnt` the 3,755 of GB2312 level 1, for `images` those that the rows hold. Labels that are numbers are class
        ids: those that the rows hold are then all from 0 to the largest. Rows of other labels are counted and left out.
      image_format: for `gnt` `raw` (default) or `png`; for `images` `keep` (default), which leaves files as they are
        where training reads the same pixels, or `png`.
      num_channels: of the images that training is to see, 1 or 3.
      num_shards: rows are dealt to so many shards; None leaves the DataFrame's partitions as they are.
      overwrite: replace a split that is there.

    Returns:
      The manifest of the split.

    Raises:
      SettingsError: columns are missing, the split is there already, or the dataset has other classes.
      BadDataError: a row without a label, an image that cannot be read, or no row of the classes.
      BusyError: another job is writing to the dataset.
    """
    rows = _rows(frame, num_shards)

    def found() -> Charset:
        by_rows = charset == "auto" or dataset_name == IMAGES
        return classes_of(_labels(frame), _PLACE) if by_rows else charsets.level1()

    order = RowsOrder(
        program="convert_dataframe",
        config=order_config(
            _PLACE,
            dataset_name,
            dataset_dir=dataset_dir,
            dataset_split_name=dataset_split_name,
            image_format=image_format,
            num_channels=num_channels,
        ),
        requested=None if charset in (None, "auto") else Charset(tuple(charset or ())),
        found=found,
        settings={"dataframe": dict(frame.dtypes)},
        overwrite=overwrite,
    )
    return write_split(order, lambda task: _write(rows, task))


def _rows(frame: DataFrame, num_shards: int | None) -> Any:
    """The DataFrame as an RDD of label, image and, where they are columns, height and width."""
    label = _label_column(frame)
    missing = {label, "image"} - set(frame.columns)
    if missing or ("height" in frame.columns) != ("width" in frame.columns):
        raise SettingsError(
            f"it has the columns {', '.join(frame.columns)}",
            place=_PLACE,
            next_step="Give it `label` (or `character`) and `image`, and both or none of `height` and `width`",
        )
    columns = [label, "image", *(["height", "width"] if "height" in frame.columns else [])]
    selected = frame.select(*columns)
    if num_shards is not None:
        selected = selected.repartition(num_shards)
    return selected.rdd


def _label_column(frame: DataFrame) -> str:
    return "label" if "label" in frame.columns else "character"


def _labels(frame: DataFrame) -> list[Any]:
    """The labels that there are, each once; Spark need not read the images for that."""
    return [label for (label,) in frame.select(_label_column(frame)).distinct().collect()]


def _write(rows: Any, task: RowsTask) -> list[RowsResult]:
    """A shard of each partition; raises the first error of a partition, in their order."""
    work = functools.partial(_attempt, task, task_attempts.max_attempts(rows.context))
    return tasks.results(rows.mapPartitionsWithIndex(work).collect())


def _attempt(
    task: RowsTask, num_attempts: int, partition: int, rows: Iterable[Any]
) -> Iterator[RowsResult | TaskFailure]:
    def write(task: RowsTask) -> RowsResult:
        return write_rows(partition, _typed_rows(partition, rows, task), task)

    yield task_attempts.run(write, num_attempts, task)


def _typed_rows(partition: int, rows: Iterable[Any], task: RowsTask) -> Iterator[Row]:
    for number, (label, image, *sides) in enumerate(rows):
        yield row_of(label, image, task.characters, row_place(partition, number), *sides)
