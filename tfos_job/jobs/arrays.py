"""A split from numpy arrays, written by this process, which has them. The Python API alone has it.

from tfos_job import convert_arrays

convert_arrays(images, labels, dataset_dir="dataset", class_names=["cat", "dog"])
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from tfos_job.config import GNT, IMAGES
from tfos_job.conversion.row_shard import RowsResult, RowsTask, open_shard, pixels_of, row_of
from tfos_job.driver.row_split import RowsOrder, classes_of, order_config, write_split
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import decoder
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest

_PLACE = "arrays"


def convert_arrays(
    images: Iterable[Any],
    labels: Iterable[Any],
    *,
    dataset_dir: str,
    dataset_split_name: str = "train",
    dataset_name: str = IMAGES,
    class_names: Sequence[str] | None = None,
    num_channels: int | None = None,
    num_shards: int = 16,
    overwrite: bool = False,
) -> Manifest:
    """Writes images and their labels as the shards of a split, in this process; nothing is held in memory.

    Args:
      images: an array of uint8 [N, h, w], [N, h, w, 1] or [N, h, w, 3], or an iterable of such images, which may differ
        in size, or of a picture file's bytes.
      labels: as many: class names, or whole numbers from 0. Without `class_names` they are gone through twice, so they
        must be a sequence then.
      dataset_dir: folder of the dataset.
      dataset_split_name: the split to write.
      dataset_name: `images`, or `gnt` for glyphs in grey, background 255, whose labels are single characters.
      class_names: the classes in their order (default: the dataset's; of a new one the names that there are, sorted, or
        the numbers from 0 to the largest). Labels that are numbers are class ids. Other names are counted and left out.
      num_channels: of the images that training is to see, 1 or 3 (default: those of the first array; 1 for files).
      num_shards: that the images are dealt to in turn: four or more for each worker.
      overwrite: replace a split that is there.

    Returns:
      The manifest of the split.

    Raises:
      SettingsError: the split is there already, or the dataset has other classes.
      BadDataError: an image or a label is none, there are more of one than of the other, or no image is of the classes.
      BusyError: another job is writing to the dataset.
    """
    if class_names is None and iter(labels) is labels:
        raise SettingsError(
            "can be gone through only once, and its classes must be known before",
            place="labels",
            next_step="Give class_names, or a list of labels",
        )
    if num_shards < 1:
        raise SettingsError(f"{num_shards} is less than 1", place="num_shards", next_step="Give 1 or more")
    pairs, found_channels = _peeked(images, labels)
    order = RowsOrder(
        program="convert_arrays",
        config=order_config(
            _PLACE,
            dataset_name,
            dataset_dir=dataset_dir,
            dataset_split_name=dataset_split_name,
            num_channels=num_channels or (1 if dataset_name == GNT else found_channels),
        ),
        requested=Charset(tuple(class_names)) if class_names is not None else None,
        found=lambda: classes_of(labels, "labels"),
        settings={"arrays": True},
        overwrite=overwrite,
    )
    try:
        return write_split(order, lambda task: _write(pairs, num_shards, task))
    finally:
        decoder.of_this_process().close()  # where there were files: TensorFlow's memory is not kept for a training


def _write(pairs: Iterable[tuple[Any, Any]], num_shards: int, task: RowsTask) -> list[RowsResult]:
    """Deals the images to the shards in turn."""
    with contextlib.ExitStack() as stack:
        shards = [stack.enter_context(open_shard(f"{_PLACE}-{i:05d}", task)) for i in range(num_shards)]
        for number, (image, label) in enumerate(pairs):
            place = f"image {number}"
            row = row_of(label, image, task.characters, place)
            shards[number % num_shards].write(row, number // num_shards, place)
    return [shard.result() for shard in shards]


def _peeked(images: Iterable[Any], labels: Iterable[Any]) -> tuple[Iterator[tuple[Any, Any]], int]:
    """The pairs of image and label, and the images' channels by the first one: 3 or 1."""
    nothing = object()
    pairs = itertools.zip_longest(images, labels, fillvalue=nothing)
    first = next(pairs, None)
    if first is None:
        raise BadDataError("there are no images", place=_PLACE, next_step="Check what they were made of")

    def whole() -> Iterator[tuple[Any, Any]]:
        for number, (image, label) in enumerate(itertools.chain([first], pairs)):
            if image is nothing or label is nothing:
                fact = f"there are {number} {'images' if image is nothing else 'labels'} and more of the other"
                raise BadDataError(fact, place=_PLACE, next_step="Give a label for each image")
            yield image, label

    image = first[0]
    is_file = image is None or isinstance(image, (bytes, bytearray, memoryview))
    return whole(), 1 if is_file or pixels_of(image, "image 0").shape[2:] != (3,) else 3
