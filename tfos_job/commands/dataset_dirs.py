"""Folders beside a dataset's own that its splits refer to: a job reads them, too, and may need their tokens."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tfos_job.formats.manifest import Manifest


def splits_of(dataset_dir: str, names: Iterable[str] | None) -> Iterator[Manifest]:
    """The sound manifests of a dataset; those of all its splits if `names` is None. The command reports the others."""
    from tfos_job import storage
    from tfos_job.errors import BadDataError, MissingInputError
    from tfos_job.formats import manifest as manifests
    from tfos_job.layout import DatasetLayout

    dataset = DatasetLayout(dataset_dir)
    if names is None:
        there = storage.list_dir(dataset.root) if storage.is_dir(dataset.root) else ()
        names = [entry.name for entry in there if entry.is_dir]
    for name in names:
        with contextlib.suppress(BadDataError, MissingInputError):
            yield manifests.load(dataset.split(name))


def adopted_dirs(dataset_dir: str, names: Iterable[str] | None) -> list[tuple[str, str]]:
    """The folders of adopted shards, each with the flag that names it at its adoption."""
    adoptions = [manifest.adoption for manifest in splits_of(dataset_dir, names)]
    return [("tfrecord_dir", folder) for folder in sorted({one.folder for one in adoptions if one} - {""})]
