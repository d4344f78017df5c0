"""The manifest of a split: its live shards, the source files they were made from, what was left out and why.

It is published last, so a reader that begins with it sees whole generations alone.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.config import GNT, IMAGES
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest_parts import Adoption, ImageFolder, Revision, Shard, Source, SourceRange
from tfos_job.layout import DatasetLayout, SplitLayout, join

FORMAT_VERSION = 3
ADOPTED_FORMAT_VERSION = 4
"""Of a split whose shards lie in another folder than its own, where earlier versions would look for them."""
FILTER_REASON = "not in charset"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """One split of a dataset.

    Attributes:
      generation: the latest one; shards of earlier ones may be live beside it.
      sources: the files whose records are live, by name; none if the split was not made from GNT files.
      class_counts: records of each class, by class id; classes without records count too.
      settings: the flags that decide the split's contents.
      num_channels: of the images that the network sees: 1 for grey, 3 for RGB.
      dataset_name: of the reader (readers.py).
      images: the folder of images that the split was made from; None if it was not.
      adoption: the shards are those of another program, and stay where they are; None if they are the split's own.
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
    adoption: Adoption | None = None

    @property
    def format_version(self) -> int:
        """Of the file that it is written to."""
        return FORMAT_VERSION if self.adoption is None else ADOPTED_FORMAT_VERSION

    @property
    def of_pictures(self) -> bool:
        """True if its images are picture files, not glyphs."""
        return self.dataset_name == IMAGES

    @property
    def made_from(self) -> str:
        """In a word."""
        if self.adoption is not None:
            return "TFRecords"
        if self.images is not None:
            return "images"
        if self.sources:
            return "GNT files"
        return "arrays" if "arrays" in self.settings else "a DataFrame"

    @property
    def of_program(self) -> bool:
        """True if a Python program has given its images, as arrays or in a DataFrame."""
        return not self.settings.keys().isdisjoint(("arrays", "dataframe"))

    @property
    def num_records(self) -> int:
        return sum(shard.num_records for shard in self.shards)

    @property
    def record_bytes(self) -> int:
        """Bytes of an average record in a shard; 0 if there are none."""
        return sum(shard.size_bytes for shard in self.shards) // self.num_records if self.num_records else 0

    @property
    def num_classes(self) -> int:
        return len(self.class_counts)

    @property
    def num_empty_classes(self) -> int:
        """Classes without a record."""
        return sum(not count for count in self.class_counts)

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
        for name in ("images", "adoption"):
            if value[name] is None:
                del value[name]
        return value | {
            "format_version": self.format_version,
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
            if value["format_version"] not in (FORMAT_VERSION, ADOPTED_FORMAT_VERSION):
                expected = f"{FORMAT_VERSION} or {ADOPTED_FORMAT_VERSION}"
                raise ValueError(f"format_version {value['format_version']}, expected {expected}")
            manifest = Manifest(
                shards=tuple(Shard(**shard | {"sources": tuple(shard["sources"])}) for shard in value["shards"]),
                sources=tuple(_source(source) for source in value["sources"]),
                class_counts=tuple(value["records_per_class"]),
                history=tuple(_revision(revision) for revision in value["history"]),
                images=ImageFolder(**value["images"]) if value.get("images") else None,
                adoption=_adoption(value["adoption"]) if value.get("adoption") else None,
                **{name: value[name] for name in _PLAIN_FIELDS},
            )
            for name in ("format_version", "digest", "num_records"):
                if value[name] != getattr(manifest, name):
                    raise ValueError(f"{name} is {value[name]}, its shards give {getattr(manifest, name)}")
            _require_names_below(manifest)
            check_counts(manifest)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            fact = f"{error} is missing" if isinstance(error, KeyError) else str(error)
            raise BadDataError(
                f"not a manifest: {fact}", place=place, next_step="Convert the split again with --overwrite"
            ) from error
        return manifest


def _require_names_below(manifest: Manifest) -> None:
    """Raises ValueError for a name that leads out of its folder: files are read, compared and made anew by these names.

    Names within an archive are looked up in its directory alone, whatever they are.
    """
    sources = [source.archive or source.name for source in manifest.sources]
    for name in (*(shard.file for shard in manifest.shards), *sources):
        if name.startswith("/") or ".." in name.split("/"):
            raise ValueError(f"{name!r} is not below the folder")
    if manifest.adoption is not None and any("/" in shard.file for shard in manifest.shards):
        raise ValueError("adopted shards lie in folders of their own")


def check_counts(manifest: Manifest) -> None:
    """Raises ValueError if two counts of the same records differ."""
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
    if manifest.adoption is not None and len(manifest.adoption.mtimes_s) != len(manifest.shards):
        raise ValueError(f"{len(manifest.adoption.mtimes_s)} times of {len(manifest.shards)} adopted shards")
    for source in manifest.sources:
        starts = [0, *(part.end for part in source.ranges)]
        if [part.start for part in source.ranges] != starts[:-1] or starts[-1] != source.size_bytes:
            raise ValueError(f"the ranges of {source.name} are not its {source.size_bytes} bytes")


_PLAIN_FIELDS = (
    "split_name",
    "generation",
    "image_format",
    "charset_digest",
    "settings",
    "created",
    "package_version",
    "num_channels",
    "dataset_name",
)


def _source(value: dict[str, Any]) -> Source:
    return Source(**value | {"ranges": tuple(SourceRange(**part) for part in value["ranges"])})


def _adoption(value: dict[str, Any]) -> Adoption:
    return Adoption(**value | {"mtimes_s": tuple(value["mtimes_s"])})


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
    return [join(shards_dir(split, manifest), shard.file) for shard in manifest.shards]


def shards_dir(split: SplitLayout, manifest: Manifest) -> str:
    """The folder that the names of the live shards are below."""
    if manifest.adoption is None:
        return split.root
    return manifest.adoption.folder or split.root.rpartition("/")[0]
