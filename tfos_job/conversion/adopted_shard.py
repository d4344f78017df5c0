"""One shard of TF-Slim's as it is, read to its end: the executors' side of `convert --tfrecord_dir`.

Both checksums of each record are checked, its Example, and that training can decode its picture. TensorFlow, in a
process of its own (`formats/decoder.py`), says so for each. Nothing is written. No TensorFlow here, no pyspark.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator
from dataclasses import dataclass

import numpy as np

from tfos_job import storage
from tfos_job.errors import BadDataError, NodeDiedError, StorageError
from tfos_job.formats import decoder, slim, tfrecord
from tfos_job.formats.hashing import HashingReader
from tfos_job.formats.image_files import TrainingView
from tfos_job.formats.picture_head import read_head
from tfos_job.formats.slim import SlimRecord

_PACKED = ((b"\x1f\x8b", "gzip"), (b"\x78\x01", "zlib"), (b"\x78\x9c", "zlib"), (b"\x78\xda", "zlib"))
_NEXT_STEP = "Write this shard again with the program that made it; nothing was adopted"


@dataclass(frozen=True)
class AdoptTask:
    """A shard to read; `size_bytes` as it was listed."""

    path: str
    size_bytes: int


@dataclass(frozen=True, kw_only=True)
class AdoptedShard:
    """What is in a shard.

    Attributes:
      labels: the labels of its records, int64 [n], each once.
      counts: records of each of them, int64 [n].
      texts: `image/class/text` of each of them, one a line; empty where its records differ. In one text, since a
        dataset may have a thousand shards with a thousand labels each.
      modes: pictures by `PictureHead.mode`.
    """

    size_bytes: int
    sha256: str
    num_records: int
    labels: np.ndarray
    counts: np.ndarray
    texts: str
    modes: dict[str, int]


def read_shard(task: AdoptTask, training_view: TrainingView | None = None) -> AdoptedShard:
    """Reads a shard.

    Args:
      task: the shard.
      training_view: as in `image_files.read`.

    Raises:
      BadDataError: a record is damaged, or none that training can read; with its number and byte.
      JobError: what storage raises; the file changed since it was listed.
    """
    counts: Counter[int] = Counter()
    modes: Counter[str] = Counter()
    texts: dict[int, str] = {}
    with storage.open_read(task.path) as stream:
        reader = HashingReader(stream)
        for place, record in _records(reader, task.path):
            counts[record.label] += 1
            if texts.setdefault(record.label, record.text) != record.text:
                texts[record.label] = ""
            modes[_mode(record, place, training_view or decoder.of_this_process().digest)] += 1
    if reader.size_bytes != task.size_bytes:
        raise StorageError(
            f"changed while it was read: expected {task.size_bytes} bytes, found {reader.size_bytes}",
            place=task.path,
            next_step="Wait until it is complete, then run again",
        )
    labels = sorted(counts)
    return AdoptedShard(
        size_bytes=reader.size_bytes,
        sha256=reader.sha256,
        num_records=counts.total(),
        labels=np.array(labels, np.int64),
        counts=np.array([counts[label] for label in labels], np.int64),
        texts="\n".join(texts[label] for label in labels),
        modes=dict(modes),
    )


def place_of(path: str, labels: Collection[int]) -> str:
    """The first record of a shard that has one of these labels: its place, and what else it says of itself."""
    with storage.open_read(path) as stream:
        for place, record in _records(stream, path):
            if record.label in labels:
                return place + (f" ({record.filename})" if record.filename else "")
    return path


def _records(stream: storage.Readable, path: str) -> Iterator[tuple[str, SlimRecord]]:
    """The records of a shard, each with its place."""
    number = 0
    try:
        for offset, data in tfrecord.read_records(stream, path):
            number += 1
            place = f"{path}, record {number}, byte {offset}"
            try:
                record = slim.read_record(data)
            except ValueError as error:
                raise BadDataError(f"not a record of TF-Slim's: {error}", place=place, next_step=_NEXT_STEP) from error
            yield place, record
    except BadDataError as error:
        byte = error.place.removeprefix(f"{path}, byte ")
        if byte == error.place:
            raise
        # Of the frame: the reader of records does not number them.
        fact = error.fact + (_packing(path) if byte == "0" else "")
        raise BadDataError(fact, place=f"{path}, record {number + 1}, byte {byte}", next_step=_NEXT_STEP) from error


def _packing(path: str) -> str:
    """A word about a file that is no TFRecord, but packed; only its first bytes tell."""
    with storage.open_read(path) as stream:
        head = stream.read(2)
    name = next((name for magic, name in _PACKED if head == magic), None)
    return f" (the file looks like one of TFRecordWriter with {name} compression: write it without)" if name else ""


def _mode(record: SlimRecord, place: str, training_view: TrainingView) -> str:
    """The mode of a record's picture, which TensorFlow has decoded."""
    try:
        head = read_head(record.encoded)
        training_view(record.encoded, record.image_format)
    except NodeDiedError as error:
        raise NodeDiedError(error.fact, place=place, next_step=error.next_step) from error
    except ValueError as error:
        name = f" {record.filename}" if record.filename else ""
        fact = f"its picture{name} cannot be read: {error}"
        raise BadDataError(fact, place=place, next_step=_NEXT_STEP) from error
    return head.mode
