"""The executors' side of conversion: a group of GNT files becomes one TFRecord shard. No TensorFlow, no pyspark.

What is done here is written under temporary names into a folder that nobody reads yet, so that a task may run twice or
be killed; `tfos_job.jobs.convert`, on the driver, plans the groups and publishes what they made.
"""

from __future__ import annotations

import hashlib
import io
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from PIL import Image

from tfos_job import storage
from tfos_job.data import gnt, records
from tfos_job.data.charset import Charset
from tfos_job.data.manifest import Shard, Source
from tfos_job.errors import JobError, StorageError
from tfos_job.layout import join, shard_name

MIN_SHARDS = 8
TARGET_SHARD_BYTES = 128 << 20
PNG_COMPRESS_LEVEL = 1

Result = TypeVar("Result")


@dataclass(frozen=True)
class SourceFile:
    """A GNT file to convert. `name` is its path below `--gnt_dir`."""

    name: str
    path: str
    size_bytes: int
    mtime_s: float


@dataclass(frozen=True, kw_only=True)
class GroupTask:
    """What one Spark task is told: the source files of one shard, in order.

    Attributes:
      shard_file: name of the shard.
      building_dir: folder to write it to.
      characters: the charset, by class id; empty for a scan.
      quarantine: whether unreadable bytes are set aside; else they are an error.
    """

    shard_file: str
    sources: tuple[SourceFile, ...]
    building_dir: str
    characters: tuple[str, ...]
    image_format: str
    quarantine: bool


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What one Spark task did. Counts are of records; `class_counts` by class id, `filtered` by character."""

    shard: Shard
    class_counts: dict[int, int]
    filtered: dict[str, int]
    bad_ranges: tuple[gnt.BadRange, ...]


@dataclass(frozen=True)
class Failure:
    """An error as a value, which crosses from executor to driver whole, where an exception becomes a page of Java."""

    error: JobError


def attempt(work: Callable[[GroupTask], Result], task: GroupTask) -> Result | Failure:
    """Runs a task; a `JobError` is its result. Other exceptions are bugs, for Spark to retry and to show."""
    try:
        return work(task)
    except JobError as error:
        return Failure(error)


# --- planning --------------------------------------------------------------------------------------------------------


def plan_groups(sources: Sequence[SourceFile]) -> list[tuple[SourceFile, ...]]:
    """Cuts the sources, in the order of their names, into one group a shard, of about the same number of bytes.

    There are at least `MIN_SHARDS` groups (or one a source where there are fewer), so that several workers can share
    them, and more where they would be larger than about `TARGET_SHARD_BYTES`. No source is in two groups. Groups are in
    file order: the first one that fails holds the first bad file.
    """
    ordered = sorted(sources, key=lambda source: source.name)
    bytes_left = sum(source.size_bytes for source in ordered)
    groups_left = min(len(ordered), max(MIN_SHARDS, -(-bytes_left // TARGET_SHARD_BYTES)))
    groups: list[tuple[SourceFile, ...]] = []
    group: list[SourceFile] = []
    group_bytes = 0
    for index, source in enumerate(ordered, start=1):
        group.append(source)
        group_bytes += source.size_bytes
        sources_left = len(ordered) - index
        if groups_left > 1 and (group_bytes * groups_left >= bytes_left or sources_left == groups_left - 1):
            groups.append(tuple(group))
            bytes_left -= group_bytes
            groups_left -= 1
            group, group_bytes = [], 0
    if group:
        groups.append(tuple(group))
    return groups


def plan_tasks(
    sources: Sequence[SourceFile],
    *,
    building_dir: str,
    characters: tuple[str, ...],
    image_format: str,
    quarantine: bool,
) -> list[GroupTask]:
    """One task a shard; see `plan_groups` and `GroupTask`."""
    groups = plan_groups(sources)
    return [
        GroupTask(
            shard_file=shard_name(index, len(groups)),
            sources=group,
            building_dir=building_dir,
            characters=characters,
            image_format=image_format,
            quarantine=quarantine,
        )
        for index, group in enumerate(groups)
    ]


def source_changes(sources: Sequence[SourceFile], converted: Sequence[Source]) -> list[str]:
    """In what the source files are not those that were converted, in words; nothing for the same ones.

    Same name, size and time is the same file. Where only the time differs (a copy), its bytes are hashed.
    """
    now = {source.name: source for source in sources}
    then = {source.name: source for source in converted}
    changes = [f"{name} is new" for name in sorted(now.keys() - then.keys())]
    changes += [f"{name} is gone" for name in sorted(then.keys() - now.keys())]
    for name in sorted(now.keys() & then.keys()):
        if now[name].size_bytes != then[name].size_bytes:
            changes.append(f"{name} has {now[name].size_bytes} bytes, had {then[name].size_bytes}")
        elif now[name].mtime_s != then[name].mtime_s and file_sha256(now[name].path) != then[name].sha256:
            changes.append(f"{name} has other bytes")
    return changes


# --- the work --------------------------------------------------------------------------------------------------------


def scan_tags(task: GroupTask) -> tuple[str, ...]:
    """The distinct characters that a group of GNT files holds, sorted: what `--charset auto` is made of.

    Bitmaps are read past, not sought past: they are smaller than any read that a disk or a DataNode does at once.

    Raises:
      BadDataError: unreadable bytes, and `task.quarantine` is off (else they are left to the conversion to tell).
    """
    tags: set[bytes] = set()
    for source in task.sources:
        with storage.open_read(source.path) as stream:
            on_bad = _ignore if task.quarantine else None
            tags.update(record.tag for record in gnt.read_records(stream, source.path, on_bad))
    return tuple(sorted(str(gnt.decode_tag(tag)) for tag in tags))


def convert_group(task: GroupTask) -> ShardResult:
    """Writes the shard of a group of GNT files.

    Raises:
      BadDataError: unreadable bytes, and `task.quarantine` is off.
      MissingInputError, AccessError, StorageError: a file could not be read or written, or changed while it was read.
    """
    with storage.open_write(join(task.building_dir, task.shard_file)) as stream:
        writer = _ShardWriter(task, stream)
        sources = tuple(writer.add(source) for source in task.sources)
    return ShardResult(
        shard=Shard(
            file=task.shard_file,
            size_bytes=writer.shard.size_bytes,
            sha256=writer.shard.sha256,
            num_records=writer.class_counts.total(),
            sources=sources,
        ),
        class_counts=dict(writer.class_counts),
        filtered=dict(writer.filtered),
        bad_ranges=tuple(writer.bad_ranges),
    )


class _ShardWriter:
    """Writes source after source into one shard, and keeps the accounts."""

    def __init__(self, task: GroupTask, stream: BinaryIO) -> None:
        self._task = task
        self._class_ids = Charset(task.characters).class_ids_by_tag
        self.shard = _Hashing(stream)
        self.class_counts: Counter[int] = Counter()
        self.filtered: Counter[str] = Counter()
        self.bad_ranges: list[gnt.BadRange] = []

    def add(self, source: SourceFile) -> Source:
        task = self._task
        encoder = records.GlyphEncoder(task.characters, task.image_format, source.name)
        encode_image = _png if task.image_format == "png" else _raw
        on_bad = (lambda bad: self.bad_ranges.append(bad._replace(source=source.name))) if task.quarantine else None
        num_records = 0
        with storage.open_read(source.path) as stream:
            reader = _Hashing(stream)
            for record in gnt.read_records(reader, source.path, on_bad):
                num_records += 1
                class_id = self._class_ids.get(record.tag)
                if class_id is None:
                    self.filtered[str(gnt.decode_tag(record.tag))] += 1
                    continue
                self.class_counts[class_id] += 1
                example = encoder.encode(class_id, encode_image(record), record.height, record.width, record.offset)
                records.write_record(self.shard, example)
        if reader.size_bytes != source.size_bytes:
            raise StorageError(
                f"changed while it was read: expected {source.size_bytes} bytes, found {reader.size_bytes}",
                place=source.path,
                next_step="Wait until it is complete, then run again",
            )
        return Source(
            name=source.name,
            size_bytes=source.size_bytes,
            mtime_s=source.mtime_s,
            sha256=reader.sha256,
            num_records=num_records,
        )


class _Hashing:
    """A stream that hashes and counts what passes through it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    @property
    def sha256(self) -> str:
        return self._hash.hexdigest()

    def read(self, size: int, /) -> bytes:
        data = self._stream.read(size)
        self._hash.update(data)
        self.size_bytes += len(data)
        return data

    def write(self, data: bytes, /) -> int:
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._stream.write(data)


def file_sha256(path: str) -> str:
    """SHA-256 (hex) of a file's bytes."""
    with storage.open_read(path) as stream:
        reader = _Hashing(stream)
        while reader.read(storage.BUFFER_BYTES):
            pass
    return reader.sha256


def _raw(record: gnt.Record) -> bytes:
    return record.pixels


def _png(record: gnt.Record) -> bytes:
    image = Image.frombytes("L", (record.width, record.height), record.pixels)
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=PNG_COMPRESS_LEVEL)
    return buffer.getvalue()


def _ignore(_: gnt.BadRange) -> None:
    pass
