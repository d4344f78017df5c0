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

    Adopted shards are another program's. They lie in no folder that is swept (`adoption.require_apart`), and if one
    did, it would stay.

    Args:
      split: whose folder to sweep.
      live: its manifest; None if nothing of it is live.
      keep_generations: remove only what has a temporary name.
    """
    live_files = set(shard_paths(split, live)) if live else set()
    own_start = join(split.root, "")
    live_folders = {path[len(own_start) :].partition("/")[0] for path in live_files if path.startswith(own_start)}
    live_quarantine = {join(split.root, quarantine_file(name)) for name in live.quarantined} if live else set()
    for entry in entries_of(split.root):
        unfinished = entry.name.startswith(BUILDING_PREFIX) or entry.name.endswith(".tmp")
        if keep_generations and not unfinished:
            continue
        if unfinished or (entry.name.startswith(GENERATION_PREFIX) and entry.name not in live_folders):
            _log.info("removing what is not live: %s", entry.path)
            (storage.discard_dir if entry.is_dir else storage.remove)(entry.path)
        elif entry.name in live_folders:
            for shard in entries_of(entry.path):
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
    for entry in entries_of(dataset.root):
        is_left = is_lockless(entry.name) and not may_be_at_work(entry, now_s)
        if entry.name.startswith("_charset.json.") or is_left:
            storage.remove(entry.path)


def _files_below(folder: str) -> list[storage.Entry]:
    found = []
    for entry in entries_of(folder):
        found += _files_below(entry.path) if entry.is_dir else [entry]
    return found


def entries_of(folder: str) -> list[storage.Entry]:
    """The entries of a folder; none if it does not exist."""
    return storage.list_dir(folder) if storage.is_dir(folder) else []
