"""New shards of the records of live ones: without some sources' records, in other sizes, or mixed. Runs on executors.

Records are copied as they are; their checksums are checked.
"""

from __future__ import annotations

import io
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from tfos_job import storage
from tfos_job.conversion.shard_file import ShardResult, own_name, shard_entry
from tfos_job.errors import BadDataError
from tfos_job.formats import tf_example, tfrecord
from tfos_job.formats.hashing import HashingWriter


@dataclass(frozen=True)
class Stretch:
    """The records `first` to `last` (exclusive) of a shard, by their number in it."""

    path: str
    first: int
    last: int


@dataclass(frozen=True, kw_only=True)
class RewriteTask:
    """A new shard of the records of live ones, in order, but for those of the sources named in `drop`."""

    shard_file: str
    stretches: tuple[Stretch, ...]
    building_dir: str
    drop: frozenset[str] = frozenset()


def rewrite(task: RewriteTask) -> ShardResult:
    """Writes the new shard; it may come out empty.

    Raises:
      BadDataError: a live shard is damaged.
      JobError: what storage raises.
    """
    path = own_name(task.building_dir, task.shard_file)
    kept: Counter[int] = Counter()
    dropped: Counter[int] = Counter()
    sources: dict[str, None] = {}
    with storage.open_write(path) as stream:
        writer = HashingWriter(stream)
        for stretch in task.stretches:
            for data in _records(stretch):
                name, class_id = _origin(stretch.path, data)
                if name in task.drop:
                    dropped[class_id] += 1
                    continue
                sources[name] = None
                kept[class_id] += 1
                tfrecord.write_record(writer, data)
    return ShardResult(
        written_file=path,
        shard=shard_entry(task.shard_file, writer, kept.total(), list(sources)),
        class_counts=dict(kept),
        dropped_counts=dict(dropped),
    )


def _records(stretch: Stretch) -> Iterator[bytes]:
    index = 0
    with storage.open_read(stretch.path) as stream:
        for _, data in tfrecord.read_records(stream, stretch.path):
            if index == stretch.last:
                return
            if index >= stretch.first:
                yield data
            index += 1
    if index < stretch.last:
        raise _bad(stretch.path, f"has {index} records, its manifest says {stretch.last} or more")


def _origin(path: str, data: bytes) -> tuple[str, int]:
    """The source file and the class id of an Example."""
    try:
        example = tf_example.decode_example(data)
        name, class_id = example.get("source/file", b""), example["image/class/label"]
        if not isinstance(name, bytes):
            raise ValueError("source/file is a number")
        return name.decode("utf-8"), int(class_id)
    except (ValueError, KeyError) as error:
        raise _bad(path, f"a record is no glyph: {error}") from error


def _bad(path: str, fact: str) -> BadDataError:
    return BadDataError(fact, place=path, next_step="Convert the split again with --overwrite")


# --- mixing ----------------------------------------------------------------------------------------------------------
#
# As in Spark's own shuffle: each shard is dealt into as many hands as there will be shards, all in one file, and
# each new shard is gathered from its hand in each of those files. No more than a shard is in memory.


@dataclass(frozen=True, kw_only=True)
class DealTask:
    """A shard whose records are dealt to `num_hands` in turn, beginning with hand `first`.

    `seed` is of the whole mixing, `index` the shard's number in it.
    """

    path: str
    num_hands: int
    first: int
    seed: int
    index: int
    building_dir: str


@dataclass(frozen=True)
class Dealt:
    """A shard that was dealt: hand i is in the bytes `bounds[i]` to `bounds[i + 1]` of the file."""

    path: str
    bounds: tuple[int, ...]


def deal(task: DealTask) -> Dealt:
    """Shuffles a shard and gives its records to the hands in turn.

    Raises:
      BadDataError: the shard is damaged.
      JobError: what storage raises.
    """
    frames = list(_frames(storage.read_bytes(task.path), task.path))
    order = np.random.default_rng((task.seed, 0, task.index)).permutation(len(frames))
    path = own_name(task.building_dir, f"dealt-{task.index:05d}")
    bounds = [0]
    with storage.open_write(path) as stream:
        for hand in range(task.num_hands):
            mine = order[(hand - task.first) % task.num_hands :: task.num_hands]
            bounds.append(bounds[-1] + _write_frames(stream, (frames[i] for i in mine)))
    return Dealt(path, tuple(bounds))


@dataclass(frozen=True, kw_only=True)
class GatherTask:
    """A new shard made of one hand of each dealt file: the file's path, the hand's first byte and the byte after it."""

    shard_file: str
    hands: tuple[tuple[str, int, int], ...]
    seed: int
    index: int
    building_dir: str


def gather(task: GatherTask) -> ShardResult:
    """Writes one mixed shard.

    Raises:
      BadDataError: a dealt file is damaged.
      JobError: what storage raises.
    """
    frames: list[memoryview] = []
    for path, start, end in task.hands:
        with storage.open_read(path) as stream:
            stream.seek(start)
            frames += _frames(stream.read(end - start), path)
    order = np.random.default_rng((task.seed, 1, task.index)).permutation(len(frames))
    target = own_name(task.building_dir, task.shard_file)
    with storage.open_write(target) as stream:
        writer = HashingWriter(stream)
        _write_frames(writer, (frames[i] for i in order))
    shard = shard_entry(task.shard_file, writer, len(frames), ())  # any source may be in it
    return ShardResult(written_file=target, shard=shard, class_counts={})


def _frames(data: bytes, place: str) -> Iterator[memoryview]:
    """The records of a TFRecord file with their frames, checked."""
    view = memoryview(data)
    for offset, record in tfrecord.read_records(io.BytesIO(data), place):
        yield view[offset : offset + tfrecord.FRAME_BYTES + len(record)]


def _write_frames(stream: storage.Writable, frames: Iterable[memoryview]) -> int:
    """Returns the number of bytes."""
    num_bytes = 0
    for frame in frames:
        stream.write(frame)
        num_bytes += len(frame)
    return num_bytes
