"""Labelled images from Python as a shard: rows of a DataFrame (on executors), or arrays (in the driver's process).

They become records of a registered reader: `gnt`, where an image is a glyph in grey and a label is its character, or
`images`, where a picture file stays as it is if training can read it, and a label is a name of any length.
"""

from __future__ import annotations

import contextlib
import numbers
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from tfos_job import storage
from tfos_job.config import GNT
from tfos_job.conversion.shard_file import ShardResult, own_name, shard_entry
from tfos_job.errors import BadDataError
from tfos_job.formats import charset as charsets
from tfos_job.formats import image_files, tfrecord
from tfos_job.formats.charset import Charset
from tfos_job.formats.example_writer import GlyphEncoder, picture_example
from tfos_job.formats.gnt import MAX_SIDE
from tfos_job.formats.hashing import HashingWriter
from tfos_job.formats.image_files import StoredPicture


class Row(NamedTuple):
    """A labelled image: the bytes of a file, or pixels row by row, `height` × `width` grey or RGB values."""

    label: str
    image: bytes
    height: int | None
    width: int | None


def label_text(label: Any, place: str) -> str:
    """The class's name in the charset: text in its normal form, the digits of a whole number.

    Raises:
      BadDataError: it is neither, or a number below 0.
    """
    if isinstance(label, str) and label.strip():
        return charsets.class_name(label)
    if isinstance(label, numbers.Integral) and str(label).isdecimal():  # neither True nor -1
        return str(label)
    raise _bad(place, f"expected a label as text or a whole number of 0 or more, found {label!r}")


def row_of(
    label: Any,
    image: Any,
    characters: Sequence[str],
    place: str,
    height: int | None = None,
    width: int | None = None,
) -> Row:
    """A row from Python's values.

    Args:
      label: text, or a class id.
      image: the bytes of a file, or with `height` and `width` of pixels; or an array (or nested lists) of whole
        numbers from 0 to 255: [h, w] or [h, w, 1] of grey, [h, w, 3] of RGB, or flat with `height` and `width`.
      characters: the classes' names, by class id.
      place: of the row, for the error.
      height: of flat pixels.
      width: of flat pixels.

    Raises:
      BadDataError: the label or the image is something else.
    """
    text = label_text(label, place)
    if not isinstance(label, str):
        if int(text) >= len(characters):
            raise _bad(place, f"label {text} is none of the {len(characters)} classes")
        text = characters[int(text)]
    if isinstance(image, (bytes, bytearray, memoryview)):
        return Row(text, bytes(image), height, width)
    if image is None:
        raise _bad(place, "has no image")
    pixels = pixels_of(image, place)
    if height is not None and width is not None:
        return Row(text, pixels.tobytes(), height, width)
    if pixels.ndim not in (2, 3) or pixels.shape[2:] not in ((), (1,), (3,)):
        raise _bad(place, f"expected an image of [h, w], [h, w, 1] or [h, w, 3], found {list(pixels.shape)}")
    return Row(text, pixels.tobytes(), pixels.shape[0], pixels.shape[1])


def pixels_of(image: Any, place: str) -> np.ndarray:
    """An image of whole numbers from 0 to 255 as uint8, of the same shape.

    Raises:
      BadDataError: it is something else.
    """
    try:
        pixels = np.asarray(image)
    except ValueError as error:  # nested lists of different lengths
        raise _bad(place, f"not an image: {error}") from error
    if pixels.dtype == np.uint8:
        return pixels
    if not np.issubdtype(pixels.dtype, np.integer) or (pixels.size and (pixels.min() < 0 or pixels.max() > 255)):
        fact = f"found {pixels.dtype}"
        if np.issubdtype(pixels.dtype, np.number) and pixels.size:
            fact += f" from {pixels.min():g} to {pixels.max():g}"
        raise _bad(place, f"expected whole numbers from 0 to 255, {fact}")
    return pixels.astype(np.uint8)


@dataclass(frozen=True, kw_only=True)
class RowsTask:
    """The order to write rows; fields as of `gnt_shard.GroupTask`.

    Attributes:
      dataset_name: the reader of the records.
      image_format: `raw` or `png` for `gnt`, `keep` or `png` for `images`.
    """

    building_dir: str
    characters: tuple[str, ...]
    image_format: str
    dataset_name: str = GNT


@dataclass(frozen=True)
class RowsResult:
    """A shard of rows, and those that were left out, by label."""

    shard: ShardResult
    filtered: Mapping[str, int]


class RowShard:
    """A shard that is written row by row; a record's source is `source`, its offset the row's number."""

    def __init__(self, stream: BinaryIO, path: str, source: str, task: RowsTask) -> None:
        """Takes the open file at `path`; use `open_shard`."""
        self._source, self._task, self._path = source, task, path
        self._class_ids = Charset(task.characters).class_ids
        self._glyphs = GlyphEncoder(task.characters, task.image_format) if task.dataset_name == GNT else None
        self._class_counts: Counter[int] = Counter()
        self._filtered: Counter[str] = Counter()
        self._writer = HashingWriter(stream)

    def write(self, row: Row, number: int, place: str) -> None:
        """Writes a row, or counts it as left out if its label is none of the classes.

        Args:
          row: the image and its label.
          number: of the row, within its source.
          place: of the row, for the error.

        Raises:
          BadDataError: an image that cannot be read, or, for `gnt`, a label that is not one character.
        """
        if self._glyphs and len(row.label) != 1:
            raise _bad(place, f"expected one character, found {row.label!r}")
        class_id = self._class_ids.get(row.label)
        if class_id is None:
            self._filtered[row.label] += 1
            return
        if self._glyphs:
            pixels, width, height = _glyph(row, place)
            self._writer.write(self._glyphs.encode_one(class_id, pixels, width, height, self._source, number))
        else:
            example = picture_example(
                _picture(row, place, keep=self._task.image_format == "keep"),
                class_id=class_id,
                label=row.label,
                source=self._source,
                offset=number,
            )
            tfrecord.write_record(self._writer, example)
        self._class_counts[class_id] += 1

    def result(self) -> RowsResult:
        """The shard with the rows up to here."""
        shard = shard_entry(self._source, self._writer, self._class_counts.total(), ())
        result = ShardResult(written_file=self._path, shard=shard, class_counts=dict(self._class_counts))
        return RowsResult(result, dict(self._filtered))


@contextlib.contextmanager
def open_shard(source: str, task: RowsTask) -> Iterator[RowShard]:
    """A shard under a name of its own in the task's folder; it is whole when the block ends.

    Raises:
      JobError: what storage raises.
    """
    path = own_name(task.building_dir, source)
    with storage.open_write(path) as stream:
        yield RowShard(stream, path, source, task)


def row_place(partition: int, number: int) -> str:
    """The words for a row of a DataFrame."""
    return f"partition {partition}, row {number}"


def write_rows(partition: int, rows: Iterable[Row], task: RowsTask) -> RowsResult:
    """Writes the rows of a DataFrame's partition as one shard.

    Raises:
      BadDataError: as `RowShard.write`.
      JobError: what storage raises.
    """
    with open_shard(f"partition-{partition:05d}", task) as shard:
        for number, row in enumerate(rows):
            shard.write(row, number, row_place(partition, number))
    return shard.result()


def _glyph(row: Row, place: str) -> tuple[bytes, int, int]:
    """Grey bytes, width, height."""
    if row.height is None or row.width is None:
        try:
            with image_files.opened(bytes(row.image)) as image:
                grey = image_files.flat(image).convert("L")
        except ValueError as error:
            raise _bad(place, f"not an image that Pillow reads: {error}") from error
        width, height, pixels = grey.width, grey.height, grey.tobytes()
    else:
        width, height, pixels = row.width, row.height, bytes(row.image)
    _check_sides(width, height, MAX_SIDE, place)
    if len(pixels) != width * height:
        raise _bad(place, f"expected {width} × {height} grey bytes, found {len(pixels)}")
    return pixels, width, height


def _picture(row: Row, place: str, *, keep: bool) -> StoredPicture:
    if row.height is None or row.width is None:
        try:
            return image_files.read(bytes(row.image), keep=keep)
        except ValueError as error:
            raise _bad(place, f"cannot be read: {error}") from error
    _check_sides(row.width, row.height, image_files.MAX_SIDE, place)
    try:
        return image_files.of_pixels(bytes(row.image), row.width, row.height)
    except ValueError as error:
        raise _bad(place, str(error)) from error


def _check_sides(width: int, height: int, maximum: int, place: str) -> None:
    if not (1 <= width <= maximum and 1 <= height <= maximum):
        raise _bad(place, f"expected width and height of 1 to {maximum}, found {width} × {height}")


def _bad(place: str, fact: str) -> BadDataError:
    return BadDataError(fact, place=place, next_step="Repair the row, or leave it out")
