"""What every way to make a split has in common on the driver: the dataset's charset, a place to build, the account."""

from __future__ import annotations

import contextlib
import datetime
import logging
import re
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.config import ConvertConfig
from tfos_job.errors import BadDataError, JobError, MissingInputError, SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats import manifest as manifests
from tfos_job.formats.charset import Charset
from tfos_job.formats.gnt import BadRange
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import DatasetLayout, SplitLayout, join
from tfos_job.lease import Lease

_PATTERN = re.compile(r"[^/]*[*?\[]")  # the first part of a path that a shell would expand
_NUM_NAMED = 10  # of a long list, a message names so many and counts the rest

_log = logging.getLogger(__name__)


def require_folders(config: ConvertConfig) -> None:
    """Looks at the two folders of a conversion before anything is started.

    Raises:
      MissingInputError: what is to be read is no folder.
      SettingsError: the dataset's folder cannot be one.
    """
    refuse_non_folder(config.input_dir, config.input_flag)
    refuse_non_folder(config.dataset_dir, "--dataset_dir", SettingsError)
    if not _is_folder(config.input_dir):
        raise MissingInputError("no such folder", place=config.input_dir, next_step=f"Check {config.input_flag}")


def refuse_non_folder(path: str, flag: str, kind: type[JobError] = MissingInputError) -> None:
    """Raises `kind` for a file, and for a pattern that is no folder's name, and says what the flag wants."""
    pattern = _PATTERN.search(path)
    if _is_folder(path):
        return
    if storage.exists(storage.absolute(path)):
        next_step = f"Give a folder, such as the one that it is in: {path.rstrip('/').rpartition('/')[0] or '.'}"
        raise kind(f"a file, and {flag} is a folder", place=path, next_step=next_step)
    if pattern:
        next_step = f"Give the folder alone: {path[: pattern.start()].rstrip('/') or '.'}"
        raise kind(f"{flag} is a folder, and patterns are not expanded", place=path, next_step=next_step)


def _is_folder(path: str) -> bool:
    path = storage.absolute(path)
    if storage.is_dir(path):
        return True
    try:
        storage.list_dir(path)  # of some file systems only this can tell
    except MissingInputError:
        return False
    return True


def dataset_charset(dataset: DatasetLayout, requested: Charset | None) -> Charset | None:
    """The charset of the splits that are there; None where there are none.

    Raises:
      SettingsError: another one is requested.
    """
    if not storage.exists(dataset.charset):
        return None
    splits = [dataset.split(entry.name) for entry in storage.list_dir(dataset.root) if entry.is_dir]
    if not any(storage.exists(split.manifest) for split in splits):
        storage.remove(dataset.charset)  # of a run that was killed before it published a split: nothing is bound to it
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


def require_same_channels(dataset: DatasetLayout, split_name: str, num_channels: int) -> None:
    """Raises SettingsError where another split is for a network that sees another number of channels."""
    for entry in storage.list_dir(dataset.root):
        split = dataset.split(entry.name)
        if not entry.is_dir or entry.name == split_name or not storage.exists(split.manifest):
            continue
        try:
            other = manifests.load(split)
        except BadDataError:  # that is for whoever reads it
            continue
        if other.num_channels != num_channels:
            raise SettingsError(
                f"split {entry.name} has images of {other.num_channels} channel(s), this one is to have {num_channels}",
                place=dataset.root,
                next_step="Give --num_channels as for the other split, or another --dataset_dir",
            )


def requested_charset(config: ConvertConfig) -> Charset | None:
    """The charset that the flags spell out; None for `auto` and where they say nothing.

    Raises:
      SettingsError: a file that does not hold one.
    """
    if config.charset_size is not None:
        return charsets.level1(config.charset_size)
    if config.charset in (None, "auto"):
        return None
    path = str(config.charset)
    parse = charsets.from_file if config.image_dir is None else charsets.from_lines
    return parse(read_text(path, "Save the characters as UTF-8"), path)


def read_text(path: str, next_step: str) -> str:
    """Raises SettingsError for a file that is not UTF-8."""
    try:
        return storage.read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        fact = f"not UTF-8: {error.reason} at byte {error.start}"
        raise SettingsError(fact, place=path, next_step=next_step) from error


def require_charset(dataset: DatasetLayout, charset: Charset | None, live: Manifest) -> None:
    """Raises BadDataError where the dataset's charset is not the one that a split was made with."""
    if charset is None or charset.digest != live.charset_digest:
        raise BadDataError(
            f"split {live.split_name} was made with the charset {live.charset_digest[:12]}, which is not there",
            place=dataset.charset,
            next_step="Restore it, or convert into a new folder",
        )


def live_manifest(split: SplitLayout, *, overwrite: bool) -> Manifest | None:
    """What the split has; None where it has nothing, or what is there is damaged and to be overwritten."""
    if not storage.exists(split.manifest):
        return None
    try:
        return manifests.load(split)
    except BadDataError as error:
        if not overwrite:
            raise
        _log.warning("%s", error)
        return None


def setting_changes(config: ConvertConfig, live: Manifest) -> list[str]:
    """In what the settings are not those that the split was made with, in words."""
    changes = []
    if config.stored_format != live.image_format:
        changes.append(f"--image_format is {config.stored_format}, was {live.image_format}")
    if config.shuffle_at_write != live.settings.get("shuffle_at_write", False):
        changes.append(f"--shuffle_at_write is {config.shuffle_at_write}, was {not config.shuffle_at_write}")
    if config.overwrite:  # what is there is right all the same, and stays unless it is asked for
        for name in ("target_shard_mb", *(["seed"] if config.shuffle_at_write else [])):
            if getattr(config, name) != live.settings.get(name):
                changes.append(f"--{name} is {getattr(config, name)}, was {live.settings.get(name)}")
    if config.on_bad_record == "fail" and live.quarantined:
        changes.append(f"--on_bad_record is fail, but {len(live.quarantined)} file(s) have bytes in quarantine")
    return changes


def must_be_rebuilt(split: SplitLayout, reasons: Sequence[str], *, overwrite: bool) -> bool:
    """Whether there are reasons for it.

    Raises:
      SettingsError: so it is, and nobody has asked for it.
    """
    if reasons and not overwrite:
        raise SettingsError(
            f"it is there, and not the same any more: {some(reasons)}",
            place=split.root,
            next_step="Give --overwrite to build it anew, or another --dataset_split_name",
        )
    if reasons:
        _log.warning("%s is built anew: %s", split.root, some(reasons))
    return bool(reasons)


def swept_manifest(dataset: DatasetLayout, split: SplitLayout, *, overwrite: bool) -> Manifest | None:
    """`live_manifest`; what killed runs have left is swept away. Under the dataset's lock."""
    live = live_manifest(split, overwrite=overwrite)
    manifests.sweep_dataset(dataset)
    # Where a manifest cannot be read its shards stay until there are others: they may be all that there is.
    manifests.sweep(split, live, keep_generations=live is None and storage.exists(split.manifest))
    return live


@dataclass(frozen=True)
class Building:
    """A generation on its way: tasks write to `work_dir`, and what is to be published lies in `shards_dir`."""

    generation: int
    work_dir: str
    shards_dir: str


@contextlib.contextmanager
def build_aside(split: SplitLayout, live: Manifest | None) -> Iterator[Building]:
    """Folders to build a generation in. What is left of them at the end goes: all of it on failure."""
    path = split.building(uuid.uuid4().hex)
    made = Building(manifests.next_generation(split, live), join(path, "work"), join(path, "shards"))
    storage.make_dirs(made.work_dir)
    storage.make_dirs(made.shards_dir)
    try:
        yield made
    finally:
        storage.discard_dir(path)
        if not storage.list_dir(split.root):
            storage.remove(split.root)  # a first conversion that failed leaves no trace of a split


def publish(
    dataset: DatasetLayout,
    split: SplitLayout,
    manifest: Manifest,
    charset: Charset,
    building: Building,
    bad_ranges: Sequence[BadRange],
    lease: Lease,
) -> None:
    """Makes a generation live: the charset first, where the dataset has none yet, and the manifest last.

    Raises:
      BusyError: the dataset's lock is somebody else's by now.
    """
    lease.check()
    if not storage.exists(dataset.charset):
        storage.write_json(dataset.charset, charset.to_json())
    manifests.publish(split, manifest, building.shards_dir, bad_ranges)


def now() -> str:
    """The time, as manifests have it."""
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def some(items: Sequence[str]) -> str:
    """The first few of a list, and how many more there are."""
    more = len(items) - _NUM_NAMED
    return ", ".join(items[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")
