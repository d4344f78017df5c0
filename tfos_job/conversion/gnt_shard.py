"""Pieces of GNT files as one TFRecord shard: the executors' side of `convert`. No TensorFlow, no pyspark.

`shard_plan.py` says which pieces become which shard.
"""

from __future__ import annotations

import functools
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import BinaryIO

from tfos_job import storage
from tfos_job.conversion.shard_file import PieceResult, ShardResult, own_name, shard_entry
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.errors import StorageError
from tfos_job.formats import foreign, gnt, gnt_reader
from tfos_job.formats.archives import DamagedMemberError, open_source
from tfos_job.formats.charset import Charset
from tfos_job.formats.example_writer import GlyphEncoder
from tfos_job.formats.hashing import HashingWriter
from tfos_job.formats.manifest_parts import SourceRange
from tfos_job.formats.quarantine import BadRange


@dataclass(frozen=True, kw_only=True)
class GroupTask:
    """The order to one Spark task: the pieces of source files that one shard holds, in order.

    Attributes:
      shard_file: the shard's final name.
      building_dir: folder to write it to.
      characters: the charset, by class id; empty for a scan.
      quarantine: set unreadable bytes aside; else they are an error.
    """

    shard_file: str
    pieces: tuple[Piece, ...]
    building_dir: str
    characters: tuple[str, ...]
    image_format: str
    quarantine: bool


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
    """A file that was cut at `stops`, ascending, of which one at least is not where a record begins."""

    source: SourceFile
    stops: tuple[int, ...]
    quarantine: bool


def find_cuts(task: CutTask) -> tuple[int, ...]:
    """For each stop, the end of the last record that begins before it, as read from the file's beginning.

    Raises:
      BadDataError: unreadable bytes, and `task.quarantine` is off.
    """
    cuts = []
    with storage.open_read(task.source.path) as stream:
        reader = gnt_reader.RangeReader(stream, task.source.path, _ignore if task.quarantine else None)
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
        except DamagedMemberError as error:  # found only at its end, with its records in the shard already
            if not task.quarantine:
                raise
            damaged[error.place] = error.fact
    return ShardResult(
        written_file=path,
        shard=shard_entry(
            task.shard_file, writer.stream, writer.class_counts.total(), [piece.name for piece in pieces]
        ),
        pieces=pieces,
        class_counts=dict(writer.class_counts),
    )


@functools.lru_cache(maxsize=4)
def _prepared(characters: tuple[str, ...], image_format: str) -> tuple[Mapping[bytes, int], GlyphEncoder]:
    """Class ids by tag, and an encoder: the same for task after task in Spark's Python process."""
    return Charset(characters).class_ids_by_tag, GlyphEncoder(characters, image_format)


class _ShardWriter:
    """Writes piece after piece into one shard, and counts.

    Members that are `damaged`, by place and with the reason, are set aside as a whole.
    """

    def __init__(self, task: GroupTask, stream: BinaryIO, damaged: Mapping[str, str]) -> None:
        self._task = task
        self._damaged = damaged
        self._class_ids, self._encoder = _prepared(task.characters, task.image_format)
        self.stream = HashingWriter(stream)
        self.class_counts: Counter[int] = Counter()

    def add(self, piece: Piece) -> PieceResult:
        task, source = self._task, piece.source
        if source.place in self._damaged:
            return _set_aside(source, self._damaged[source.place])
        bad_ranges: list[BadRange] = []
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
                self.stream.write(self._encoder.encode(block, class_ids, source.name))
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
        bad_ranges=(BadRange(source.name, 0, source.size_bytes, reason),),
    )


def _reader(piece: Piece, stream: BinaryIO, on_bad: Callable[[BadRange], None] | None) -> gnt_reader.RangeReader:
    """Reads a piece; one at the file's end reads on to where the file ends now.

    If a file does not begin like a GNT file, the first piece's reader takes all of it: others would find records in an
    archive.
    """
    source = piece.source
    if source.member is not None:  # whole
        return gnt_reader.RangeReader(stream, source.place, on_bad)
    size_bytes = source.size_bytes
    if piece.within and foreign.kind_of(stream.read(foreign.HEAD_BYTES)):
        stream.seek(size_bytes)
        return gnt_reader.RangeReader(stream, source.path, on_bad, start=size_bytes)
    stream.seek(piece.start)
    stop = piece.stop if piece.stop < size_bytes else None
    return gnt_reader.RangeReader(stream, source.path, on_bad, start=piece.start, stop=stop, within=piece.within)


def _ignore(_: BadRange) -> None:
    pass
