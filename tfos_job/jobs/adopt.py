"""`convert --tfrecord_dir`: one split of TF-Slim's own TFRecords, adopted where they are. The driver's side.

The shards are read through once, as a Spark task each, and a manifest with their digests is written. So a split is
changed by one file, which is replaced by a rename. Nothing here writes to a shard or removes one: they are another
program's.
"""

from __future__ import annotations

import dataclasses
import hashlib
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from tfos_job import storage
from tfos_job.config import ConvertConfig
from tfos_job.conversion import adopted_shard, adoption, digests
from tfos_job.conversion.adopted_shard import AdoptedShard, AdoptTask
from tfos_job.conversion.adopted_split import adopted_manifest, channels_of, found_labels, shard_with
from tfos_job.conversion.adoption_place import require_apart, require_own_charset, require_own_folder
from tfos_job.conversion.dataset import must_be_rebuilt, require_charset, some
from tfos_job.conversion.generation import next_generation, publish_manifest
from tfos_job.conversion.locked_split import LockedSplit, locked_split, other_splits
from tfos_job.conversion.result import SplitResult, log_adopted_split
from tfos_job.conversion.sweep import sweep_split
from tfos_job.driver import tasks
from tfos_job.driver.on_demand import Spark
from tfos_job.errors import AccessError, BadDataError, SettingsError
from tfos_job.formats import adopted_shards, slim_labels
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest, shards_dir
from tfos_job.formats.slim_labels import LABELS_FILE, LabelFile, SlimClasses
from tfos_job.layout import DatasetLayout, join
from tfos_job.storage import Entry

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class AdoptedSplit(SplitResult):
    """The result of `convert --tfrecord_dir`."""

    num_channels: int


@dataclass(frozen=True, kw_only=True)
class _Folder:
    """What is adopted.

    Attributes:
      path: of the folder.
      shards: the split's files in it, in order.
      num_others: files that are no shards of any split.
      labels: None without a label file.
      labels_sha256: of the label file; empty without one.
    """

    path: str
    shards: tuple[Entry, ...]
    num_others: int
    labels: LabelFile | None
    labels_sha256: str


def adopt(spark: Spark, config: ConvertConfig) -> AdoptedSplit:
    """Makes a split of shards that are there, or says that it is up to date; then no SparkContext is asked for.

    Raises:
      MissingInputError: no shards of the split, or not all of them.
      BadDataError: a record is damaged or none that training can read, or its label is no class.
      SettingsError: the label file, or the split that is there, does not fit.
      BusyError: another job is writing to the dataset.
    """
    started_s = time.monotonic()
    folder = _folder(config)
    dataset = DatasetLayout(storage.absolute(config.dataset_dir))
    require_apart(folder.path, dataset)
    require_own_folder(dataset.split(config.dataset_split_name))
    require_own_charset(dataset)
    try:
        with locked_split(
            config.dataset_dir,
            config.dataset_split_name,
            owner=f"tfos-job convert of split {config.dataset_split_name}",
            requested=None,
            num_channels=config.num_channels,
            adopts=True,
            overwrite=config.overwrite,
        ) as target:
            made = _update(spark, config, target, folder)
            return AdoptedSplit.of(
                target.dataset,
                made,
                up_to_date=target.live is not None and made.generation == target.live.generation,
                num_other_files=folder.num_others,
                started_s=started_s,
                num_channels=made.num_channels,
            )
    except AccessError as error:
        if not error.place.startswith(dataset.root) or dataset.root != folder.path:
            raise
        next_step = "Give a --dataset_dir that you may write to: the shards stay where they are, and are only read"
        raise AccessError(error.fact, place=error.place, next_step=next_step) from error


# --- before the work: what is there, and whether it is what was adopted ----------------------------------------------


def _folder(config: ConvertConfig) -> _Folder:
    path = storage.absolute(config.input_dir)
    entries = storage.list_dir(path)
    shards = adoption.shards_of(entries, config.dataset_split_name, path)
    labels_path = config.labels
    if labels_path is None and any(entry.name == LABELS_FILE and not entry.is_dir for entry in entries):
        labels_path = join(path, LABELS_FILE)
    labels, sha256 = None, ""
    if labels_path is not None:
        data = storage.read_bytes(labels_path)
        sha256 = hashlib.sha256(data).hexdigest()
        try:
            labels = slim_labels.parse_labels(data.decode("utf-8"), labels_path)
        except UnicodeDecodeError as error:
            fact = f"not UTF-8: {error.reason} at byte {error.start}"
            raise SettingsError(fact, place=labels_path, next_step="Save the labels as UTF-8") from error
    own = (LABELS_FILE, "charset.json", "_lock")
    return _Folder(
        path=path,
        shards=shards,
        num_others=adoption.num_others(entries, own),
        labels=labels,
        labels_sha256=sha256,
    )


def _update(spark: Spark, config: ConvertConfig, target: LockedSplit, folder: _Folder) -> Manifest:
    """Adopts the shards unless that is done. Returns the manifest that is live."""
    live = target.live
    is_alone = not any(True for _ in other_splits(target.dataset, target.name))
    may_change_classes = config.overwrite and is_alone
    if live is not None:
        if not may_change_classes:
            require_charset(target.dataset, target.charset, live)
        rebuilt = must_be_rebuilt(
            target.layout, _setting_changes(config, target, live, folder), overwrite=config.overwrite
        )
        words = [] if rebuilt else _changes(spark, config, live, folder)
        if not rebuilt and not words:
            return _up_to_date(target, live, folder)
        if words:
            _log.warning("%s is adopted again: %s", target.layout.root, some(words))
    known = None if may_change_classes or target.charset is None else target.charset
    made, classes = _adopt(spark, config, target, folder, known)
    sweep_split(target.layout, made)
    log_adopted_split(target.layout, made, folder.path, classes.warnings)
    return made


def _setting_changes(config: ConvertConfig, target: LockedSplit, live: Manifest, folder: _Folder) -> list[str]:
    """Why the live split is not one that an update may bring up to date."""
    if live.adoption is None:
        return ["its shards are its own, and were not adopted"]
    reasons = []
    if shards_dir(target.layout, live) != folder.path:
        reasons.append(f"its shards are those in {shards_dir(target.layout, live)}")
    if config.num_channels not in (None, live.num_channels):
        reasons.append(f"--num_channels is {config.num_channels}, was {live.num_channels}")
    return reasons


def _changes(spark: Spark, config: ConvertConfig, live: Manifest, folder: _Folder) -> list[str]:
    """The changes since the shards were adopted, in words.

    Bytes are compared where times alone differ, and everywhere with `--overwrite`.
    """
    assert live.adoption is not None
    then = {shard.file: (shard, mtime_s) for shard, mtime_s in zip(live.shards, live.adoption.mtimes_s, strict=True)}
    words = adopted_shards.changes(live, folder.shards, with_times=False)
    words += [f"{entry.name} is new" for entry in folder.shards if entry.name not in then]
    if folder.labels_sha256 != live.adoption.labels_sha256:
        words.append("the label file is another one")
    if words:
        return words
    doubtful = [entry for entry in folder.shards if config.overwrite or entry.mtime_s != then[entry.name][1]]
    if not doubtful:
        return []
    to_hash = [(entry.path, entry.size_bytes) for entry in doubtful]
    found = tasks.results(tasks.run(spark.sparkContext, "hash", digests.file_sha256, to_hash))
    return [
        f"{entry.name} has other bytes"
        for entry, sha256 in zip(doubtful, found, strict=True)
        if sha256 != then[entry.name][0].sha256
    ]


def _up_to_date(target: LockedSplit, live: Manifest, folder: _Folder) -> Manifest:
    """Writes the new times of shards that have the same bytes, so that the next run need not read them again."""
    assert live.adoption is not None
    _log.info("%s is up to date (%d records): nothing to adopt", target.layout.root, live.num_records)
    times = tuple(entry.mtime_s for entry in folder.shards)
    if times == live.adoption.mtimes_s:
        return live
    touched = dataclasses.replace(live, adoption=dataclasses.replace(live.adoption, mtimes_s=times))
    publish_manifest(target, touched)
    return touched


# --- the work --------------------------------------------------------------------------------------------------------


def _adopt(
    spark: Spark, config: ConvertConfig, target: LockedSplit, folder: _Folder, known: Charset | None
) -> tuple[Manifest, SlimClasses]:
    """Reads all shards and publishes the split. Returns its manifest and its classes."""
    size_bytes = sum(entry.size_bytes for entry in folder.shards)
    _log.info("reading %d shards, %d bytes, of %s", len(folder.shards), size_bytes, folder.path)
    to_read = [AdoptTask(entry.path, entry.size_bytes) for entry in folder.shards]
    shards = tasks.results(tasks.run(spark.sparkContext, "adopt", adopted_shard.read_shard, to_read))
    found = found_labels(shards)
    if not found.counts:
        raise BadDataError("its shards hold no records", place=folder.path, next_step="Write them again")
    classes = slim_labels.classes_of(found, folder.labels, known.characters if known else None)
    if classes.unknown:
        raise _unknown_label(folder, shards, classes)
    modes = sum((Counter(shard.modes) for shard in shards), Counter[str]())
    others = next((other.num_channels for _, other in other_splits(target.dataset, target.name)), None)
    charset = Charset(classes.names)
    manifest = adopted_manifest(
        split_name=target.name,
        generation=next_generation(target.layout, target.live),
        charset=charset,
        files=folder.shards,
        shards=shards,
        num_channels=channels_of(modes, config.num_channels, others),
        folder="" if folder.path == target.dataset.root else folder.path,
        labels=folder.labels.place if folder.labels else "",
        labels_sha256=folder.labels_sha256,
        settings={"tfrecord_dir": folder.path, "labels": config.labels},
    )
    publish_manifest(target, manifest, charset)
    return manifest, classes


def _unknown_label(folder: _Folder, shards: Sequence[AdoptedShard], classes: SlimClasses) -> BadDataError:
    label = classes.unknown[0]
    place = adopted_shard.place_of(folder.shards[shard_with(shards, [label])].path, [label])
    where = folder.labels.place if folder.labels else "the dataset"
    more = f", nor are {len(classes.unknown) - 1} others" if classes.unknown[1:] else ""
    return BadDataError(
        f"label {label} is no class of {where}, which has {len(classes.names)} (0 to {len(classes.names) - 1}){more}",
        place=place,
        next_step="Give the label file of these records with --labels, in lines of ID:NAME"
        + ("" if folder.labels else ", or another --dataset_dir"),
    )
