"""Adopted shards that are no longer what was adopted: other programs own them, and may write them again."""

from __future__ import annotations

from collections.abc import Sequence

from tfos_job import storage
from tfos_job.errors import BadDataError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest, shards_dir
from tfos_job.layout import SplitLayout, join
from tfos_job.storage import Entry

_NUM_NAMED = 5


def load_unchanged(split: SplitLayout) -> Manifest:
    """The manifest of a split whose shards are still those that were adopted, if they were.

    Times count where the shards are read in place. A copy of a remote one is proved by its digest.

    Raises:
      BadDataError: adopted shards have changed, or the manifest is damaged.
      MissingInputError: there is no such split.
    """
    manifest = manifests.load(split)
    if manifest.adoption is None:
        return manifest
    folder = shards_dir(split, manifest)
    found = changes(manifest, storage.list_dir(folder), with_times=storage.local_path(folder) is not None)
    if found:
        more = f" and {len(found) - _NUM_NAMED} more" if found[_NUM_NAMED:] else ""
        raise BadDataError(
            f"its shards are not those that were adopted: {', '.join(found[:_NUM_NAMED])}{more}",
            place=join(split.root, "manifest.json"),
            next_step=f"Run `tfos-job convert --tfrecord_dir {folder}` again for this split, or restore them",
        )
    return manifest


def changes(manifest: Manifest, entries: Sequence[Entry], *, with_times: bool = True) -> list[str]:
    """The adopted shards that are missing, or have another size or time, in words.

    Args:
      manifest: of an adopted split.
      entries: what is in the folder of its shards.
      with_times: a time that differs counts.
    """
    assert manifest.adoption is not None
    there = {entry.name: entry for entry in entries}
    words = []
    for shard, mtime_s in zip(manifest.shards, manifest.adoption.mtimes_s, strict=True):
        entry = there.get(shard.file)
        if entry is None:
            words.append(f"{shard.file} is missing")
        elif entry.size_bytes != shard.size_bytes:
            words.append(f"{shard.file} has {entry.size_bytes} bytes, had {shard.size_bytes}")
        elif with_times and entry.mtime_s != mtime_s:
            words.append(f"{shard.file} was written again")
    return words
