"""`convert --image_dir`: one split of a dataset from folders of images. The driver's side: list, plan, run, publish.

Such a split is built as a whole. Its manifest has no line for each file, but a digest of the listing, which tells
whether there is anything to do. Publishing is that of `gnt_shard.py`: built aside, renamed once, the manifest last.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job import __version__, storage
from tfos_job.config import IMAGES, ConvertConfig
from tfos_job.conversion import folders
from tfos_job.conversion import image_shard as work
from tfos_job.conversion.dataset import (
    Building,
    build_aside,
    dataset_charset,
    must_be_rebuilt,
    now,
    publish,
    read_text,
    requested_charset,
    require_charset,
    require_same_channels,
    setting_changes,
    some,
    swept_manifest,
)
from tfos_job.conversion.folders import FoundFile, ImageFile, Listing
from tfos_job.conversion.image_shard import ImagesTask, LabelledFile
from tfos_job.driver import shards, tasks
from tfos_job.driver.shards import Made
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import charset as charsets
from tfos_job.formats import manifest as manifests
from tfos_job.formats.charset import Charset
from tfos_job.formats.gnt import BadRange
from tfos_job.formats.manifest import ImageFolder, Manifest, Revision
from tfos_job.layout import DatasetLayout, SplitLayout, generation_name, shard_name
from tfos_job.lease import Lease

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertedImages:
    """What `convert --image_dir` did.

    Attributes:
      num_filtered: images whose class is not in the charset.
      num_unlisted: images that `--labels_csv` does not name.
      num_other_files: files that were left out by their names.
    """

    dataset_dir: str
    split_name: str
    up_to_date: bool
    generation: int
    num_records: int
    num_classes: int
    num_channels: int
    num_shards: int
    num_filtered: int
    num_unlisted: int
    num_other_files: int
    quarantined_bytes: int
    quarantined_files: int
    dataset_digest: str
    charset_digest: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: the command's last line on stdout."""
        return dataclasses.asdict(self)


def convert_images(spark: SparkSession, config: ConvertConfig) -> ConvertedImages:
    """Makes one split, or says that it is up to date.

    Raises:
      MissingInputError: no images, or labels of files that are not there.
      BadDataError: an unreadable image with `fail`, too many of them with `quarantine`, or none of the charset.
      SettingsError: the folder, the charset or the settings are not those the split was made with, or it is damaged.
      BusyError: another job is writing to the dataset.
    """
    started_s = time.monotonic()
    dataset = DatasetLayout(storage.absolute(config.dataset_dir))
    split = dataset.split(config.dataset_split_name)
    listing = _list(config)
    with Lease(dataset.lock, f"tfos-job convert of split {config.dataset_split_name}") as lease:
        requested = requested_charset(config)
        charset = dataset_charset(dataset, requested)
        require_same_channels(dataset, config.dataset_split_name, config.num_channels)
        live = swept_manifest(dataset, split, overwrite=config.overwrite)
        up_to_date = False
        if live is not None:
            require_charset(dataset, charset, live)
            up_to_date = not _must_be_rebuilt(spark.sparkContext, config, listing, live, split)
        if live is not None and up_to_date:
            _log.info("%s is up to date (%d records): nothing to convert", split.root, live.num_records)
            made = live
        else:
            charset = charset or requested or charsets.from_characters(listing.files_per_class)
            made = _build(spark.sparkContext, config, dataset, split, live, charset, listing, lease)
            manifests.sweep(split, made)
        _log_account(split, made, listing)
        return _result(dataset, made, listing, up_to_date=up_to_date, started_s=started_s)


# --- before the work: what is there, and whether it is what was converted --------------------------------------------


def _list(config: ConvertConfig) -> Listing:
    image_dir = storage.absolute(config.input_dir)
    start = len(image_dir.rstrip("/")) + 1
    entries = storage.find(image_dir, "", with_hidden=True)
    found = [FoundFile(entry.path[start:], entry.size_bytes, entry.mtime_s, entry.special) for entry in entries]
    labels_csv = config.labels_csv
    labels = None
    if labels_csv is not None:
        labels = folders.parse_labels(read_text(labels_csv, "Save the labels as UTF-8"), labels_csv)
    listing = folders.listed(found, labels, image_dir, labels_csv or "")
    if not listing.files:
        raise MissingInputError(
            "; ".join([f"none of its {len(found)} files is an image", *listing.account]),
            place=image_dir,
            next_step="Check --image_dir",
        )
    return listing


def _must_be_rebuilt(
    context: SparkContext, config: ConvertConfig, listing: Listing, live: Manifest, split: SplitLayout
) -> bool:
    """Whether what is live is not what would be made now, or is damaged. With `--overwrite` shards are read to see.

    Raises:
      SettingsError: so it is, and `--overwrite` was not given.
    """
    reasons = [*_changes(config, listing, live), *manifests.damage(split, live)]
    if config.overwrite and not reasons:
        reasons = shards.damaged(context, split, live)
    return must_be_rebuilt(split, reasons, overwrite=config.overwrite)


def _changes(config: ConvertConfig, listing: Listing, live: Manifest) -> list[str]:
    then = live.images
    if then is None:
        return ["it was made from " + ("GNT files" if live.sources else "a DataFrame")]
    changes = []
    if listing.sha256 != then.sha256:
        changes += folders.changes(listing, then.num_files, then.size_bytes, then.files_per_class)
    if config.num_channels != live.num_channels:
        changes.append(f"--num_channels is {config.num_channels}, was {live.num_channels}")
    return changes + setting_changes(config, live)


# --- the work --------------------------------------------------------------------------------------------------------


def _build(
    context: SparkContext,
    config: ConvertConfig,
    dataset: DatasetLayout,
    split: SplitLayout,
    live: Manifest | None,
    charset: Charset,
    listing: Listing,
    lease: Lease,
) -> Manifest:
    """Publishes the split. Returns its manifest."""
    with build_aside(split, live) as building:
        files = [file for file in listing.files if file.label in charset.class_ids]
        made = _run(context, config, building, charset, files)
        if config.shuffle_at_write:
            made = shards.mix(context, made, work_dir=building.work_dir, seed=config.seed)
        _require_few_bad_files(config, files, made.bad_ranges)
        manifest = _manifest(config, charset, building, made, listing)
        if not manifest.num_records:
            held = some([f"{label} × {count}" for label, count in listing.files_per_class.items()])
            raise BadDataError(
                f"no readable image is of the {len(charset)} classes; it holds {held}",
                place=config.input_dir,
                next_step="Check --image_dir and the charset",
            )
        publish(dataset, split, manifest, charset, building, made.bad_ranges, lease)
    return manifest


def _run(
    context: SparkContext, config: ConvertConfig, building: Building, charset: Charset, files: Sequence[ImageFile]
) -> Made:
    groups = folders.deal(files, config.target_shard_mb << 20) if files else []
    images_tasks = [
        ImagesTask(
            shard_file=shard_name(index, len(groups)),
            image_dir=storage.absolute(config.input_dir),
            files=tuple(LabelledFile(f.name, f.size_bytes, charset.class_ids[f.label], f.special) for f in group),
            building_dir=building.work_dir,
            characters=charset.characters,
            keep=config.stored_format == "keep",
            quarantine=config.on_bad_record == "quarantine",
        )
        for index, group in enumerate(groups)
    ]
    size_bytes = sum(file.size_bytes for file in files)
    _log.info("converting %d images, %d bytes, for %d classes", len(files), size_bytes, len(charset))
    results = tasks.results(tasks.run(context, "convert", work.convert_images, images_tasks))
    return Made(
        results=tuple(result.shard for result in results),
        bad_ranges=tuple(sorted(itertools.chain.from_iterable(result.bad_files for result in results))),
    )


def _require_few_bad_files(config: ConvertConfig, files: Sequence[ImageFile], bad_files: Sequence[BadRange]) -> None:
    """Of files as of bytes: what is cut off or empty has few bytes."""
    shares = (
        ("images", len(bad_files), len(files)),
        ("bytes", sum(bad.end for bad in bad_files), sum(file.size_bytes for file in files)),
    )
    for what, num_bad, num_all in shares:
        if num_bad > config.max_bad_fraction * num_all:
            first = bad_files[0]
            raise BadDataError(
                f"{num_bad} of {num_all} {what} are unreadable ({num_bad / num_all:.2%}), more than "
                f"--max_bad_fraction {config.max_bad_fraction:g}; the first: {first.source}: {first.reason}",
                place=config.input_dir,
                next_step="Repair the files, or allow for more",
            )


def _manifest(config: ConvertConfig, charset: Charset, building: Building, made: Made, listing: Listing) -> Manifest:
    """The manifest of the split, whose shards are in place for it from here on."""
    counts = Counter(made.class_counts)
    created = now()
    return Manifest(
        split_name=config.dataset_split_name,
        generation=building.generation,
        image_format=config.stored_format,
        charset_digest=charset.digest,
        shards=shards.collect(made.results, building.shards_dir, generation_name(building.generation)),
        sources=(),
        class_counts=tuple(counts[class_id] for class_id in range(len(charset))),
        settings={
            "image_dir": storage.absolute(config.input_dir),
            "labels_csv": config.labels_csv,
            "on_bad_record": config.on_bad_record,
            "max_bad_fraction": config.max_bad_fraction,
            "shuffle_at_write": config.shuffle_at_write,
            "target_shard_mb": config.target_shard_mb,
            "seed": config.seed,
        },
        history=(Revision(generation=building.generation, created=created, num_records=counts.total()),),
        created=created,
        package_version=__version__,
        num_channels=config.num_channels,
        dataset_name=IMAGES,
        images=ImageFolder(
            sha256=listing.sha256,
            num_files=len(listing.files),
            size_bytes=listing.size_bytes,
            files_per_class=listing.files_per_class,
            num_unlisted=listing.num_unlisted,
            num_other_files=listing.num_other_files,
            filtered={
                label: count for label, count in listing.files_per_class.items() if label not in charset.class_ids
            },
            quarantined={bad.source: bad.end for bad in made.bad_ranges},
        ),
    )


# --- afterwards ------------------------------------------------------------------------------------------------------


def _log_account(split: SplitLayout, made: Manifest, listing: Listing) -> None:
    """Says what is in the split, and what is not: nothing disappears without a line."""
    _log.info(
        "%s: %d records of %d classes in %d shards", split.root, made.num_records, made.num_classes, len(made.shards)
    )
    folder = made.images
    assert folder is not None
    for left_out in listing.account:
        _log.warning("%s", left_out)
    if listing.merged:
        _log.warning("folders whose names differ in blanks or accents alone are one class: %s", some(listing.merged))
    if listing.num_unlisted:
        _log.warning("%d images are not in the labels and were left out", listing.num_unlisted)
    if folder.filtered:
        counts = sorted(folder.filtered.items(), key=lambda item: (-item[1], item[0]))
        _log.warning(
            "%d images are of classes that are not in the charset and were left out: %s",
            sum(folder.filtered.values()),
            some([f"{label} × {count}" for label, count in counts]),
        )
    if folder.quarantined:
        _log.warning(
            "%d images could not be read and are listed in %s: %s",
            len(folder.quarantined),
            split.quarantine_dir,
            some(list(folder.quarantined)),
        )


def _result(
    dataset: DatasetLayout, made: Manifest, listing: Listing, *, up_to_date: bool, started_s: float
) -> ConvertedImages:
    return ConvertedImages(
        dataset_dir=dataset.root,
        split_name=made.split_name,
        up_to_date=up_to_date,
        generation=made.generation,
        num_records=made.num_records,
        num_classes=made.num_classes,
        num_channels=made.num_channels,
        num_shards=len(made.shards),
        num_filtered=sum(made.filtered.values()),
        num_unlisted=listing.num_unlisted,
        num_other_files=listing.num_other_files,
        quarantined_bytes=sum(made.quarantined.values()),
        quarantined_files=len(made.quarantined),
        dataset_digest=made.digest,
        charset_digest=made.charset_digest,
        seconds=round(time.monotonic() - started_s, 3),
    )
