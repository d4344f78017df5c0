"""What is live in a split, from which source files it was made, and what was left out and why. Published last."""

from __future__ import annotations

import dataclasses
import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.data.charset import Charset
from tfos_job.data.gnt import BadRange
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.layout import BUILDING_PREFIX, GENERATION_PREFIX, DatasetLayout, SplitLayout, join

FORMAT_VERSION = 1
FILTER_REASON = "not in charset"

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Source:
    """A GNT file. `name` is its path below `--gnt_dir`; `num_records` counts what was readable, filtered or not."""

    name: str
    size_bytes: int
    mtime_s: float
    sha256: str
    num_records: int


@dataclass(frozen=True, kw_only=True)
class Shard:
    """A TFRecord file, its records in the order of its sources. `file` is its path below the split's folder."""

    file: str
    size_bytes: int
    sha256: str
    num_records: int
    sources: tuple[Source, ...]


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a dataset.

    Attributes:
      class_counts: records of each class, by class id; classes without records count too.
      filtered: records whose character is not in the charset, by character.
      quarantined: bytes that could not be read, by source name; the ranges are in `_quarantine`.
      settings: what the split was made with, as far as it decides what is in it.
    """

    split_name: str
    generation: int
    image_format: str
    charset_digest: str
    shards: tuple[Shard, ...]
    class_counts: tuple[int, ...]
    filtered: Mapping[str, int]
    quarantined: Mapping[str, int]
    settings: Mapping[str, Any]
    created: str
    package_version: str

    @property
    def num_records(self) -> int:
        return sum(shard.num_records for shard in self.shards)

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    @property
    def sources(self) -> tuple[Source, ...]:
        return tuple(source for shard in self.shards for source in shard.sources)

    @property
    def digest(self) -> str:
        """SHA-256 (hex) of the charset's digest and the shards' digests in order: what a run pins itself to."""
        text = "\n".join([self.charset_digest, *(shard.sha256 for shard in self.shards)])
        return hashlib.sha256(text.encode("ascii")).hexdigest()

    def to_json(self) -> dict[str, Any]:
        value = dataclasses.asdict(self)
        del value["class_counts"], value["filtered"], value["quarantined"]
        return value | {
            "format_version": FORMAT_VERSION,
            "digest": self.digest,
            "num_records": self.num_records,
            "records_per_class": list(self.class_counts),
            "filtered": {
                "reason": FILTER_REASON,
                "num_records": sum(self.filtered.values()),
                "characters": dict(self.filtered),
            },
            "quarantined": {"size_bytes": sum(self.quarantined.values()), "files": dict(self.quarantined)},
        }

    @staticmethod
    def from_json(value: Any, place: str = "manifest.json") -> Manifest:
        """The inverse of `to_json`.

        Raises:
          BadDataError: not a manifest of this format, or one whose digest or counts do not fit.
        """
        try:
            if value["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format_version {value['format_version']}, expected {FORMAT_VERSION}")
            manifest = Manifest(
                shards=tuple(_shard(shard) for shard in value["shards"]),
                class_counts=tuple(value["records_per_class"]),
                filtered=dict(value["filtered"]["characters"]),
                quarantined=dict(value["quarantined"]["files"]),
                **{name: value[name] for name in _PLAIN_FIELDS},
            )
            for name in ("digest", "num_records"):
                if value[name] != getattr(manifest, name):
                    raise ValueError(f"{name} is {value[name]}, its shards give {getattr(manifest, name)}")
            if sum(manifest.class_counts) != manifest.num_records:
                raise ValueError(f"classes have {sum(manifest.class_counts)} records, shards {manifest.num_records}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fact = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadDataError(
                f"not a manifest: {fact}", place=place, next_step="Convert the split again with --overwrite"
            ) from error
        return manifest


_PLAIN_FIELDS = ("split_name", "generation", "image_format", "charset_digest", "settings", "created", "package_version")


def _shard(value: dict[str, Any]) -> Shard:
    return Shard(**value | {"sources": tuple(Source(**source) for source in value["sources"])})


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
    """Makes a generation live: the quarantine files, one rename of the folder it was built in, the manifest last."""
    for name, size_bytes in manifest.quarantined.items():
        path = _quarantine_file(split, name)
        storage.make_dirs(path.rpartition("/")[0])
        ranges = [
            {"start": bad.start, "end": bad.end, "reason": bad.reason} for bad in bad_ranges if bad.source == name
        ]
        storage.write_json(
            path, {"source": name, "generation": manifest.generation, "size_bytes": size_bytes, "ranges": ranges}
        )
    storage.publish_dir(building_dir, split.generation(manifest.generation))
    storage.write_json(split.manifest, manifest.to_json())


def sweep(split: SplitLayout, live: Manifest | None) -> None:
    """Removes what is not live: what killed runs left, and the generation before `live`. Only under the dataset's lock.

    Args:
      split: whose folder to sweep.
      live: its manifest; None where nothing of it is live.
    """
    live_folders = {shard.file.partition("/")[0] for shard in live.shards} if live else set()
    live_quarantine = {_quarantine_file(split, name) for name in live.quarantined} if live else set()
    for entry in _list(split.root):
        unfinished = entry.name.startswith(BUILDING_PREFIX) or entry.name.endswith(".tmp")
        if unfinished or (entry.name.startswith(GENERATION_PREFIX) and entry.name not in live_folders):
            _log.info("removing what is not live: %s", entry.path)
            (storage.discard_dir if entry.is_dir else storage.remove)(entry.path)
    if storage.is_dir(split.quarantine_dir):
        for entry in storage.find(split.quarantine_dir, ".json"):
            if entry.path not in live_quarantine:
                storage.remove(entry.path)


def _quarantine_file(split: SplitLayout, source_name: str) -> str:
    return join(split.quarantine_dir, f"{source_name}.json")


def _list(folder: str) -> list[storage.Entry]:
    return storage.list_dir(folder) if storage.is_dir(folder) else []
