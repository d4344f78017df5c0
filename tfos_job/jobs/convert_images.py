"""`convert --image_dir`: one split of a dataset from folders of images. The driver's side: list, plan, run, publish.

Such a split is built as a whole. Its manifest has no line for each file, but a digest of the listing, which tells
whether there is anything to do. It is published like one of GNT files: built aside, renamed once, the manifest last.
"""

from __future__ import annotations

import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark import SparkContext

from tfos_job import storage
from tfos_job.config import IMAGES, ConvertConfig
from tfos_job.conversion import folders, sources
from tfos_job.conversion import image_shard as work
from tfos_job.conversion.dataset import (
    must_be_rebuilt,
    read_text,
    requested_charset,
    require_charset,
    require_few_bad,
    setting_changes,
    some,
)
from tfos_job.conversion.folders import ImageFile, ImageListing
from tfos_job.conversion.generation import Building, build_aside, publish
from tfos_job.conversion.image_shard import ImagesTask, LabelledFile
from tfos_job.conversion.locked_split import LockedSplit, locked_split
from tfos_job.conversion.result import SplitResult, log_image_split
from tfos_job.conversion.split_manifest import first_manifest, settings_of
from tfos_job.conversion.sweep import sweep_split
from tfos_job.driver import shards, tasks
from tfos_job.driver.on_demand import Spark
from tfos_job.driver.shards import WrittenShards
from tfos_job.errors import BadDataError, MissingInputError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.formats.manifest_parts import ImageFolder
from tfos_job.formats.quarantine import BadRange
from tfos_job.layout import shard_name

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertedImages(SplitResult):
    """The result of `convert --image_dir`.

    Attributes:
      num_unlisted: images that `--labels_csv` does not name.
    """

    num_channels: int
    num_unlisted: int


def convert_images(spark: Spark, config: ConvertConfig) -> ConvertedImages:
    """Makes one split, or says that it is up to date; then no SparkContext is asked for.

    Raises:
      MissingInputError: no images, or labels of files that are not there.
      BadDataError: an unreadable image with `fail`, too many of them with `quarantine`, or none of the charset.
      SettingsError: the folder, the charset or the settings are not those the split was made with, or it is damaged.
      BusyError: another job is writing to the dataset.
    """
    started_s = time.monotonic()
    listing = _list(config)
    requested = requested_charset(config)
    with locked_split(
        config.dataset_dir,
        config.dataset_split_name,
        owner=f"tfos-job convert of split {config.dataset_split_name}",
        requested=requested,
        num_channels=config.channels,
        overwrite=config.overwrite,
    ) as target:
        live = target.live
        up_to_date = live is not None and not _must_be_rebuilt(spark, config, target, live, listing)
        if live is not None and up_to_date:
            _log.info("%s is up to date (%d records): nothing to convert", target.layout.root, live.num_records)
            made = live
        else:
            charset = target.charset or requested or charsets.from_characters(listing.files_per_class)
            made = _build(spark.sparkContext, config, target, charset, listing)
            sweep_split(target.layout, made)
        log_image_split(target.layout, made, listing)
        return ConvertedImages.of(
            target.dataset,
            made,
            up_to_date=up_to_date,
            num_other_files=listing.num_other_files,
            started_s=started_s,
            num_channels=made.num_channels,
            num_unlisted=listing.num_unlisted,
        )


# --- before the work: what is there, and whether it is what was converted --------------------------------------------


def _list(config: ConvertConfig) -> ImageListing:
    image_dir = storage.absolute(config.input_dir)
    found = sources.images_below(image_dir)
    labels_csv = config.labels_csv
    labels = None
    if labels_csv is not None:
        labels = folders.parse_labels(read_text(labels_csv, "Save the labels as UTF-8"), labels_csv)
    listing = folders.listed(found, labels, image_dir, labels_csv or "")
    if not listing.files:
        raise MissingInputError(
            "; ".join([f"none of its {len(found)} files is an image", *listing.left_out_texts]),
            place=image_dir,
            next_step="Check --image_dir",
        )
    return listing


def _must_be_rebuilt(
    spark: Spark, config: ConvertConfig, target: LockedSplit, live: Manifest, listing: ImageListing
) -> bool:
    """True if the live split differs from what would be made now, or is damaged.

    With `--overwrite` shards are compared byte by byte.

    Raises:
      SettingsError: it must be rebuilt, and `--overwrite` was not given.
      BadDataError: the dataset's charset is not the one that the split was made with.
    """
    require_charset(target.dataset, target.charset, live)
    reasons = _changes(config, listing, live)
    reasons += shards.damage(spark, target.layout, live, compare_bytes=config.overwrite and not reasons)
    return must_be_rebuilt(target.layout, reasons, overwrite=config.overwrite)


def _changes(config: ConvertConfig, listing: ImageListing, live: Manifest) -> list[str]:
    then = live.images
    if then is None:
        return [f"it was made from {live.made_from}"]
    changes = []
    if listing.sha256 != then.sha256:
        changes += folders.changes(listing, then.num_files, then.size_bytes, then.files_per_class)
    if config.channels != live.num_channels:
        changes.append(f"--num_channels is {config.channels}, was {live.num_channels}")
    return changes + setting_changes(config, live)


# --- the work --------------------------------------------------------------------------------------------------------


def _build(
    context: SparkContext, config: ConvertConfig, target: LockedSplit, charset: Charset, listing: ImageListing
) -> Manifest:
    """Publishes the split. Returns its manifest."""
    with build_aside(target.layout, target.live) as building:
        files = [file for file in listing.files if file.label in charset.class_ids]
        written = _convert(context, config, building, charset, files)
        if config.shuffle_at_write:
            written = shards.mix(context, written, work_dir=building.work_dir, seed=config.seed)
        _require_few_bad_files(config, files, written.bad_ranges)
        manifest = _manifest(config, charset, building, written, listing)
        if not manifest.num_records:
            held = some([f"{label} × {count}" for label, count in listing.files_per_class.items()])
            raise BadDataError(
                f"no readable image is of the {len(charset)} classes; it holds {held}",
                place=config.input_dir,
                next_step="Check --image_dir and the charset",
            )
        publish(target, manifest, charset, building, written.bad_ranges)
    return manifest


def _convert(
    context: SparkContext, config: ConvertConfig, building: Building, charset: Charset, files: Sequence[ImageFile]
) -> WrittenShards:
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
    return WrittenShards(
        results=tuple(result.shard for result in results),
        bad_ranges=tuple(sorted(itertools.chain.from_iterable(result.bad_files for result in results))),
    )


def _require_few_bad_files(config: ConvertConfig, files: Sequence[ImageFile], bad_files: Sequence[BadRange]) -> None:
    """Fails if too many files, or too many of their bytes, are unreadable: empty and cut-off files have few bytes."""
    if not bad_files:
        return
    first = f"{bad_files[0].source}: {bad_files[0].reason}"
    require_few_bad(config, "images", len(bad_files), len(files), first)
    size_bytes = sum(file.size_bytes for file in files)
    require_few_bad(config, "bytes", sum(bad.end for bad in bad_files), size_bytes, first)


def _manifest(
    config: ConvertConfig, charset: Charset, building: Building, written: WrittenShards, listing: ImageListing
) -> Manifest:
    """The manifest of the split, whose shards are in place for it from here on."""
    filtered = {label: count for label, count in listing.files_per_class.items() if label not in charset.class_ids}
    return first_manifest(
        split_name=config.dataset_split_name,
        generation=building.generation,
        image_format=config.stored_format,
        charset=charset,
        shards=shards.collect(written.results, building.shards_dir, building.folder),
        class_counts=written.class_counts,
        settings={
            "image_dir": storage.absolute(config.input_dir),
            "labels_csv": config.labels_csv,
            **settings_of(config),
        },
        num_channels=config.channels,
        dataset_name=IMAGES,
        images=ImageFolder(
            sha256=listing.sha256,
            num_files=len(listing.files),
            size_bytes=listing.size_bytes,
            files_per_class=listing.files_per_class,
            num_unlisted=listing.num_unlisted,
            num_other_files=listing.num_other_files,
            filtered=filtered,
            quarantined={bad.source: bad.end for bad in written.bad_ranges},
        ),
    )
