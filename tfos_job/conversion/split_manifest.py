"""The manifest of a split with a new generation: of one built as a whole, updated, or compacted."""

from __future__ import annotations

import dataclasses
import datetime
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from tfos_job import __version__
from tfos_job.config import GNT, ConvertConfig
from tfos_job.conversion.shard_plan import SourceFile
from tfos_job.conversion.source_changes import Changes
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import Adoption, ImageFolder, Revision, Shard, Source


def settings_of(config: ConvertConfig) -> dict[str, Any]:
    """The flags that decide what is in a split, but for those that name its input."""
    return {
        "on_bad_record": config.on_bad_record,
        "max_bad_fraction": config.max_bad_fraction,
        "shuffle_at_write": config.shuffle_at_write,
        "target_shard_mb": config.target_shard_mb,
        "seed": config.seed,
    }


def first_manifest(
    *,
    split_name: str,
    generation: int,
    image_format: str,
    charset: Charset,
    shards: Sequence[Shard],
    class_counts: Mapping[int, int],
    settings: Mapping[str, Any],
    sources: Sequence[Source] = (),
    num_channels: int = 1,
    dataset_name: str = GNT,
    images: ImageFolder | None = None,
    adoption: Adoption | None = None,
) -> Manifest:
    """The manifest of a split that was built as a whole; `class_counts` are records by class id."""
    created = _now()
    return Manifest(
        split_name=split_name,
        generation=generation,
        image_format=image_format,
        charset_digest=charset.digest,
        shards=tuple(shards),
        sources=tuple(sources),
        class_counts=tuple(class_counts.get(class_id, 0) for class_id in range(len(charset))),
        settings=settings,
        history=(
            Revision(
                generation=generation,
                created=created,
                num_records=sum(shard.num_records for shard in shards),
                num_added=len(sources),
            ),
        ),
        created=created,
        package_version=__version__,
        num_channels=num_channels,
        dataset_name=dataset_name,
        images=images,
        adoption=adoption,
    )


def updated_manifest(
    live: Manifest,
    *,
    generation: int,
    gnt_dir: str,
    changes: Changes,
    pruned: Sequence[str],
    added: Sequence[Source],
    added_counts: Mapping[int, int],
    dropped_counts: Mapping[int, int],
    shards: Sequence[Shard],
) -> Manifest:
    """The manifest of a split with new and changed source files, and without removed ones.

    Args:
      live: the split's manifest before.
      generation: the new one.
      gnt_dir: folder of the source files.
      changes: of them since `live`.
      pruned: names of sources whose records are dropped, since they are gone.
      added: the new and the changed sources.
      added_counts: records of `added`, by class id.
      dropped_counts: records that are no longer there, by class id.
      shards: all that are live from now on.
    """
    replaced = tuple(source.name for source in changes.changed)
    outdated = {*replaced, *pruned}
    kept = [source for source in with_times(live, changes.touched).sources if source.name not in outdated]
    counts = Counter(dict(enumerate(live.class_counts)))
    counts.update(added_counts)
    counts.subtract(dropped_counts)
    revision = Revision(
        generation=generation,
        created=_now(),
        num_records=sum(shard.num_records for shard in shards),
        num_added=len(changes.added),
        replaced=replaced,
        pruned=tuple(pruned),
    )
    return _revised(
        live,
        revision,
        gnt_dir,
        shards=tuple(shards),
        sources=tuple(sorted([*kept, *added], key=lambda source: source.name)),
        class_counts=tuple(counts[class_id] for class_id in range(live.num_classes)),
    )


def compacted_manifest(live: Manifest, *, generation: int, gnt_dir: str, shards: Sequence[Shard]) -> Manifest:
    """The manifest of a split whose records were copied into new shards."""
    revision = Revision(generation=generation, created=_now(), num_records=live.num_records, compacted=True)
    return _revised(live, revision, gnt_dir, shards=tuple(shards))


def with_times(live: Manifest, touched: Sequence[SourceFile]) -> Manifest:
    """The manifest with the present times of files that have other times and the same bytes."""
    times = {file.name: file.mtime_s for file in touched}
    updated = [dataclasses.replace(source, mtime_s=times.get(source.name, source.mtime_s)) for source in live.sources]
    return dataclasses.replace(live, sources=tuple(updated))


def _revised(live: Manifest, revision: Revision, gnt_dir: str, **changes: Any) -> Manifest:
    return dataclasses.replace(
        live,
        generation=revision.generation,
        created=revision.created,
        settings={**live.settings, "gnt_dir": gnt_dir},
        history=(*live.history, revision),
        package_version=__version__,
        **changes,
    )


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
