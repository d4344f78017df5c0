"""A split of labelled images from Python: all but the writing of its shards (`conversion/row_shard.py`)."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.config import GNT, IMAGES, ConvertConfig
from tfos_job.conversion.generation import Building, build_aside, publish
from tfos_job.conversion.locked_split import LockedSplit, locked_split
from tfos_job.conversion.result import by_frequency
from tfos_job.conversion.row_shard import RowsResult, RowsTask, label_text
from tfos_job.conversion.split_manifest import first_manifest
from tfos_job.conversion.sweep import sweep_split
from tfos_job.driver import shards
from tfos_job.driver.shards import WrittenShards
from tfos_job.errors import BadDataError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest

_MAX_NUMBERS = 1 << 20

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class RowsOrder:
    """What a program asks for: a split of its images.

    Attributes:
      program: the function that it calls.
      config: the split, as `convert` would be asked for it.
      requested: the classes; None for those of the dataset, else for `found`.
      found: the classes of the images, of a dataset that has none yet.
      settings: for the manifest.
      overwrite: replace a split that is there.
    """

    program: str
    config: ConvertConfig
    requested: Charset | None
    found: Callable[[], Charset]
    settings: Mapping[str, Any]
    overwrite: bool


def order_config(place: str, dataset_name: str, **flags: Any) -> ConvertConfig:
    """The flags that `convert` would have: the same checks, and the same words."""
    is_gnt = dataset_name == GNT
    return ConvertConfig(gnt_dir=place if is_gnt else None, image_dir=None if is_gnt else place, **flags)


def write_split(order: RowsOrder, write: Callable[[RowsTask], Sequence[RowsResult]]) -> Manifest:
    """Builds the split aside, publishes it, and removes the one before.

    Args:
      order: what is asked for.
      write: writes all shards.

    Returns:
      The manifest of the split.

    Raises:
      SettingsError: the split is there already, or the dataset has other classes or channels.
      BadDataError: no row is of the classes; what `write` raises.
      BusyError: another job is writing to the dataset.
    """
    config = order.config
    of_gnt = config.gnt_dir is not None
    with locked_split(
        config.dataset_dir,
        config.dataset_split_name,
        owner=f"tfos_job {order.program} of split {config.dataset_split_name}",
        requested=order.requested,
        num_channels=config.channels,
        of_gnt=of_gnt,
        overwrite=order.overwrite,
        must_be_new=not order.overwrite,
    ) as target:
        charset = target.charset or order.requested or order.found()
        with build_aside(target.layout, target.live) as building:
            task = RowsTask(
                building_dir=building.work_dir,
                characters=charset.characters,
                image_format=config.stored_format,
                dataset_name=GNT if of_gnt else IMAGES,
            )
            manifest = _publish(order, target, building, task, write(task))
        sweep_split(target.layout, manifest)
        return manifest


def _publish(
    order: RowsOrder, target: LockedSplit, building: Building, task: RowsTask, results: Sequence[RowsResult]
) -> Manifest:
    """Publishes the split that the shards are; logs the rows that were left out."""
    charset = Charset(task.characters)
    written = WrittenShards(results=tuple(result.shard for result in results))
    filtered = sum((Counter(result.filtered) for result in results), Counter[str]())
    left_out = by_frequency(filtered)
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
        settings=order.settings,
        num_channels=order.config.channels,
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
