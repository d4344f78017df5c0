"""A split from a Spark DataFrame, for images that are in no GNT file. Runs on the driver; the Python API alone has it.

from tfos_job import convert_dataframe

frame = spark.read.format("binaryFile").load("hdfs:///images/*/*.png").selectExpr(
    "content AS image", "element_at(split(path, '/'), -2) AS character"
)
convert_dataframe(frame, dataset_dir="hdfs:///data/mine", dataset_split_name="train", charset="auto")
"""

from __future__ import annotations

import functools
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pyspark.sql import DataFrame

from tfos_job.config import ConvertConfig
from tfos_job.conversion.dataframe_shard import Row, RowsResult, RowsTask, write_rows
from tfos_job.conversion.dataset import some
from tfos_job.conversion.generation import build_aside, publish
from tfos_job.conversion.locked_split import LockedSplit, locked_split
from tfos_job.conversion.split_manifest import first_manifest
from tfos_job.conversion.sweep import sweep_split
from tfos_job.driver import shards, task_attempts, tasks
from tfos_job.driver.shards import WrittenShards
from tfos_job.driver.task_attempts import TaskFailure
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest

_log = logging.getLogger(__name__)


def convert_dataframe(
    frame: DataFrame,
    *,
    dataset_dir: str,
    dataset_split_name: str = "train",
    charset: Sequence[str] | str | None = None,
    image_format: str = "raw",
    num_shards: int | None = None,
    overwrite: bool = False,
) -> Manifest:
    """Writes a DataFrame's rows as the shards of a split, one a partition.

    Its tasks may run twice and its rows come in any order: each shard is what one run of one task has written. A split
    that was made like this does not grow; it is built as a whole.

    Args:
      frame: columns `character` (string, one character) and `image` (binary): a file that Pillow reads, or where there
        are integer columns `height` and `width`, so many grey bytes, background 255.
      dataset_dir: folder of the dataset.
      dataset_split_name: the split to write.
      charset: the classes in their order, or `auto` for those that the rows hold; None for the dataset's own, or the
        3,755 of GB2312 level 1. Rows of other characters are counted and left out.
      image_format: `raw` or `png`.
      num_shards: rows are dealt to so many shards; None leaves the DataFrame's partitions as they are.
      overwrite: replace a split that is there.

    Returns:
      The manifest of the split.

    Raises:
      SettingsError: columns are missing, the split is there already, or the dataset has other classes.
      BadDataError: a row without a character, an image that cannot be read, or no row of the classes.
      BusyError: another job is writing to the dataset.
    """
    # The same checks as the command's, and the same words.
    ConvertConfig(
        gnt_dir="the DataFrame",
        dataset_dir=dataset_dir,
        dataset_split_name=dataset_split_name,
        image_format=image_format,
    )
    rows = _rows(frame, num_shards)
    requested = None if charset in (None, "auto") else Charset(tuple(charset or ()))
    with locked_split(
        dataset_dir,
        dataset_split_name,
        owner=f"tfos_job convert_dataframe of split {dataset_split_name}",
        requested=requested,
        overwrite=overwrite,
        must_be_new=not overwrite,
    ) as target:
        used = target.charset or requested
        if used is None:
            used = _found_charset(rows) if charset == "auto" else charsets.level1()
        manifest, filtered = _build(target, rows, used, image_format, dict(frame.dtypes))
        sweep_split(target.layout, manifest)
    _log.info("%s: %d records in %d shards", target.layout.root, manifest.num_records, len(manifest.shards))
    if filtered:
        words = _by_frequency(filtered)
        _log.warning("%d rows are not in the charset and were left out: %s", filtered.total(), words)
    return manifest


def _build(
    target: LockedSplit, rows: Any, charset: Charset, image_format: str, columns: Mapping[str, str]
) -> tuple[Manifest, Counter[str]]:
    """Publishes the split. Returns its manifest, and the rows that were left out by character."""
    with build_aside(target.layout, target.live) as building:
        task = RowsTask(building_dir=building.work_dir, characters=charset.characters, image_format=image_format)
        results = _run(rows, task)
        written = WrittenShards(results=tuple(result.shard for result in results))
        filtered = sum((Counter(result.filtered) for result in results), Counter[str]())
        if not written.class_counts:
            raise BadDataError(
                f"no row is of the {len(charset)} classes; the rows hold {_by_frequency(filtered) or 'nothing'}",
                place=target.layout.root,
                next_step="Check the DataFrame and the charset",
            )
        manifest = first_manifest(
            split_name=target.name,
            generation=building.generation,
            image_format=image_format,
            charset=charset,
            shards=shards.collect(written.results, building.shards_dir, building.folder),
            class_counts=written.class_counts,
            settings={"dataframe": dict(columns)},
        )
        publish(target, manifest, charset, building, ())
    return manifest, filtered


def _by_frequency(filtered: Counter[str]) -> str:
    return some([f"{character} × {count}" for character, count in filtered.most_common()])


def _rows(frame: DataFrame, num_shards: int | None) -> Any:
    """The DataFrame as an RDD of `Row`s."""
    missing = {"character", "image"} - set(frame.columns)
    if missing or ("height" in frame.columns) != ("width" in frame.columns):
        raise SettingsError(
            f"it has the columns {', '.join(frame.columns)}",
            place="DataFrame",
            next_step="Give it `character` and `image`, and both or none of `height` and `width`",
        )
    columns = ["character", "image", *(["height", "width"] if "height" in frame.columns else [])]
    selected = frame.select(*columns)
    if num_shards is not None:
        selected = selected.repartition(num_shards)
    return selected.rdd.mapPartitions(_typed_rows)


def _typed_rows(rows: Iterable[Any]) -> Iterator[Row]:
    for character, image, *sides in rows:
        height, width = sides or (None, None)
        yield Row(character, image, height, width)


def _found_charset(rows: Any) -> Charset:
    found = rows.map(lambda row: row.character).distinct().collect()
    if not found:
        raise BadDataError("has no rows", place="DataFrame", next_step="Check what it was made of")
    if not all(isinstance(character, str) for character in found):
        raise BadDataError("a row has no character", place="DataFrame", next_step="Filter out such rows")
    return charsets.from_characters(found)


def _run(rows: Any, task: RowsTask) -> list[RowsResult]:
    """Raises the first error of a partition, in their order."""
    work = functools.partial(_attempt, task, task_attempts.max_attempts(rows.context))
    return tasks.results(rows.mapPartitionsWithIndex(work).collect())


def _attempt(
    task: RowsTask, num_attempts: int, partition: int, rows: Iterable[Row]
) -> Iterator[RowsResult | TaskFailure]:
    yield task_attempts.run(lambda task: write_rows(partition, rows, task), num_attempts, task)
