"""What is live in a split, from which source files it was made, and what was left out and why. Published last."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.config import GNT
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats.charset import Charset
from tfos_job.formats.gnt import BadRange
from tfos_job.layout import (
    BUILDING_PREFIX,
    GENERATION_PREFIX,
    QUARANTINE,
    STATISTICS_PREFIX,
    DatasetLayout,
    SplitLayout,
    join,
)

FORMAT_VERSION = 3
_READABLE_VERSIONS = (2, 3)
FILTER_REASON = "not in charset"
_MAX_NAME_BYTES = 200  # a file system takes 255, and while it is written a name has 43 more
_MAX_PATH_BYTES = 2000
_OLD_LOCK_S = 60.0  # those who try for the lock at this moment have younger ones
_OLD_STATISTICS_S = 86_400.0  # a training that writes them holds no lock of the dataset

_log = logging.getLogger(__name__)


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
      num_records: what was readable, filtered or not.
      filtered: records that were left out, by character, sorted.
      quarantined_bytes: what could not be read; the ranges are in `_quarantine`.
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
      file: its path below the split's folder.
      sources: names of the sources that it may hold records of; none where any may be in it (`--shuffle_at_write`).
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
class Revision:
    """One change of a split: the generation that came with it, and what it did to the source files."""

    generation: int
    created: str
    num_records: int
    num_added: int = 0
    replaced: tuple[str, ...] = ()
    pruned: tuple[str, ...] = ()
    compacted: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a dataset.

    Attributes:
      generation: the latest one; shards of earlier ones may be live beside it.
      sources: the files whose records are live, by name; none where the split was not made from files.
      class_counts: records of each class, by class id; classes without records count too.
      settings: what the split was made with, as far as it decides what is in it.
      num_channels: of the images as the network is to see them: 1 for grey, 3 for RGB.
      dataset_name: of the reader (readers.py).
      images: where the split was made from a folder of images.
      history: the split's changes since it was last built as a whole, the first one first.
    """

    split_name: str
    generation: int
    image_format: str
    charset_digest: str
    shards: tuple[Shard, ...]
    sources: tuple[Source, ...]
    class_counts: tuple[int, ...]
    settings: Mapping[str, Any]
    history: tuple[Revision, ...]
    created: str
    package_version: str
    num_channels: int = 1
    dataset_name: str = GNT
    images: ImageFolder | None = None

    @property
    def num_records(self) -> int:
        return sum(shard.num_records for shard in self.shards)

    @property
    def record_bytes(self) -> int:
        """What a record takes in a shard, in the mean; 0 where there are none."""
        return sum(shard.size_bytes for shard in self.shards) // self.num_records if self.num_records else 0

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    @property
    def filtered(self) -> dict[str, int]:
        """Records whose character is not in the charset, by character; files of images, by class."""
        if self.images is not None:
            return dict(self.images.filtered)
        counts: Counter[str] = Counter()
        for source in self.sources:
            counts.update(source.filtered)
        return dict(sorted(counts.items()))

    @property
    def quarantined(self) -> dict[str, int]:
        """Bytes that could not be read, by source name; an empty file has none, and is there."""
        if self.images is not None:
            return dict(self.images.quarantined)
        return {
            source.name: source.quarantined_bytes
            for source in self.sources
            if source.quarantined_bytes or not source.size_bytes
        }

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the charset's digest and the shards' digests in order: what a run pins itself to."""
        text = "\n".join([self.charset_digest, *(shard.sha256 for shard in self.shards)])
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_json(self) -> dict[str, Any]:
        value = dataclasses.asdict(self)
        del value["class_counts"]
        if self.images is None:
            del value["images"]
        return value | {
            "format_version": FORMAT_VERSION,
            "digest": self.digest,
            "num_records": self.num_records,
            "records_per_class": list(self.class_counts),
            "filtered": {
                "reason": FILTER_REASON,
                "num_records": sum(self.filtered.values()),
                "characters": self.filtered,
            },
            "quarantined": {"size_bytes": sum(self.quarantined.values()), "files": self.quarantined},
        }

    @staticmethod
    def from_json(value: Any, place: str = "manifest.json") -> Manifest:
        """The inverse of `to_json`.

        Raises:
          BadDataError: not a manifest of this format, or one whose digest or counts do not fit.
        """
        try:
            if value["format_version"] not in _READABLE_VERSIONS:
                expected = " or ".join(map(str, _READABLE_VERSIONS))
                raise ValueError(f"format_version {value['format_version']}, expected {expected}")
            manifest = Manifest(
                shards=tuple(Shard(**shard | {"sources": tuple(shard["sources"])}) for shard in value["shards"]),
                sources=tuple(_source(source) for source in value["sources"]),
                class_counts=tuple(value["records_per_class"]),
                history=tuple(_revision(revision) for revision in value["history"]),
                num_channels=value.get("num_channels", 1),  # manifests of before there were images have none of these
                dataset_name=value.get("dataset_name", GNT),
                images=ImageFolder(**value["images"]) if value.get("images") else None,
                **{name: value[name] for name in _PLAIN_FIELDS},
            )
            for name in ("digest", "num_records"):
                if value[name] != getattr(manifest, name):
                    raise ValueError(f"{name} is {value[name]}, its shards give {getattr(manifest, name)}")
            _check_counts(manifest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fact = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadDataError(
                f"not a manifest: {fact}", place=place, next_step="Convert the split again with --overwrite"
            ) from error
        return manifest


def _check_counts(manifest: Manifest) -> None:
    """Raises ValueError where two accounts of the same records differ."""
    num_records = manifest.num_records
    if sum(manifest.class_counts) != num_records:
        raise ValueError(f"classes have {sum(manifest.class_counts)} records, shards {num_records}")
    from_sources = sum(source.num_kept for source in manifest.sources)
    if manifest.sources and from_sources != num_records:
        raise ValueError(f"sources have {from_sources} records of its classes, shards {num_records}")
    if manifest.images is not None:
        folder = manifest.images
        from_files = folder.num_files - len(folder.quarantined) - sum(folder.filtered.values())
        if from_files != num_records:
            raise ValueError(f"its folder has {from_files} readable images of its classes, shards {num_records}")
    for source in manifest.sources:
        starts = [0, *(part.end for part in source.ranges)]
        if [part.start for part in source.ranges] != starts[:-1] or starts[-1] != source.size_bytes:
            raise ValueError(f"the ranges of {source.name} are not its {source.size_bytes} bytes")


_PLAIN_FIELDS = ("split_name", "generation", "image_format", "charset_digest", "settings", "created", "package_version")


def _source(value: dict[str, Any]) -> Source:
    filtered = value["filtered"]
    if isinstance(filtered, str):  # format 2 had a character for each record
        filtered = dict(sorted(Counter(filtered).items()))
    return Source(**value | {"filtered": filtered, "ranges": tuple(SourceRange(**part) for part in value["ranges"])})


def _revision(value: dict[str, Any]) -> Revision:
    return Revision(**value | {name: tuple(value[name]) for name in ("replaced", "pruned")})


def load(split: SplitLayout) -> Manifest:
    """Reads the manifest of a split.

    Raises:
      MissingInputError: the split has none.
      BadDataError: it is damaged.
    """
    value = _read(
        split.manifest,
        missing="no such split: it has no manifest",
        if_missing="Make it with `tfos-job convert`, or check --dataset_dir and the split's name",
        if_damaged="Convert the split again with --overwrite",
    )
    return Manifest.from_json(value, place=split.manifest)


def load_charset(dataset: DatasetLayout) -> Charset:
    """Reads the charset of a dataset.

    Raises:
      MissingInputError: the dataset has none.
      BadDataError: it is damaged.
    """
    value = _read(
        dataset.charset,
        missing="no such dataset: it has no charset",
        if_missing="Make it with `tfos-job convert`, or check --dataset_dir",
        if_damaged="Restore it, or convert into a new folder",
    )
    return Charset.from_json(value, place=dataset.charset)


def _read(path: str, *, missing: str, if_missing: str, if_damaged: str) -> Any:
    """The JSON value at `path`; the words are those of the two errors."""
    try:
        return storage.read_json(path)
    except MissingInputError as error:
        raise MissingInputError(missing, place=path, next_step=if_missing) from error
    except ValueError as error:
        raise BadDataError(f"not JSON: {error}", place=path, next_step=if_damaged) from error


def shard_paths(split: SplitLayout, manifest: Manifest) -> list[str]:
    """The paths of the live shards, in the manifest's order."""
    return [join(split.root, shard.file) for shard in manifest.shards]


def damage(split: SplitLayout, manifest: Manifest) -> list[str]:
    """Shards that are not there, or not of their size, in words. Checksums are for `verify`, which reads them all."""
    folders = {path.rpartition("/")[0] for path in shard_paths(split, manifest)}
    sizes = {entry.path: entry.size_bytes for folder in folders for entry in _list(folder)}
    found = {shard.file: sizes.get(join(split.root, shard.file)) for shard in manifest.shards}
    return [
        f"{shard.file} is missing"
        if found[shard.file] is None
        else f"{shard.file} has {found[shard.file]} bytes, not {shard.size_bytes}"
        for shard in manifest.shards
        if found[shard.file] != shard.size_bytes
    ]


# --- publishing ------------------------------------------------------------------------------------------------------


def next_generation(split: SplitLayout, live: Manifest | None) -> int:
    """A number that no generation has or, as far as the live manifest tells, had."""
    names = [entry.name for entry in _list(split.root) if entry.name.startswith(GENERATION_PREFIX)]
    numbers = [int(digits) for name in names if (digits := name.removeprefix(GENERATION_PREFIX)).isdigit()]
    return max([*numbers, live.generation if live else -1], default=-1) + 1


def publish(split: SplitLayout, manifest: Manifest, building_dir: str, bad_ranges: Sequence[BadRange]) -> None:
    """Makes a generation live: the quarantine files, one rename of the folder it was built in, the manifest last.

    Args:
      split: that it is of.
      manifest: of the split with it.
      building_dir: holds the generation's shards, and nothing else.
      bad_ranges: of the sources that came with this generation; of images one a file, the whole of it.

    Raises:
      ValueError: a bug: two accounts of the same records differ. Nothing is published.
    """
    _check_counts(manifest)  # a manifest that no reader would take must not replace one that is right
    by_source: dict[str, list[BadRange]] = {}
    for bad in bad_ranges:
        by_source.setdefault(bad.source, []).append(bad)
    generations = {source.name: source.generation for source in manifest.sources}
    for name, size_bytes in manifest.quarantined.items():
        if generations.get(name, manifest.generation) != manifest.generation:
            continue
        path = join(split.root, quarantine_file(name))
        storage.make_dirs(path.rpartition("/")[0])
        ranges = [{"start": bad.start, "end": bad.end, "reason": bad.reason} for bad in by_source.get(name, ())]
        storage.write_json(
            path, {"source": name, "generation": manifest.generation, "size_bytes": size_bytes, "ranges": ranges}
        )
    storage.publish_dir(building_dir, split.generation(manifest.generation))
    storage.write_json(split.manifest, manifest.to_json())


def sweep(split: SplitLayout, live: Manifest | None, *, keep_generations: bool = False) -> None:
    """Removes what is not live: what killed runs left, and shards that others have replaced. Under the dataset's lock.

    Args:
      split: whose folder to sweep.
      live: its manifest; None where nothing of it is live.
      keep_generations: only what has a temporary name goes.
    """
    live_files = {join(split.root, shard.file) for shard in live.shards} if live else set()
    live_folders = {shard.file.partition("/")[0] for shard in live.shards} if live else set()
    live_quarantine = {join(split.root, quarantine_file(name)) for name in live.quarantined} if live else set()
    for entry in _list(split.root):
        unfinished = entry.name.startswith(BUILDING_PREFIX) or entry.name.endswith(".tmp")
        if keep_generations and not unfinished:
            continue
        if unfinished or (entry.name.startswith(GENERATION_PREFIX) and entry.name not in live_folders):
            _log.info("removing what is not live: %s", entry.path)
            (storage.discard_dir if entry.is_dir else storage.remove)(entry.path)
        elif entry.name in live_folders:
            for shard in _list(entry.path):
                if shard.path not in live_files:
                    _log.info("removing what is not live: %s", shard.path)
                    storage.remove(shard.path)
    if not keep_generations and not live_quarantine:
        storage.remove(split.quarantine_dir)
    elif not keep_generations:
        for entry in _files_below(split.quarantine_dir):
            if entry.path not in live_quarantine:
                storage.remove(entry.path)


def sweep_dataset(dataset: DatasetLayout) -> None:
    """Removes what killed runs left beside the splits. Under the dataset's lock."""
    now_s = time.time()
    for entry in _list(dataset.root):
        is_left = is_lockless(entry.name) and not may_be_at_work(entry, now_s)
        if entry.name.startswith("_charset.json.") or is_left:
            storage.remove(entry.path)


def is_lockless(name: str) -> bool:
    """Whether a name in a dataset's folder is of an unfinished file whose writer does not hold the dataset's lock."""
    return _patience_s(name) > 0


def may_be_at_work(entry: storage.Entry, now_s: float) -> bool:
    """Whether such a file is so new that its writer may be at work."""
    return now_s - entry.mtime_s <= _patience_s(entry.name)


def _patience_s(name: str) -> float:
    if name.startswith(("__lock.", "_lock.")) and name.endswith((".tmp", ".stale")):
        return _OLD_LOCK_S
    return _OLD_STATISTICS_S if name.startswith(f"_{STATISTICS_PREFIX}") and name.endswith(".tmp") else 0.0


def _files_below(folder: str) -> list[storage.Entry]:
    found = []
    for entry in _list(folder):
        found += _files_below(entry.path) if entry.is_dir else [entry]
    return found


def quarantine_file(source_name: str) -> str:
    """Where in a split's folder it is told what of a source could not be read.

    The source's own name where it can be one: it may be too long with what is added, and a folder `1.png.json` would be
    in the way of the file for `1.png`, one that ends with `.tmp` would pass for a leftover.
    """
    *folders, name = source_name.split("/")
    sizes = [len(part.encode("utf-8", "surrogatepass")) for part in (*folders, name)]
    is_plain = not {"", ".", ".."}.intersection((*folders, name))  # an archive may name its members as it likes
    is_plain = is_plain and max(sizes) <= _MAX_NAME_BYTES and sum(sizes) <= _MAX_PATH_BYTES
    if not is_plain or any(folder.endswith((".json", ".tmp")) for folder in folders):
        name = hashlib.sha256(source_name.encode("utf-8", "surrogatepass")).hexdigest()
        return f"{QUARANTINE}/{name}.json"
    return f"{QUARANTINE}/{source_name}.json"


def _list(folder: str) -> list[storage.Entry]:
    return storage.list_dir(folder) if storage.is_dir(folder) else []
