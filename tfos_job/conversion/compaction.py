"""Shards of several generations as those of a single one: which records go together, and that none is lost. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tfos_job.conversion.rewrite import Stretch
from tfos_job.conversion.shard_plan import SourceFile, plan_groups
from tfos_job.errors import BadDataError
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import SplitLayout, join


def num_generations(live: Manifest) -> int:
    """The number of generations that have live shards."""
    return len({shard.file.partition("/")[0] for shard in live.shards})


def plan_compaction(live: Manifest, split: SplitLayout, target_source_bytes: int) -> list[list[Stretch]]:
    """The stretches of live shards that each new shard is made of.

    Args:
      live: the split's manifest.
      split: its folder.
      target_source_bytes: of the source files of a shard.
    """
    by_file = {shard.file: shard for shard in live.shards}
    pseudo_files = [SourceFile(shard.file, shard.file, shard.size_bytes, 0.0) for shard in live.shards]
    # The target counts bytes of sources, and shards may be packed.
    packing = sum(shard.size_bytes for shard in live.shards) / sum(source.size_bytes for source in live.sources)
    groups: list[list[Stretch]] = []
    for pieces in plan_groups(pseudo_files, max(1, int(target_source_bytes * packing))):
        groups.append([])
        for piece in pieces:
            shard = by_file[piece.source.name]
            first, last = (at * shard.num_records // max(shard.size_bytes, 1) for at in (piece.start, piece.stop))
            groups[-1].append(Stretch(join(split.root, shard.file), first, last))
    return groups


def require_same_records(
    split: SplitLayout, live: Manifest, compacted: Manifest, class_counts: Mapping[int, int]
) -> None:
    """Raises BadDataError unless the new shards hold as many records of each class as the manifest says."""
    found = {class_id: count for class_id, count in class_counts.items() if count}
    expected = {class_id: count for class_id, count in enumerate(live.class_counts) if count}
    if compacted.num_records != live.num_records or found != expected:
        raise BadDataError(
            f"its shards hold {compacted.num_records} records, its manifest says {live.num_records}, or other classes",
            place=split.root,
            next_step="Run `verify` on the split, and convert it again with --overwrite",
        )
