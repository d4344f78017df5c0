"""The folders of an adoption: what is adopted must lie where no conversion ever removes or writes anything."""

from __future__ import annotations

import os

from tfos_job import storage
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.layout import BUILDING_PREFIX, GENERATION_PREFIX, DatasetLayout, SplitLayout, join

_UNFINISHED = (BUILDING_PREFIX, "_manifest.json.")


def require_apart(tfrecord_dir: str, dataset: DatasetLayout) -> None:
    """Raises SettingsError unless the folder is the dataset's own or outside of it, and no dataset's generation.

    Args:
      tfrecord_dir: the folder of the shards, absolute.
      dataset: that they are adopted by.
    """
    folder, root = _real(tfrecord_dir), _real(dataset.root)
    if folder != root and folder.startswith(join(root, "")):
        raise SettingsError(
            f"it is within --dataset_dir {dataset.root}, whose folders are conversion's own",
            place=f"--tfrecord_dir {tfrecord_dir}",
            next_step="Leave out --dataset_dir, or give a folder beside it",
        )
    parent, _, name = folder.rpartition("/")
    if name.startswith(GENERATION_PREFIX) and storage.exists(SplitLayout(parent).manifest):
        raise SettingsError(
            "it is a generation of a converted dataset, which an update may remove",
            place=f"--tfrecord_dir {tfrecord_dir}",
            next_step=f"Train on it as it is: --dataset_dir {parent.rpartition('/')[0]}",
        )


def require_own_folder(split: SplitLayout) -> None:
    """Raises SettingsError if other files lie where the split's manifest would.

    Conversion removes what it takes for its own there, such as `gen-…`. So without a manifest nothing may be there but
    what a killed conversion has left under names that nobody else gives.
    """
    if not storage.exists(split.root) or storage.exists(split.manifest):
        return
    entries = storage.list_dir(split.root) if storage.is_dir(split.root) else [storage.stat(split.root)]
    others = [entry.name for entry in entries if not entry.name.startswith(_UNFINISHED)]
    if others:
        raise SettingsError(
            f"the split's manifest would be here, and other files are, such as {others[0]}",
            place=split.root,
            next_step="Give another --dataset_dir; the shards stay where they are",
        )


def require_own_charset(dataset: DatasetLayout) -> None:
    """Raises SettingsError if the dataset's folder has a charset.json of another program."""
    try:
        manifests.load_charset(dataset)
    except MissingInputError:
        return
    except BadDataError as error:
        raise SettingsError(
            f"the dataset's classes would be here, and there is another file: {error.fact}",
            place=error.place,
            next_step="Move it away, or give another --dataset_dir; the shards stay where they are",
        ) from error


def _real(path: str) -> str:
    """The path without links, as far as that can be told."""
    local = storage.local_path(path)
    return path.rstrip("/") if local is None else os.path.realpath(local)
