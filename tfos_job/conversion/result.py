"""The end of a conversion: what is in the split, and what was left out."""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

from tfos_job import storage
from tfos_job.config import ConvertConfig
from tfos_job.conversion.dataset import some
from tfos_job.conversion.folders import ImageListing
from tfos_job.conversion.source_changes import Changes
from tfos_job.conversion.sources import SourceListing
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import DatasetLayout, SplitLayout

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """The result of `convert`. Counts are of the whole split.

    Attributes:
      num_empty_classes: classes without a record.
      num_filtered: records, or images, whose class is not in the charset.
      num_other_files: files, and hidden folders, that were left out by their names.
    """

    dataset_dir: str
    split_name: str
    up_to_date: bool
    generation: int
    num_records: int
    num_classes: int
    num_empty_classes: int
    num_shards: int
    num_filtered: int
    num_other_files: int
    quarantined_bytes: int
    quarantined_files: int
    dataset_digest: str
    charset_digest: str
    seconds: float

    @classmethod
    def of(
        cls,
        dataset: DatasetLayout,
        manifest: Manifest,
        *,
        up_to_date: bool,
        num_other_files: int,
        started_s: float,
        **more: int,
    ) -> Self:
        """The result of a conversion.

        Args:
          dataset: the dataset.
          manifest: the split's, which is live now.
          up_to_date: there was nothing to convert.
          num_other_files: see the attribute.
          started_s: by the monotonic clock.
          **more: the fields of the subclass.
        """
        return cls(
            dataset_dir=dataset.root,
            split_name=manifest.split_name,
            up_to_date=up_to_date,
            generation=manifest.generation,
            num_records=manifest.num_records,
            num_classes=manifest.num_classes,
            num_empty_classes=manifest.num_empty_classes,
            num_shards=len(manifest.shards),
            num_filtered=sum(manifest.filtered.values()),
            num_other_files=num_other_files,
            quarantined_bytes=sum(manifest.quarantined.values()),
            quarantined_files=len(manifest.quarantined),
            dataset_digest=manifest.digest,
            charset_digest=manifest.charset_digest,
            seconds=round(time.monotonic() - started_s, 3),
            **more,
        )

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: the command's last line on stdout."""
        return dataclasses.asdict(self)


def log_gnt_split(
    config: ConvertConfig, split: SplitLayout, made: Manifest, listing: SourceListing, changes: Changes
) -> None:
    """Says what is in a split of GNT files, and what is not: nothing disappears without a line."""
    _log_size(split, made)
    if listing.left_out:
        _log.warning("%s: %s", storage.absolute(config.input_dir), listing.left_out_text)
    if changes.gone and not config.prune:
        _log.warning(
            "%d source files are not there any more, and their records still are (--prune drops them): %s",
            len(changes.gone),
            some(changes.gone),
        )
    if made.filtered:
        _log.warning(
            "%d records are not in the charset and were left out: %s",
            sum(made.filtered.values()),
            by_frequency(made.filtered),
        )
    if made.quarantined:
        _log.warning(
            "%d bytes of %d files could not be read and are listed in %s: %s",
            sum(made.quarantined.values()),
            len(made.quarantined),
            split.quarantine_dir,
            some(list(made.quarantined)),
        )


def log_image_split(split: SplitLayout, made: Manifest, listing: ImageListing) -> None:
    """Says what is in a split of image files, and what is not: nothing disappears without a line."""
    _log_size(split, made)
    for left_out in listing.left_out_texts:
        _log.warning("%s", left_out)
    if listing.merged:
        _log.warning("folders whose names differ in blanks or accents alone are one class: %s", some(listing.merged))
    if listing.num_unlisted:
        _log.warning("%d images are not in the labels and were left out", listing.num_unlisted)
    if made.filtered:
        _log.warning(
            "%d images are of classes that are not in the charset and were left out: %s",
            sum(made.filtered.values()),
            by_frequency(made.filtered),
        )
    if made.quarantined:
        _log.warning(
            "%d images could not be read and are listed in %s: %s",
            len(made.quarantined),
            split.quarantine_dir,
            some(list(made.quarantined)),
        )


def log_adopted_split(split: SplitLayout, made: Manifest, folder: str, warnings: Sequence[str]) -> None:
    """Says what is in a split of adopted shards, and what somebody should look at."""
    _log_size(split, made)
    _log.info("its shards stay in %s, and are %s", folder, "grey" if made.num_channels == 1 else "read in colour")
    for warning in warnings:
        _log.warning("%s", warning)


def _log_size(split: SplitLayout, manifest: Manifest) -> None:
    _log.info(
        "%s: %d records of %d classes in %d shards",
        split.root,
        manifest.num_records,
        manifest.num_classes,
        len(manifest.shards),
    )
    num_empty = manifest.num_empty_classes
    if num_empty:
        advice = (
            ". If no other file brings them, convert all splits into a new --dataset_dir, the first with --charset "
            f"auto, which has the {manifest.num_classes - num_empty} that are there"
        )
        _log.warning(
            "%d of the %d classes have no record in this split: a network has outputs for them, too%s",
            num_empty,
            manifest.num_classes,
            advice if manifest.adoption is None else "",  # labels are as they are in the records
        )


def by_frequency(counts: Mapping[str, int]) -> str:
    """The most frequent of what was counted, with their numbers."""
    ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return some([f"{name} × {count}" for name, count in ordered])
