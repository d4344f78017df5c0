"""A split of labelled images from Python (`conversion/row_shard.py`), once their shards are written."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tfos_job.conversion.dataset import some
from tfos_job.conversion.generation import Building, publish
from tfos_job.conversion.locked_split import LockedSplit
from tfos_job.conversion.row_shard import RowsResult, RowsTask, label_text
from tfos_job.conversion.split_manifest import first_manifest
from tfos_job.driver import shards
from tfos_job.driver.shards import WrittenShards
from tfos_job.errors import BadDataError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest

_MAX_NUMBERS = 1 << 20

_log = logging.getLogger(__name__)


def publish_rows(
    target: LockedSplit,
    building: Building,
    task: RowsTask,
    results: Sequence[RowsResult],
    *,
    num_channels: int,
    settings: Mapping[str, Any],
) -> Manifest:
    """Publishes the split that the shards are; returns its manifest. Logs the rows that were left out.

    Args:
      target: the split.
      building: its new generation, which the shards were written into.
      task: that they were written by.
      results: of all of them.
      num_channels: of the images that training is to see.
      settings: for the manifest.

    Raises:
      BadDataError: no row is of the classes.
      BusyError: the dataset's lock is somebody else's by now.
    """
    charset = Charset(task.characters)
    written = WrittenShards(results=tuple(result.shard for result in results))
    filtered = sum((Counter(result.filtered) for result in results), Counter[str]())
    left_out = some([f"{label} × {count}" for label, count in filtered.most_common()])
    if not written.class_counts:
        raise BadDataError(
            f"no row is of the {len(charset)} classes; the rows hold {left_out or 'nothing'}",
            place=target.layout.root,
            next_step="Check the rows and the classes",
        )
    manifest = first_manifest(
        split_name=target.name,
        generation=building.generation,
        image_format=task.image_format,
        charset=charset,
        shards=shards.collect(written.results, building.shards_dir, building.folder),
        class_counts=written.class_counts,
        settings=settings,
        num_channels=num_channels,
        dataset_name=task.dataset_name,
    )
    publish(target, manifest, charset, building, ())
    _log.info("%s: %d records in %d shards", target.layout.root, manifest.num_records, len(manifest.shards))
    if filtered:
        _log.warning("%d rows are not of the classes and were left out: %s", filtered.total(), left_out)
    return manifest


def classes_of(labels: Iterable[Any], place: str) -> Charset:
    """The classes of labels: of text the names that there are, sorted; of whole numbers all from 0 to the largest.

    Args:
      labels: all text, or all whole numbers; each may come any number of times.
      place: where they are, for the error.

    Raises:
      BadDataError: there are none, or one is neither, or there are both.
    """
    try:
        found = set(labels)
    except TypeError as error:  # such as an array of one number, as of labels [N, 1]
        raise BadDataError(
            f"one of them is no text and no whole number: {error}",
            place=place,
            next_step="Give a flat sequence, such as labels.ravel()",
        ) from error
    if not found:
        raise BadDataError("has no rows", place=place, next_step="Check what it was made of")
    texts = {label_text(label, place) for label in found}
    if not any(isinstance(label, str) for label in found):
        largest = max(map(int, texts))
        if largest >= _MAX_NUMBERS:
            fact = f"the largest label is {largest}, and labels that are numbers are those of the classes from 0"
            raise BadDataError(fact, place=place, next_step="Give labels as text")
        return Charset(tuple(map(str, range(largest + 1))))
    if not all(isinstance(label, str) for label in found):
        raise BadDataError("some labels are text and some are numbers", place=place, next_step="Give one kind")
    return charsets.from_characters(texts)
