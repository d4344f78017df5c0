"""The parts of a manifest: shards, the sources they were made from or adopted from, and the changes of a split."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class SourceRange:
    """The bytes `start` to `end` (exclusive) of a source file, as one task has read them; SHA-256 in hex."""

    start: int
    end: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Source:
    """A GNT file.

    Attributes:
      name: its path below `--gnt_dir`; of a member of an archive, the archive's followed by that in the archive.
      num_records: readable records, filtered or not.
      filtered: records that were left out, by character, sorted.
      quarantined_bytes: bytes that could not be read; the ranges are in `_quarantine`.
      generation: the one that its records came with.
      ranges: adjacent, over the whole file. One whose SHA-256 is empty could not be read at all.
      archive: path of its archive below `--gnt_dir`; empty for a file.
    """

    name: str
    size_bytes: int
    mtime_s: float
    num_records: int
    filtered: Mapping[str, int]
    quarantined_bytes: int
    generation: int
    ranges: tuple[SourceRange, ...]
    archive: str = ""

    @property
    def num_kept(self) -> int:
        """The records that are in the shards."""
        return self.num_records - sum(self.filtered.values())


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A TFRecord file.

    Attributes:
      file: its path below the split's folder; of an adopted one its name in `Adoption.folder`.
      sources: names of the sources that it may hold records of; none if any may be in it (`--shuffle_at_write`).
    """

    file: str
    size_bytes: int
    sha256: str
    num_records: int
    sources: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ImageFolder:
    """The folder of images that a split was made from as a whole: a million files would not fit one by one.

    Attributes:
      sha256: of their names, classes, sizes and times, in hex.
      files_per_class: of all image files that have a class.
      num_unlisted: image files that the labels do not name.
      num_other_files: files that were left out by their names.
      filtered: image files whose class is not in the charset, by class.
      quarantined: bytes of the files that could not be read, by name below the folder.
    """

    sha256: str
    num_files: int
    size_bytes: int
    files_per_class: Mapping[str, int]
    num_unlisted: int
    num_other_files: int
    filtered: Mapping[str, int]
    quarantined: Mapping[str, int]


@dataclass(frozen=True, kw_only=True)
class Adoption:
    """The TFRecords of another program that are a split's shards, where that program has put them.

    Attributes:
      folder: that their names are below; empty for the dataset's own folder.
      labels: the label file; empty without one.
      labels_sha256: of its bytes, in hex.
      mtimes_s: of the shards, in their order.
    """

    folder: str
    labels: str
    labels_sha256: str
    mtimes_s: tuple[float, ...]


@dataclass(frozen=True, kw_only=True)
class Revision:
    """One change of a split: the generation that came with it, and what it did to the source files."""

    generation: int
    created: str
    num_records: int
    num_added: int = 0
    replaced: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    compacted: bool = False
