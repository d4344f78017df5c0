"""A shard that a task has written, as the tasks of all conversions report it. Runs on executors.

A task writes under a name of its own into a folder that nobody reads yet, so it may run twice, even at the same time,
or be killed. The driver publishes what one run of each task has made.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tfos_job.formats.hashing import HashingWriter
from tfos_job.formats.manifest_parts import Shard, SourceRange
from tfos_job.formats.quarantine import BadRange
from tfos_job.layout import join


@dataclass(frozen=True, kw_only=True)
class PieceResult:
    """The records of a piece of a source: `range` is what was read of the file, `filtered` as of a `Source`."""

    name: str
    range: SourceRange
    num_records: int
    filtered: Mapping[str, int]
    bad_ranges: tuple[BadRange, ...]


@dataclass(frozen=True, kw_only=True)
class ShardResult:
    """The shard that one Spark task has written, and its counts.

    Attributes:
      written_file: the shard's path until it is moved to the name in `shard`.
      pieces: what was read of source files.
      class_counts: records by class id.
      dropped_counts: records that were there before and are no longer, by class id.
    """

    written_file: str
    shard: Shard
    class_counts: dict[int, int]
    pieces: tuple[PieceResult, ...] = ()
    dropped_counts: dict[int, int] = field(default_factory=dict)


def own_name(folder: str, file: str) -> str:
    """A path that no other run of the same task writes to."""
    return join(folder, f"{file}.{uuid.uuid4().hex}")


def shard_entry(file: str, written: HashingWriter, num_records: int, sources: Sequence[str]) -> Shard:
    """The manifest's entry for a shard, all of which was written through `written`."""
    return Shard(
        file=file,
        size_bytes=written.size_bytes,
        sha256=written.sha256,
        num_records=num_records,
        sources=tuple(sources),
    )
