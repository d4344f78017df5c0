"""Rows of a DataFrame as a shard: the executors' side of `convert_dataframe`, for images that are in no GNT file."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

from tfos_job import storage
from tfos_job.conversion.shard_file import ShardResult, own_name, shard_entry
from tfos_job.errors import BadDataError
from tfos_job.formats import image_files
from tfos_job.formats.charset import Charset
from tfos_job.formats.example_writer import GlyphEncoder
from tfos_job.formats.gnt import MAX_SIDE
from tfos_job.formats.hashing import HashingWriter


class Row(NamedTuple):
    """A row of the DataFrame: a character, and its image as the bytes of a file, or as height × width grey bytes."""

    character: str
    image: bytes
    height: int | None
    width: int | None


@dataclass(frozen=True, kw_only=True)
class RowsTask:
    """The order to the tasks of all partitions of a DataFrame; fields as of `gnt_shard.GroupTask`."""

    building_dir: str
    characters: tuple[str, ...]
    image_format: str


@dataclass(frozen=True)
class RowsResult:
    """A shard of a partition, and the rows that were left out, by character."""

    shard: ShardResult
    filtered: Mapping[str, int]


def write_rows(partition: int, rows: Iterable[Row], task: RowsTask) -> RowsResult:
    """Writes the rows of a partition as one shard; a record's source is the partition, its offset the row.

    Raises:
      BadDataError: a row has no character, or an image that cannot be read.
      JobError: what storage raises.
    """
    source = f"partition-{partition:05d}"
    path = own_name(task.building_dir, source)
    class_ids = Charset(task.characters).class_ids
    encoder = GlyphEncoder(task.characters, task.image_format)
    counts: Counter[int] = Counter()
    filtered: Counter[str] = Counter()
    with storage.open_write(path) as stream:
        writer = HashingWriter(stream)
        for number, row in enumerate(rows):
            place = f"partition {partition}, row {number}"
            if not isinstance(row.character, str) or len(row.character) != 1:
                raise _bad(place, f"expected one character, found {row.character!r}")
            class_id = class_ids.get(row.character)
            if class_id is None:
                filtered[row.character] += 1
                continue
            pixels, width, height = _pixels(row, place)
            counts[class_id] += 1
            writer.write(encoder.encode_one(class_id, pixels, width, height, source, number))
    shard = shard_entry(source, writer, counts.total(), ())
    result = ShardResult(written_file=path, shard=shard, class_counts=dict(counts))
    return RowsResult(result, dict(filtered))


def _pixels(row: Row, place: str) -> tuple[bytes, int, int]:
    """Grey bytes, width, height."""
    if row.image is None:
        raise _bad(place, "has no image")
    if row.height is None or row.width is None:
        try:
            with image_files.opened(bytes(row.image)) as image:
                grey = image_files.flat(image).convert("L")
        except ValueError as error:
            raise _bad(place, f"not an image that Pillow reads: {error}") from error
        width, height, pixels = grey.width, grey.height, grey.tobytes()
    else:
        width, height, pixels = row.width, row.height, bytes(row.image)
    if not (1 <= width <= MAX_SIDE and 1 <= height <= MAX_SIDE):
        raise _bad(place, f"expected width and height of 1 to {MAX_SIDE}, found {width} × {height}")
    if len(pixels) != width * height:
        raise _bad(place, f"expected {width} × {height} grey bytes, found {len(pixels)}")
    return pixels, width, height


def _bad(place: str, fact: str) -> BadDataError:
    return BadDataError(fact, place=place, next_step="Repair the row, or filter it out of the DataFrame")
