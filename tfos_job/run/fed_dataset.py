"""The dataset in the folder of a run that a Python program feeds: TRAIN_DIR/dataset, made of arrays or rows.

It is the run's own, and goes when the run is finished. Only what such a call has made is ever used or removed: a user
may have put another dataset there.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tfos_job import storage
from tfos_job.errors import SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import STATISTICS_PREFIX, DatasetLayout, RunLayout, SplitLayout
from tfos_job.lease import Lease

_log = logging.getLogger(__name__)


def dataset_of(run: RunLayout) -> DatasetLayout:
    return DatasetLayout(run.fed_dataset)


def published(run: RunLayout, split_names: Sequence[str]) -> dict[str, Manifest]:
    """The manifests of those of the splits that are there.

    Raises:
      SettingsError: one of them was not made from arrays or rows.
      BadDataError: the manifest of one of them is damaged.
    """
    found = {}
    for name in split_names:
        split = dataset_of(run).split(name)
        if not storage.exists(split.manifest):
            continue
        manifest = manifests.load(split)
        if not manifest.of_program:
            raise SettingsError(
                f"it was made from {manifest.made_from}, and the images that are given would go there",
                place=split.root,
                next_step="Give another train_dir, or call `train` with this dataset",
            )
        found[name] = manifest
    return found


def remove(run: RunLayout, split_names: Sequence[str]) -> None:
    """Removes the splits, and the dataset unless there is something else in it.

    Raises:
      BusyError: another job is writing to the dataset.
      JobError: as `published`; then nothing is removed.
    """
    dataset = dataset_of(run)
    if not storage.is_dir(dataset.root):
        return
    with Lease(dataset.lock, "the removal of a fed dataset"):
        for name, manifest in published(run, split_names).items():
            _remove_split(dataset.split(name), manifest)
        left = [entry for entry in storage.list_dir(dataset.root) if entry.path != dataset.lock]
        others = [entry.name for entry in left if not _is_of_all_splits(entry.path, dataset)]
        if others:
            _log.info("%s stays: there is %s in it", dataset.root, others[0])
            return
        for entry in left:
            storage.remove(entry.path)
    _remove_if_empty(dataset.root)


def _remove_split(split: SplitLayout, manifest: Manifest) -> None:
    """Removes the manifest, first, so that nobody takes the rest for a split, and the shards that it names."""
    storage.remove(split.manifest)
    for folder in {path.rpartition("/")[0] for path in manifests.shard_paths(split, manifest)}:
        storage.remove(folder)
    _remove_if_empty(split.root)


def _remove_if_empty(folder: str) -> None:
    if not storage.list_dir(folder):
        storage.remove(folder)


def _is_of_all_splits(path: str, dataset: DatasetLayout) -> bool:
    return path == dataset.charset or path.rpartition("/")[2].startswith(STATISTICS_PREFIX)
