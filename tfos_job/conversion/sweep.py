"""Removal of what is not live in a dataset: what killed runs left, and shards that others have replaced."""

from __future__ import annotations

import logging
import time

from tfos_job import storage
from tfos_job.formats.leftovers import is_lockless, may_be_at_work
from tfos_job.formats.manifest import Manifest, shard_paths
from tfos_job.formats.quarantine import quarantine_file
from tfos_job.layout import BUILDING_PREFIX, GENERATION_PREFIX, DatasetLayout, SplitLayout, join

_log = logging.getLogger(__name__)


def sweep_split(split: SplitLayout, live: Manifest | None, *, keep_generations: bool = False) -> None:
    """Removes what is not live: what killed runs left, and shards that others have replaced. Under the dataset's lock.

    Args:
      split: whose folder to sweep.
      live: its manifest; None if nothing of it is live.
      keep_generations: remove only what has a temporary name.
    """
    for entry in not_live(split, live, keep_generations=keep_generations):
        _log.info("removing what is not live: %s", entry.path)
        (storage.discard_dir if entry.is_dir else storage.remove)(entry.path)


def not_live(split: SplitLayout, live: Manifest | None, *, keep_generations: bool = False) -> list[storage.Entry]:
    """What `sweep_split` removes, which takes the same arguments.

    Adopted shards are another program's. They lie in no folder that is swept (`adoption.require_apart`), and if one
    did, it would stay.
    """
    live_files = set(shard_paths(split, live)) if live else set()
    own_start = join(split.root, "")
    live_folders = {path[len(own_start) :].partition("/")[0] for path in live_files if path.startswith(own_start)}
    found = []
    for entry in entries_of(split.root):
        unfinished = entry.name.startswith(BUILDING_PREFIX) or entry.name.endswith(".tmp")
        if keep_generations and not unfinished:
            continue
        if unfinished or (entry.name.startswith(GENERATION_PREFIX) and entry.name not in live_folders):
            found.append(entry)
        elif entry.name in live_folders:
            found += [shard for shard in entries_of(entry.path) if shard.path not in live_files]
        elif entry.path == split.quarantine_dir:
            found += _dead_quarantine(split, live, entry)
    return found


def _dead_quarantine(split: SplitLayout, live: Manifest | None, folder: storage.Entry) -> list[storage.Entry]:
    """The files about sources that are not live, or the whole folder if none is."""
    names = live.quarantined if live else ()
    alive = {join(split.root, quarantine_file(name)) for name in names}
    return [entry for entry in _files_below(folder.path) if entry.path not in alive] if alive else [folder]


def sweep_dataset(dataset: DatasetLayout) -> None:
    """Removes what killed runs left beside the splits. Under the dataset's lock."""
    for entry in left_beside(dataset):
        storage.remove(entry.path)


def left_beside(dataset: DatasetLayout) -> list[storage.Entry]:
    """What `sweep_dataset` removes."""
    now_s = time.time()

    def is_left(entry: storage.Entry) -> bool:
        return is_lockless(entry.name) and not may_be_at_work(entry, now_s)

    return [e for e in entries_of(dataset.root) if e.name.startswith("_charset.json.") or is_left(e)]


def _files_below(folder: str) -> list[storage.Entry]:
    found = []
    for entry in entries_of(folder):
        found += _files_below(entry.path) if entry.is_dir else [entry]
    return found


def entries_of(folder: str) -> list[storage.Entry]:
    """The entries of a folder; none if it does not exist."""
    return storage.list_dir(folder) if storage.is_dir(folder) else []
