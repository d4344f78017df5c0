"""`convert`: one split of a dataset from GNT shards. The driver's side: plan, run on Spark, publish.

What may be interrupted anywhere is kept right by the order of things. Under the dataset's lock, shards are built in a
folder of their own; then come charset.json, the quarantine files, ONE rename of the folder to `gen-…`, and the manifest
last. Readers begin at the manifest, so what a killed run left is not data, and the next run sweeps it away.

A split grows by generations: new source files become shards beside those that are there, and shards with records of a
file that has changed are copied without them.
"""

from __future__ import annotations

import dataclasses
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass

from pyspark import SparkContext

from tfos_job import storage
from tfos_job.config import DEFAULT_CHARSET_SIZE, ConvertConfig
from tfos_job.conversion import sources
from tfos_job.conversion.dataset import (
    must_be_rebuilt,
    requested_charset,
    require_charset,
    require_few_bad,
    setting_changes,
    some,
)
from tfos_job.conversion.generation import Building, build_aside, publish
from tfos_job.conversion.gnt_shard import GroupTask
from tfos_job.conversion.locked_split import LockedSplit, locked_split
from tfos_job.conversion.result import SplitResult, log_gnt_split
from tfos_job.conversion.rewrite import Stretch
from tfos_job.conversion.shard_plan import MIN_SHARDS, SourceFile, plan_groups
from tfos_job.conversion.source_changes import Changes, comparisons, source_changes
from tfos_job.conversion.split_manifest import (
    first_manifest,
    settings_of,
    updated_manifest,
    with_times,
)
from tfos_job.conversion.sweep import sweep_split
from tfos_job.driver import shards
from tfos_job.driver.compaction import compact
from tfos_job.driver.on_demand import Spark
from tfos_job.driver.shards import WrittenShards
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import join

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertResult(SplitResult):
    """The result of `convert --gnt_dir`.

    Attributes:
      num_added: source files that came with this run.
      num_replaced: source files that had changed.
      num_pruned: source files that are gone, and whose records are, too.
      num_gone: source files that are gone, and whose records are still there.
    """

    num_added: int
    num_replaced: int
    num_pruned: int
    num_gone: int


def convert(spark: Spark, config: ConvertConfig) -> ConvertResult:
    """Makes one split, or brings it up to date. If there is nothing to do, no SparkContext is asked for.

    Raises:
      MissingInputError: no GNT files, or a link among them that leads nowhere.
      BadDataError: a GNT file is none (a FIFO), or its name is no text; unreadable bytes with `fail`, too many of them
        with `quarantine`, or no record in the charset.
      SettingsError: the charset or the settings are not those the split was made with, or it is damaged.
      BusyError: another job is writing to the dataset.
    """
    started_s = time.monotonic()
    listing = sources.find(storage.absolute(config.input_dir))
    with locked_split(
        config.dataset_dir,
        config.dataset_split_name,
        owner=f"tfos-job convert of split {config.dataset_split_name}",
        requested=requested_charset(config),
        of_gnt=True,
        overwrite=config.overwrite,
    ) as target:
        live, changes = target.live, _changes(spark, listing.sources, target.live)
        if live is not None and _must_be_rebuilt(spark, config, target, live, changes):
            live, changes = None, _changes(spark, listing.sources, None)
        made = _update(spark, config, target, live, changes)
        if config.compact:
            made = compact(spark, config, target, made)
        sweep_split(target.layout, made)
        log_gnt_split(config, target.layout, made, listing, changes)
        return ConvertResult.of(
            target.dataset,
            made,
            up_to_date=live is not None and made.generation == live.generation,
            num_other_files=len(listing.left_out),
            started_s=started_s,
            num_added=len(changes.added),
            num_replaced=len(changes.changed),
            num_pruned=len(changes.gone) if config.prune else 0,
            num_gone=0 if config.prune else len(changes.gone),
        )


# --- before the work: what was asked for, what is there --------------------------------------------------------------


def _changes(spark: Spark, files: Sequence[SourceFile], live: Manifest | None) -> Changes:
    """The changes since the source files were converted, by their bytes if times and names do not tell."""
    converted = live.sources if live else ()
    return source_changes(files, converted, shards.same_bytes(spark, comparisons(files, converted)))


def _must_be_rebuilt(
    spark: Spark, config: ConvertConfig, target: LockedSplit, live: Manifest, changes: Changes
) -> bool:
    """True if the live split cannot be updated: these flags would make it differently, or it is damaged.

    With `--overwrite` shards are compared byte by byte: whoever gives it may know that one is bad.

    Raises:
      SettingsError: it must be rebuilt, and `--overwrite` was not given.
      BadDataError: the dataset's charset is not the one that the split was made with.
    """
    split = target.layout
    require_charset(target.dataset, target.charset, live)
    if changes.renamed and not (config.prune or config.overwrite):
        raise SettingsError(
            f"its records would be there twice: {some(changes.renamed)}",
            place=split.root,
            next_step="Give --prune to drop what is gone, or --overwrite to rebuild the split",
        )
    reasons = [] if live.sources else [f"it was made from {live.made_from}"]
    reasons += setting_changes(config, live)
    reasons += shards.damage(spark, split, live, compare_bytes=config.overwrite and not reasons)
    if config.shuffle_at_write and changes.words:
        reasons.append(f"its records are mixed over all of its shards (--shuffle_at_write), and {some(changes.words)}")
    rebuilt = must_be_rebuilt(split, reasons, overwrite=config.overwrite)
    return rebuilt or (config.overwrite and bool(changes.words))


# --- the work --------------------------------------------------------------------------------------------------------


def _update(
    spark: Spark, config: ConvertConfig, target: LockedSplit, live: Manifest | None, changes: Changes
) -> Manifest:
    """Publishes a generation with the new files, and without the removed ones. Returns the manifest that is live."""
    pruned = changes.gone if config.prune else ()
    drop = frozenset([*(source.name for source in changes.changed), *pruned])
    fresh = (*changes.added, *changes.changed)
    if live is not None and not fresh and not drop:
        return _up_to_date(target, live, changes)
    context = spark.sparkContext
    with build_aside(target.layout, live) as building:
        written, charset = WrittenShards(), target.charset
        if fresh:
            written, charset = _convert(context, config, fresh, charset, building, is_increment=live is not None)
        assert charset is not None  # the dataset has one if anything is live
        outdated = [shard for shard in (live.shards if live else ()) if not drop.isdisjoint(shard.sources)]
        rewritten = WrittenShards()
        if outdated:
            groups = [[Stretch(join(target.layout.root, shard.file), 0, shard.num_records)] for shard in outdated]
            rewritten = shards.rewrite_shards(context, groups, work_dir=building.work_dir, drop=drop)
        manifest = _manifest(config, charset, building, live, written, rewritten, changes, pruned)
        _require_records(config, manifest)
        publish(target, manifest, charset, building, written.bad_ranges)
    return manifest


def _up_to_date(target: LockedSplit, live: Manifest, changes: Changes) -> Manifest:
    """Writes the new times of files that have the same bytes, so that the next run need not read them again."""
    _log.info("%s is up to date (%d records): nothing to convert", target.layout.root, live.num_records)
    if changes.touched:
        live = with_times(live, changes.touched)
        target.lease.check()
        storage.write_json(target.layout.manifest, live.to_json())
    return live


def _convert(
    context: SparkContext,
    config: ConvertConfig,
    files: Sequence[SourceFile],
    charset: Charset | None,
    building: Building,
    *,
    is_increment: bool,
) -> tuple[WrittenShards, Charset]:
    """Makes shards of source files. Returns them, and the charset that was used."""
    groups = plan_groups(files, config.target_shard_mb << 20, 1 if is_increment else MIN_SHARDS)

    def group_tasks(characters: tuple[str, ...]) -> list[GroupTask]:
        return shards.group_tasks(
            groups,
            work_dir=building.work_dir,
            characters=characters,
            image_format=config.stored_format,
            quarantine=config.on_bad_record == "quarantine",
        )

    if charset is None and config.charset == "auto":
        charset = _charset_of(shards.scan(context, group_tasks(())), config)
    elif charset is None:
        charset = requested_charset(config) or charsets.level1(DEFAULT_CHARSET_SIZE)
    size_bytes = sum(file.size_bytes for file in files)
    _log.info("converting %d files, %d bytes, for %d classes", len(files), size_bytes, len(charset))
    written = shards.convert(context, group_tasks(charset.characters))
    if written.bad_ranges:
        first = written.bad_ranges[0]
        bad_bytes = sum(bad.end - bad.start for bad in written.bad_ranges)
        place = f"{first.source}, byte {first.start}: {first.reason}"
        require_few_bad(config, "bytes", bad_bytes, size_bytes, place)
    if config.shuffle_at_write:
        written = shards.mix(context, written, work_dir=building.work_dir, seed=config.seed)
    return written, charset


def _charset_of(found: set[str], config: ConvertConfig) -> Charset:
    if not found:
        raise BadDataError("no readable record in any file", place=config.input_dir, next_step="Check --gnt_dir")
    return charsets.from_characters(found)


def _manifest(
    config: ConvertConfig,
    charset: Charset,
    building: Building,
    live: Manifest | None,
    written: WrittenShards,
    rewritten: WrittenShards,
    changes: Changes,
    pruned: Sequence[str],
) -> Manifest:
    """The manifest of the split with a new generation, whose shards are in place for it from here on."""
    gnt_dir = storage.absolute(config.input_dir)
    new_shards = shards.collect(written.results + rewritten.results, building.shards_dir, building.folder)
    added = [dataclasses.replace(source, generation=building.generation) for source in written.sources]
    if live is None:
        return first_manifest(
            split_name=config.dataset_split_name,
            generation=building.generation,
            image_format=config.stored_format,
            charset=charset,
            shards=new_shards,
            class_counts=written.class_counts,
            settings={"gnt_dir": gnt_dir, **settings_of(config)},
            sources=added,
        )
    outdated = {source.name for source in changes.changed}.union(pruned)
    untouched = [shard for shard in live.shards if outdated.isdisjoint(shard.sources)]
    return updated_manifest(
        live,
        generation=building.generation,
        gnt_dir=gnt_dir,
        changes=changes,
        pruned=pruned,
        added=added,
        added_counts=written.class_counts,
        dropped_counts=rewritten.dropped_counts,
        shards=[*untouched, *new_shards],
    )


def _require_records(config: ConvertConfig, made: Manifest) -> None:
    if made.num_records:
        return
    num_filtered = sum(made.filtered.values())
    if num_filtered:
        fact = f"none of its {num_filtered} records is of the {made.num_classes} classes; it holds "
        fact += some(list(made.filtered))
    else:
        fact = "no readable record in any file"
    raise BadDataError(fact, place=config.input_dir, next_step="Check --gnt_dir and the charset")
