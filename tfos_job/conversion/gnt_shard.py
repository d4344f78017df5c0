"""The executors' side of conversion: pieces of GNT files become one TFRecord shard. No TensorFlow, no pyspark.

What is done here is written under a name of its own into a folder that nobody reads yet, so that a task may run twice,
at the same time even, or be killed; `tfos_job.jobs.convert`, on the driver, publishes what one of each made. `plan.py`
says which pieces become which shard.
"""

from __future__ import annotations

import functools
import hashlib
import uuid
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, TypeVar

from tfos_job import storage
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.errors import JobError, StorageError
from tfos_job.formats import foreign, gnt
from tfos_job.formats.archives import DamagedMemberError, Member, open_source
from tfos_job.formats.charset import Charset
from tfos_job.formats.example_writer import GlyphEncoder
from tfos_job.formats.manifest import Shard, Source, SourceRange
from tfos_job.layout import join

Task = TypeVar("Task")
Result = TypeVar("Result")


@dataclass(frozen=True, kw_only=True)
class GroupTask:
    """What one Spark task is told: the pieces of source files that one shard holds, in order.

    Attributes:
      shard_file: name that the shard is to have in the end.
      building_dir: folder to write it to.
      characters: the charset, by class id; empty for a scan.
      quarantine: whether unreadable bytes are set aside; else they are an error.
    """

    shard_file: str
    pieces: tuple[Piece, ...]
    building_dir: str
    characters: tuple[str, ...]
    image_format: str
    quarantine: bool


@dataclass(frozen=True, kw_only=True)
class PieceResult:
    """What was found in a piece: `range` is what was read of the file, `filtered` as `manifest.Source`'s."""

    name: str
    range: SourceRange
    num_records: int
    filtered: Mapping[str, int]
    bad_ranges: tuple[gnt.BadRange, ...]


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """What one Spark task did.

    Attributes:
      written_file: the shard's path, where it waits to be moved to the name in `shard`.
      pieces: what was read of source files.
      class_counts: records by class id.
      dropped_counts: records that were there before and are not any more, by class id.
    """

    written_file: str
    shard: Shard
    class_counts: dict[int, int]
    pieces: tuple[PieceResult, ...] = ()
    dropped_counts: dict[int, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Failure:
    """An error as a value, which crosses from executor to driver whole, where an exception becomes a page of Java."""

    error: JobError


def attempt(work: Callable[[Task], Result], task: Task) -> Result | Failure:
    """Runs a task; a `JobError` is its result (`jobs.attempts` raises some). Others are bugs, for Spark to show."""
    try:
        return work(task)
    except JobError as error:
        return Failure(error)


# --- before the work -------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Comparison:
    """A file that may have the bytes of a source; where name and size are the same, too, it is that source touched."""

    file: SourceFile
    source: Source


def comparisons(sources: Sequence[SourceFile], converted: Sequence[Source]) -> list[Comparison]:
    """What has to be read to know in what the source files are not those that were converted.

    Same name, size and time is the same file. Another time may be that of a copy, and a new name that of a file that
    was renamed, where one of its size is gone.
    """
    now = {source.name: source for source in sources}
    then = {source.name: source for source in converted}
    found = [
        Comparison(now[name], then[name])
        for name in sorted(now.keys() & then.keys())
        if now[name].size_bytes == then[name].size_bytes and now[name].mtime_s != then[name].mtime_s
    ]
    gone: dict[int, list[Source]] = {}
    for name in sorted(then.keys() - now.keys()):
        gone.setdefault(then[name].size_bytes, []).append(then[name])
    for name in sorted(now.keys() - then.keys()):
        found += [Comparison(now[name], source) for source in gone.get(now[name].size_bytes, ())]
    return found


def has_same_bytes(comparison: Comparison) -> bool:
    """Reads the file, range by range of the source."""
    file, ranges = comparison.file, comparison.source.ranges
    try:
        return range_digests(file.path, ranges, file.member) == [part.sha256 for part in ranges]
    except DamagedMemberError:
        return False


@dataclass(frozen=True)
class Changes:
    """What has become of the source files since they were converted.

    Attributes:
      added: files that are new.
      changed: files that have other bytes than they had.
      touched: files that have the same bytes and another time.
      gone: names of those that are not there any more.
      renamed: in words, files that are new and have the bytes of one that is gone.
    """

    added: tuple[SourceFile, ...]
    changed: tuple[SourceFile, ...]
    touched: tuple[SourceFile, ...]
    gone: tuple[str, ...]
    renamed: tuple[str, ...]

    @property
    def words(self) -> list[str]:
        """One for each file that is not as it was; none where there is nothing to do."""
        words = [f"{source.name} is new" for source in self.added]
        words += [f"{source.name} has other bytes" for source in self.changed]
        return words + [f"{name} is gone" for name in self.gone]

    def __str__(self) -> str:
        return ", ".join(self.words)


def source_changes(sources: Sequence[SourceFile], converted: Sequence[Source], same: Sequence[Comparison]) -> Changes:
    """In what the source files are not those that were converted.

    Args:
      sources: the files that are there.
      converted: those that the manifest names.
      same: of `comparisons`, those of the same bytes.
    """
    now = {source.name: source for source in sources}
    then = {source.name: source for source in converted}
    both = sorted(now.keys() & then.keys())
    touched = {comparison.file.name for comparison in same if comparison.file.name == comparison.source.name}
    other = [
        now[name]
        for name in both
        if name not in touched
        and (now[name].size_bytes, now[name].mtime_s) != (then[name].size_bytes, then[name].mtime_s)
    ]
    return Changes(
        added=tuple(now[name] for name in sorted(now.keys() - then.keys())),
        changed=tuple(other),
        touched=tuple(now[name] for name in both if name in touched),
        gone=tuple(sorted(then.keys() - now.keys())),
        renamed=tuple(
            f"{comparison.file.name} is {comparison.source.name} under another name"
            for comparison in same
            if comparison.file.name != comparison.source.name
        ),
    )


def range_digests(path: str, ranges: Sequence[SourceRange], member: Member | None = None) -> list[str]:
    """SHA-256 (hex) of each of the ranges, which are adjacent from the file's or the member's beginning on."""
    found = []
    with open_source(path, member) as stream:
        for part in ranges:
            digest, left = hashlib.sha256(), part.end - part.start
            while left and (data := stream.read(min(left, storage.BUFFER_BYTES))):
                digest.update(data)
                left -= len(data)
            found.append(digest.hexdigest())
    return found


def file_sha256(file: tuple[str, int]) -> str:
    """SHA-256 (hex) of a file's first so many bytes."""
    path, size_bytes = file
    return range_digests(path, [SourceRange(start=0, end=size_bytes, sha256="")])[0]


# --- the work --------------------------------------------------------------------------------------------------------


def scan_tags(task: GroupTask) -> tuple[str, ...]:
    """The distinct characters that pieces of GNT files hold, sorted: what `--charset auto` is made of.

    Bitmaps are read past, not sought past: they are smaller than any read that a disk or a DataNode does at once.

    Raises:
      BadDataError: unreadable bytes, and `task.quarantine` is off (else they are left to the conversion to tell).
    """
    tags: set[bytes] = set()
    for piece in task.pieces:
        found: set[bytes] = set()
        try:
            with open_source(piece.source.path, piece.source.member) as stream:
                for block in _reader(piece, stream, _ignore if task.quarantine else None):
                    found.update(block.tags)
        except DamagedMemberError:
            if not task.quarantine:
                raise
        else:
            tags |= found
    return tuple(sorted(str(gnt.decode_tag(tag)) for tag in tags))


@dataclass(frozen=True)
class CutTask:
    """A file that was cut at `stops`, in order, and not where a record begins as it turned out."""

    source: SourceFile
    stops: tuple[int, ...]
    quarantine: bool


def find_cuts(task: CutTask) -> tuple[int, ...]:
    """For each stop the offset where a reader that came from the file's beginning goes on behind it.

    Raises:
      BadDataError: unreadable bytes, and `task.quarantine` is off.
    """
    cuts = []
    with storage.open_read(task.source.path) as stream:
        reader = gnt.RangeReader(stream, task.source.path, _ignore if task.quarantine else None)
        for stop in task.stops:
            reader.stop = stop
            for _ in reader:
                pass
            cuts.append(reader.end)
    return tuple(cuts)


def convert_group(task: GroupTask) -> ShardResult:
    """Writes the shard of a group of pieces.

    Raises:
      BadDataError: unreadable bytes, and `task.quarantine` is off.
      MissingInputError, AccessError, StorageError: a file could not be read or written, or changed while it was read.
    """
    path = own_name(task.building_dir, task.shard_file)
    damaged: dict[str, str] = {}
    while True:
        try:
            with storage.open_write(path) as stream:
                writer = _ShardWriter(task, stream, damaged)
                pieces = tuple(writer.add(piece) for piece in task.pieces)
            break
        except DamagedMemberError as error:  # known at its end alone, with its records in the shard
            if not task.quarantine:
                raise
            damaged[error.place] = error.fact
    return ShardResult(
        written_file=path,
        shard=writer.shard.to_shard(task.shard_file, writer.class_counts.total(), [piece.name for piece in pieces]),
        pieces=pieces,
        class_counts=dict(writer.class_counts),
    )


def own_name(folder: str, file: str) -> str:
    """A path that no other run of the same task writes to."""
    return join(folder, f"{file}.{uuid.uuid4().hex}")


class HashingWriter:
    """A stream that hashes and counts what is written to it."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._hash = hashlib.sha256()
        self.size_bytes = 0

    def write(self, data: bytes | memoryview, /) -> int:
        self._hash.update(data)
        self.size_bytes += len(data)
        return self._stream.write(data)

    def to_shard(self, file: str, num_records: int, sources: Sequence[str]) -> Shard:
        """What the manifest says of a shard of which all was written here."""
        return Shard(
            file=file,
            size_bytes=self.size_bytes,
            sha256=self._hash.hexdigest(),
            num_records=num_records,
            sources=tuple(sources),
        )


@functools.lru_cache(maxsize=4)
def _prepared(characters: tuple[str, ...], image_format: str) -> tuple[Mapping[bytes, int], GlyphEncoder]:
    """Class ids by tag, and an encoder: the same for task after task in Spark's Python process."""
    return Charset(characters).class_ids_by_tag, GlyphEncoder(characters, image_format)


class _ShardWriter:
    """Writes piece after piece into one shard, and keeps the accounts.

    Members that are `damaged`, by place and with the reason, are set aside as a whole.
    """

    def __init__(self, task: GroupTask, stream: BinaryIO, damaged: Mapping[str, str]) -> None:
        self._task = task
        self._damaged = damaged
        self._class_ids, self._encoder = _prepared(task.characters, task.image_format)
        self.shard = HashingWriter(stream)
        self.class_counts: Counter[int] = Counter()

    def add(self, piece: Piece) -> PieceResult:
        task, source = self._task, piece.source
        if source.place in self._damaged:
            return _set_aside(source, self._damaged[source.place])
        bad_ranges: list[gnt.BadRange] = []
        filtered: Counter[str] = Counter()
        num_records = 0
        with open_source(source.path, source.member) as stream:
            reader = _reader(piece, stream, bad_ranges.append if task.quarantine else None)
            for block in reader:
                num_records += len(block.tags)
                class_ids = [self._class_ids.get(tag) for tag in block.tags]
                self.class_counts.update(class_id for class_id in class_ids if class_id is not None)
                if None in class_ids:
                    pairs = zip(block.tags, class_ids, strict=True)
                    filtered.update(str(gnt.decode_tag(tag)) for tag, class_id in pairs if class_id is None)
                self.shard.write(self._encoder.encode(block, class_ids, source.name))
        if (reader.end < piece.stop) if piece.stop < source.size_bytes else (reader.end != source.size_bytes):
            raise StorageError(
                f"changed while it was read: expected {source.size_bytes} bytes, found {reader.end}",
                place=source.path,
                next_step="Wait until it is complete, then run again",
            )
        return PieceResult(
            name=source.name,
            range=SourceRange(start=reader.start, end=reader.end, sha256=reader.sha256),
            num_records=num_records,
            filtered=dict(filtered),
            bad_ranges=tuple(bad._replace(source=source.name) for bad in bad_ranges),
        )


def _set_aside(source: SourceFile, reason: str) -> PieceResult:
    return PieceResult(
        name=source.name,
        range=SourceRange(start=0, end=source.size_bytes, sha256=""),
        num_records=0,
        filtered={},
        bad_ranges=(gnt.BadRange(source.name, 0, source.size_bytes, reason),),
    )


def _reader(piece: Piece, stream: BinaryIO, on_bad: Callable[[gnt.BadRange], None] | None) -> gnt.RangeReader:
    """Reads a piece; one at the file's end reads on to where the file ends now.

    Of a file that begins like no GNT file all is the first piece's reader's: others would find records in an archive.
    """
    source = piece.source
    if source.member is not None:  # whole
        return gnt.RangeReader(stream, source.place, on_bad)
    size_bytes = source.size_bytes
    if piece.within and foreign.kind_of(stream.read(foreign.HEAD_BYTES)):
        stream.seek(size_bytes)
        return gnt.RangeReader(stream, source.path, on_bad, start=size_bytes)
    stream.seek(piece.start)
    stop = piece.stop if piece.stop < size_bytes else None
    return gnt.RangeReader(stream, source.path, on_bad, start=piece.start, stop=stop, within=piece.within)


def _ignore(_: gnt.BadRange) -> None:
    pass
