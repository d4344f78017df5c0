"""A generation of a split: built aside, published by one rename, the manifest last.

A failure before the manifest is written leaves the split as it was; the next run removes what is left.
"""

from __future__ import annotations

import contextlib
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.conversion.locked_split import LockedSplit
from tfos_job.conversion.sweep import entries_of
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest, check_counts, shard_paths
from tfos_job.formats.quarantine import BadRange, quarantine_file
from tfos_job.layout import GENERATION_PREFIX, SplitLayout, generation_name, join


@dataclass(frozen=True)
class Building:
    """A generation in progress: tasks write to `work_dir`; what is published lies in `shards_dir`."""

    generation: int
    work_dir: str
    shards_dir: str

    @property
    def folder(self) -> str:
        """The folder of its shards below the split's, once published."""
        return generation_name(self.generation)


@contextlib.contextmanager
def build_aside(split: SplitLayout, live: Manifest | None) -> Iterator[Building]:
    """Folders to build a generation in. What is left of them at the end is removed: all of it on failure."""
    path = split.building(uuid.uuid4().hex)
    building = Building(next_generation(split, live), join(path, "work"), join(path, "shards"))
    storage.make_dirs(building.work_dir)
    storage.make_dirs(building.shards_dir)
    try:
        yield building
    finally:
        storage.discard_dir(path)
        if not storage.list_dir(split.root):
            storage.remove(split.root)  # a first conversion that failed leaves no trace of a split


def next_generation(split: SplitLayout, live: Manifest | None) -> int:
    """A number that no generation has or, by the live manifest, had."""
    names = [entry.name for entry in entries_of(split.root) if entry.name.startswith(GENERATION_PREFIX)]
    numbers = [int(digits) for name in names if (digits := name.removeprefix(GENERATION_PREFIX)).isdigit()]
    return max([*numbers, live.generation if live else -1], default=-1) + 1


def publish(
    target: LockedSplit, manifest: Manifest, charset: Charset | None, building: Building, bad_ranges: Sequence[BadRange]
) -> None:
    """Makes a generation live: the charset first, if the dataset has none yet, and the manifest last.

    Args:
      target: the split.
      manifest: of the split with the generation.
      charset: of the dataset; None if it has one already.
      building: holds the generation's shards.
      bad_ranges: of the sources that came with the generation; of an image file, the whole of it.

    Raises:
      BusyError: the dataset's lock is somebody else's by now.
      ValueError: a bug: two counts of the same records differ. Nothing is published.
    """
    _prepare(target, charset)
    publish_generation(target.layout, manifest, building.shards_dir, bad_ranges)


def publish_manifest(target: LockedSplit, manifest: Manifest, charset: Charset | None = None) -> None:
    """Makes a manifest live whose shards are where they are; the rest as in `publish`.

    A charset that differs from the dataset's replaces it.
    """
    check_counts(manifest)
    _prepare(target, charset)
    storage.make_dirs(target.layout.root)
    storage.write_json(target.layout.manifest, manifest.to_json())


def _prepare(target: LockedSplit, charset: Charset | None) -> None:
    """Proves the lock, and writes the charset if it is a new one."""
    target.lease.check()
    is_there = target.charset is not None and charset is not None and target.charset.digest == charset.digest
    if charset is not None and not is_there:
        storage.write_json(target.dataset.charset, charset.to_json())


def publish_generation(
    split: SplitLayout, manifest: Manifest, building_dir: str, bad_ranges: Sequence[BadRange]
) -> None:
    """Publishes the quarantine files, the generation's folder by one rename, and the manifest; see `publish`."""
    check_counts(manifest)  # an invalid manifest must not replace a valid one
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


def damage(split: SplitLayout, manifest: Manifest) -> list[str]:
    """Shards that are missing or have another size, in words. Checksums are for `verify`, which reads them all."""
    paths = shard_paths(split, manifest)
    folders = {path.rpartition("/")[0] for path in paths}
    sizes = {entry.path: entry.size_bytes for folder in folders for entry in entries_of(folder)}
    found = {shard.file: sizes.get(path) for path, shard in zip(paths, manifest.shards, strict=True)}
    return [
        f"{shard.file} is missing"
        if found[shard.file] is None
        else f"{shard.file} has {found[shard.file]} bytes, not {shard.size_bytes}"
        for shard in manifest.shards
        if found[shard.file] != shard.size_bytes
    ]
