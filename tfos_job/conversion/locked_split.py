"""The split that a conversion writes to, under its dataset's lock: what is there, and whether the request fits it."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.conversion.sweep import sweep_dataset, sweep_split
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import manifest as manifests
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import DatasetLayout, SplitLayout
from tfos_job.lease import Lease

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LockedSplit:
    """A split, and the lock of its dataset.

    Attributes:
      charset: of the dataset; None if no split of it is published.
      live: the split's manifest; None if the split has none, or is damaged and `--overwrite` is given.
    """

    name: str
    dataset: DatasetLayout
    layout: SplitLayout
    lease: Lease
    charset: Charset | None
    live: Manifest | None


@contextlib.contextmanager
def locked_split(
    dataset_dir: str,
    split_name: str,
    *,
    owner: str,
    requested: Charset | None,
    num_channels: int | None = 1,
    of_gnt: bool = False,
    adopts: bool = False,
    overwrite: bool,
    must_be_new: bool = False,
) -> Iterator[LockedSplit]:
    """Takes the dataset's lock, removes what killed runs have left, and reads what is live.

    Args:
      dataset_dir: folder of the dataset.
      split_name: the split to write to.
      owner: the lock's holder, for those who wait for it.
      requested: the charset that the flags spell out.
      num_channels: of the images; None if it is not known yet.
      of_gnt: the records are those of GNT files, which hold no other classes than characters of GBK.
      adopts: the split's shards are adopted, not written.
      overwrite: pass over a damaged manifest.
      must_be_new: fail if the split is there.

    Raises:
      BusyError: another job is writing to the dataset.
      SettingsError: the dataset has another charset, or images of another number of channels.
      SettingsError: the split is there, and `must_be_new` is on.
      SettingsError: the dataset is one of adopted shards, and other ones would be written to it.
      BadDataError: the split's manifest is damaged, and `overwrite` is off.
    """
    dataset = DatasetLayout(storage.absolute(dataset_dir))
    split = dataset.split(split_name)
    with Lease(dataset.lock, owner) as lease:
        charset = dataset_charset(dataset, requested)
        if of_gnt:
            _require_tags(dataset, charset)
        _require_fitting(dataset, split_name, num_channels, of_gnt=of_gnt)
        live = _live_manifest(split, overwrite=overwrite)
        if live is not None and live.adoption is not None and not adopts:
            raise _is_adopted(split.root)
        if must_be_new and live is not None:
            next_step = "Give overwrite=True, or another name"
            raise SettingsError("it is there", place=split.root, next_step=next_step)
        sweep_dataset(dataset)
        # Shards whose manifest is damaged stay until there are new ones: there may be no other copy.
        sweep_split(split, live, keep_generations=live is None and storage.exists(split.manifest))
        yield LockedSplit(name=split_name, dataset=dataset, layout=split, lease=lease, charset=charset, live=live)


def dataset_charset(dataset: DatasetLayout, requested: Charset | None) -> Charset | None:
    """The charset of the dataset's splits; None if it has none.

    Raises:
      SettingsError: another one is requested.
    """
    if not storage.exists(dataset.charset):
        return None
    splits = [dataset.split(entry.name) for entry in storage.list_dir(dataset.root) if entry.is_dir]
    if not any(storage.exists(split.manifest) for split in splits):
        storage.remove(dataset.charset)  # left by a run that was killed before it published a split
        return None
    charset = manifests.load_charset(dataset)
    if requested is not None and requested.digest != charset.digest:
        raise SettingsError(
            f"the dataset has {len(charset)} classes (digest {charset.digest[:12]}), the request is for "
            f"{len(requested)} (digest {requested.digest[:12]})",
            place=dataset.charset,
            next_step="Leave out --charset and --charset_size to use the dataset's, or convert into a new folder",
        )
    return charset


def _require_tags(dataset: DatasetLayout, charset: Charset | None) -> None:
    """Raises SettingsError if the dataset has classes of images that no GNT file can hold."""
    try:
        _ = charset.tags if charset else ()
    except SettingsError as error:
        raise SettingsError(
            error.fact, place=dataset.charset, next_step="These are classes of images: give another --dataset_dir"
        ) from error


def _require_fitting(dataset: DatasetLayout, split_name: str, num_channels: int | None, *, of_gnt: bool) -> None:
    """Raises SettingsError if another split has images of other channels, or adopted ones where glyphs would join."""
    for name, other in other_splits(dataset, split_name):
        if num_channels is not None and other.num_channels != num_channels:
            raise SettingsError(
                f"split {name} has images of {other.num_channels} channel(s), this one would have {num_channels}",
                place=dataset.root,
                next_step="Give --num_channels as for the other split, or another --dataset_dir",
            )
        if of_gnt and other.adoption is not None:
            raise _is_adopted(dataset.split(name).root)


def other_splits(dataset: DatasetLayout, split_name: str) -> Iterator[tuple[str, Manifest]]:
    """The dataset's splits but for one, by name; those with a damaged manifest are left out."""
    for entry in storage.list_dir(dataset.root):
        split = dataset.split(entry.name)
        if not entry.is_dir or entry.name == split_name or not storage.exists(split.manifest):
            continue
        with contextlib.suppress(BadDataError):  # reported to the commands that read that split
            yield entry.name, manifests.load(split)


def _is_adopted(place: str) -> SettingsError:
    return SettingsError(
        "its shards were adopted from another program (--tfrecord_dir)",
        place=place,
        next_step="Give another --dataset_dir",
    )


def _live_manifest(split: SplitLayout, *, overwrite: bool) -> Manifest | None:
    """The split's manifest; None if it has none, or it is damaged and `overwrite` is on."""
    if not storage.exists(split.manifest):
        return None
    try:
        return manifests.load(split)
    except BadDataError as error:
        if not overwrite:
            raise
        _log.warning("%s", error)
        return None
