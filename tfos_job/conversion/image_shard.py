"""Image files as one TFRecord shard: the executors' side of `convert --image_dir`. No TensorFlow, no pyspark.

TensorFlow, in a process of its own (`decoder.py`), says what training sees in a file.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import NamedTuple

from tfos_job import storage
from tfos_job.conversion.shard_file import ShardResult, own_name, shard_entry
from tfos_job.errors import BadDataError, MissingInputError, NodeDiedError, StorageError
from tfos_job.formats import image_files, tfrecord
from tfos_job.formats.example_writer import picture_example
from tfos_job.formats.hashing import HashingWriter
from tfos_job.formats.quarantine import BadRange
from tfos_job.layout import join


class LabelledFile(NamedTuple):
    """An image file to convert; `name` is its path below `--image_dir`, `special` as in `storage.Entry`."""

    name: str
    size_bytes: int
    class_id: int
    special: str = ""


@dataclass(frozen=True, kw_only=True)
class ImagesTask:
    """The order to one Spark task: the files that one shard holds, in order.

    Attributes:
      shard_file: the shard's final name.
      building_dir: folder to write it to.
      characters: the charset, by class id.
      keep: leave files as they are if training can read them; else all become PNGs.
      quarantine: set unreadable files aside; else they are an error.
    """

    shard_file: str
    image_dir: str
    files: tuple[LabelledFile, ...]
    building_dir: str
    characters: tuple[str, ...]
    keep: bool
    quarantine: bool


@dataclass(frozen=True)
class ImagesResult:
    """A shard, and the files that could not be read."""

    shard: ShardResult
    bad_files: tuple[BadRange, ...]


def convert_images(task: ImagesTask) -> ImagesResult:
    """Writes the shard of a group of files; it may come out empty.

    Raises:
      BadDataError: an unreadable image, and `task.quarantine` is off.
      JobError: what storage raises; a file changed since it was listed.
    """
    path = own_name(task.building_dir, task.shard_file)
    counts: Counter[int] = Counter()
    bad_files: list[BadRange] = []
    with storage.open_write(path) as stream:
        writer = HashingWriter(stream)
        for file in task.files:
            try:
                picture = _read(file, task)
            except ValueError as error:
                if not task.quarantine:
                    raise BadDataError(
                        f"cannot be read: {error}",
                        place=join(task.image_dir, file.name),
                        next_step="Repair it or move it away, or give --on_bad_record quarantine",
                    ) from error
                bad_files.append(BadRange(file.name, 0, file.size_bytes, str(error)))
                continue
            counts[file.class_id] += 1
            label = task.characters[file.class_id]
            example = picture_example(picture, class_id=file.class_id, label=label, source=file.name, offset=0)
            tfrecord.write_record(writer, example)
    shard = shard_entry(task.shard_file, writer, counts.total(), ())
    return ImagesResult(ShardResult(written_file=path, shard=shard, class_counts=dict(counts)), tuple(bad_files))


def _read(file: LabelledFile, task: ImagesTask) -> image_files.StoredPicture:
    """Raises ValueError for what is no image, or not there."""
    if file.special:  # reading it might never end
        raise ValueError(f"{file.special}, not a file")
    image_files.check_size(file.size_bytes)  # before reading that much
    path = join(task.image_dir, file.name)
    try:
        data = storage.read_bytes(path)
    except MissingInputError as error:
        raise ValueError("removed since it was listed") from error
    if len(data) != file.size_bytes:
        raise StorageError(
            f"changed while it was read: expected {file.size_bytes} bytes, found {len(data)}",
            place=path,
            next_step="Wait until it is complete, then run again",
        )
    try:
        return image_files.read(data, keep=task.keep)
    except NodeDiedError as error:
        raise NodeDiedError(error.fact, place=path, next_step=error.next_step) from error
