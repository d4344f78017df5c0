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
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job import __version__, storage
from tfos_job.config import DEFAULT_CHARSET_SIZE, ConvertConfig
from tfos_job.conversion import sources
from tfos_job.conversion.dataset import (
    Building,
    build_aside,
    dataset_charset,
    must_be_rebuilt,
    now,
    publish,
    requested_charset,
    require_charset,
    require_same_channels,
    setting_changes,
    some,
    swept_manifest,
)
from tfos_job.conversion.gnt_shard import Changes, GroupTask, comparisons, source_changes
from tfos_job.conversion.rewrite import Stretch
from tfos_job.conversion.shard_plan import MIN_SHARDS, SourceFile, plan_groups
from tfos_job.conversion.sources import Listing
from tfos_job.driver import shards
from tfos_job.driver.shards import Made
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.formats import charset as charsets
from tfos_job.formats import manifest as manifests
from tfos_job.formats.charset import Charset
from tfos_job.formats.gnt import BadRange
from tfos_job.formats.manifest import Manifest, Revision, Shard, Source
from tfos_job.layout import DatasetLayout, SplitLayout, generation_name, join
from tfos_job.lease import Lease

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """What `convert` did. Counts are of the whole split; `num_filtered` are records that are not in the charset.

    Attributes:
      num_other_files: files, and hidden folders, that were left out by their names.
      num_added: source files that came with this run.
      num_replaced: source files that had changed.
      num_pruned: source files that are gone, and whose records are, too.
      num_gone: source files that are gone, and whose records are still there.
    """

    dataset_dir: str
    split_name: str
    up_to_date: bool
    generation: int
    num_records: int
    num_classes: int
    num_shards: int
    num_filtered: int
    num_other_files: int
    quarantined_bytes: int
    quarantined_files: int
    num_added: int
    num_replaced: int
    num_pruned: int
    num_gone: int
    dataset_digest: str
    charset_digest: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: the command's last line on stdout."""
        return dataclasses.asdict(self)


def convert(spark: SparkSession, config: ConvertConfig) -> ConvertResult:
    """Makes one split, or brings it up to date.

    Raises:
      MissingInputError: no GNT files, or a link among them that leads nowhere.
      BadDataError: a GNT file is none (a FIFO), or its name is no text; unreadable bytes with `fail`, too many of them
        with `quarantine`, or no record in the charset.
      SettingsError: the charset or the settings are not those the split was made with, or it is damaged.
      BusyError: another job is writing to the dataset.
    """
    started_s = time.monotonic()
    dataset = DatasetLayout(storage.absolute(config.dataset_dir))
    split = dataset.split(config.dataset_split_name)
    listing = sources.find(storage.absolute(config.input_dir))
    with Lease(dataset.lock, f"tfos-job convert of split {config.dataset_split_name}") as lease:
        context = spark.sparkContext
        charset = dataset_charset(dataset, requested_charset(config))
        _require_tags(dataset, charset)
        require_same_channels(dataset, config.dataset_split_name, 1)
        live = swept_manifest(dataset, split, overwrite=config.overwrite)
        changes = _changes(context, listing.sources, live)
        if live is not None and _must_be_rebuilt(context, config, changes, live, split, charset):
            live, changes = None, _changes(context, listing.sources, None)
        made = _update(context, config, dataset, split, live, charset, changes, lease)
        if config.compact:
            made = _compact(context, config, split, made, lease)
        manifests.sweep(split, made)
        _log_account(split, made, listing, changes, config)
        return _result(
            dataset,
            made,
            listing,
            changes,
            config,
            up_to_date=live is not None and made.generation == live.generation,
            started_s=started_s,
        )


# --- before the work: what is asked, what is there ------------------------------------------------------------------


def _require_tags(dataset: DatasetLayout, charset: Charset | None) -> None:
    """Raises SettingsError where the dataset has classes of images that no GNT file can hold."""
    try:
        _ = charset.tags if charset else ()
    except SettingsError as error:
        raise SettingsError(
            error.fact, place=dataset.charset, next_step="These are classes of images: give another --dataset_dir"
        ) from error


def _changes(context: SparkContext, files: Sequence[SourceFile], live: Manifest | None) -> Changes:
    """In what the source files are not those that were converted, by their bytes where times and names do not tell."""
    then = live.sources if live else ()
    return source_changes(files, then, shards.same_bytes(context, comparisons(files, then)))


def _must_be_rebuilt(
    context: SparkContext,
    config: ConvertConfig,
    changes: Changes,
    live: Manifest,
    split: SplitLayout,
    charset: Charset | None,
) -> bool:
    """Whether what is live cannot be built upon: it would be made otherwise now, or is damaged.

    With `--overwrite` shards are looked at byte by byte: whoever gives it may know that one is bad.

    Raises:
      SettingsError: so it is, and `--overwrite` was not given.
      BadDataError: the dataset's charset is not the one that the split was made with.
    """
    require_charset(DatasetLayout(config.dataset_dir), charset, live)
    if changes.renamed and not (config.prune or config.overwrite):
        raise SettingsError(
            f"its records would be there twice: {some(changes.renamed)}",
            place=split.root,
            next_step="Give --prune to drop what is gone, or --overwrite to build the split anew",
        )
    reasons = [] if live.sources else ["it was made from " + ("images" if live.images else "a DataFrame")]
    reasons += [*setting_changes(config, live), *manifests.damage(split, live)]
    if config.overwrite and not reasons:
        reasons = shards.damaged(context, split, live)
    if config.shuffle_at_write and changes.words:
        reasons.append(f"its records are mixed over all of its shards (--shuffle_at_write), and {some(changes.words)}")
    rebuilt = must_be_rebuilt(split, reasons, overwrite=config.overwrite)
    return rebuilt or (config.overwrite and bool(changes.words))


# --- the work --------------------------------------------------------------------------------------------------------


def _update(
    context: SparkContext,
    config: ConvertConfig,
    dataset: DatasetLayout,
    split: SplitLayout,
    live: Manifest | None,
    charset: Charset | None,
    changes: Changes,
    lease: Lease,
) -> Manifest:
    """Publishes a generation with what is new, and without what is not any more. Returns the manifest that is live."""
    pruned = changes.gone if config.prune else ()
    drop = frozenset([*(source.name for source in changes.changed), *pruned])
    fresh = (*changes.added, *changes.changed)
    if live is not None and not fresh and not drop:
        _log.info("%s is up to date (%d records): nothing to convert", split.root, live.num_records)
        if changes.touched:  # the next run need not read them again
            live = _with_times(live, changes.touched)
            lease.check()
            storage.write_json(split.manifest, live.to_json())
        return live
    with build_aside(split, live) as building:
        made = carried = Made()
        if fresh:
            made, charset = _convert(context, config, fresh, charset, building, is_increment=live is not None)
        assert charset is not None  # the dataset has one, where anything is live
        live_shards = live.shards if live else ()
        untouched = [shard for shard in live_shards if drop.isdisjoint(shard.sources)]
        touched = [shard for shard in live_shards if not drop.isdisjoint(shard.sources)]
        if touched:
            groups = [[Stretch(join(split.root, shard.file), 0, shard.num_records)] for shard in touched]
            carried = shards.rewrite_shards(context, groups, work_dir=building.work_dir, drop=drop)
        manifest = _manifest(config, charset, building, live, made, carried, untouched, changes, pruned)
        _require_records(config, manifest)
        publish(dataset, split, manifest, charset, building, made.bad_ranges, lease)
    return manifest


def _with_times(live: Manifest, touched: Sequence[SourceFile]) -> Manifest:
    """The manifest with the times that files of the same bytes have now."""
    times = {file.name: file.mtime_s for file in touched}
    updated = [dataclasses.replace(source, mtime_s=times.get(source.name, source.mtime_s)) for source in live.sources]
    return dataclasses.replace(live, sources=tuple(updated))


def _compact(
    context: SparkContext, config: ConvertConfig, split: SplitLayout, live: Manifest, lease: Lease
) -> Manifest:
    """Copies the shards of several generations into a single one."""
    if len({shard.file.partition("/")[0] for shard in live.shards}) == 1:
        return live
    by_file = {shard.file: shard for shard in live.shards}
    pseudo_files = [SourceFile(shard.file, shard.file, shard.size_bytes, 0.0) for shard in live.shards]
    groups: list[list[Stretch]] = []
    # The flag counts bytes of sources, and shards may be packed.
    packing = sum(shard.size_bytes for shard in live.shards) / sum(source.size_bytes for source in live.sources)
    for pieces in plan_groups(pseudo_files, max(1, int((config.target_shard_mb << 20) * packing))):
        groups.append([])
        for piece in pieces:
            shard = by_file[piece.source.name]
            first, last = (at * shard.num_records // max(shard.size_bytes, 1) for at in (piece.start, piece.stop))
            groups[-1].append(Stretch(join(split.root, shard.file), first, last))
    with build_aside(split, live) as building:
        made = shards.rewrite_shards(context, groups, work_dir=building.work_dir, name="compact")
        new_shards = shards.collect(made.results, building.shards_dir, generation_name(building.generation))
        manifest = _revised(
            live,
            Revision(
                generation=building.generation,
                created=now(),
                num_records=live.num_records,
                compacted=True,
            ),
            storage.absolute(config.input_dir),
            shards=new_shards,
        )
        found = {class_id: count for class_id, count in made.class_counts.items() if count}
        expected = {class_id: count for class_id, count in enumerate(live.class_counts) if count}
        if manifest.num_records != live.num_records or found != expected:
            raise BadDataError(
                f"its shards hold {manifest.num_records} records, its manifest says {live.num_records}, or other "
                "classes",
                place=split.root,
                next_step="Run `verify` on the split, and convert it again with --overwrite",
            )
        lease.check()
        manifests.publish(split, manifest, building.shards_dir, ())
    return manifest


def _convert(
    context: SparkContext,
    config: ConvertConfig,
    files: Sequence[SourceFile],
    charset: Charset | None,
    building: Building,
    *,
    is_increment: bool,
) -> tuple[Made, Charset]:
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
    made = shards.convert(context, group_tasks(charset.characters))
    _require_few_bad_bytes(config, files, made.bad_ranges)
    if config.shuffle_at_write:
        made = shards.mix(context, made, work_dir=building.work_dir, seed=config.seed)
    return made, charset


def _charset_of(found: set[str], config: ConvertConfig) -> Charset:
    if not found:
        raise BadDataError("no readable record in any file", place=config.input_dir, next_step="Check --gnt_dir")
    return charsets.from_characters(found)


def _require_few_bad_bytes(config: ConvertConfig, files: Sequence[SourceFile], bad_ranges: Sequence[BadRange]) -> None:
    bad_bytes = sum(bad.end - bad.start for bad in bad_ranges)
    all_bytes = sum(file.size_bytes for file in files)
    if bad_bytes > config.max_bad_fraction * all_bytes:
        first = bad_ranges[0]
        raise BadDataError(
            f"{bad_bytes} of {all_bytes} bytes are unreadable ({bad_bytes / all_bytes:.2%}), more than "
            f"--max_bad_fraction {config.max_bad_fraction:g}; the first: {first.source}, byte {first.start}: "
            f"{first.reason}",
            place=config.input_dir,
            next_step="Repair the files, or allow for more",
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


def _manifest(
    config: ConvertConfig,
    charset: Charset,
    building: Building,
    live: Manifest | None,
    made: Made,
    carried: Made,
    untouched: Sequence[Shard],
    changes: Changes,
    pruned: Sequence[str],
) -> Manifest:
    """The manifest of the split with a new generation, whose shards are in place for it from here on."""
    generation = building.generation
    new_shards = shards.collect(made.results + carried.results, building.shards_dir, generation_name(generation))
    fresh = [dataclasses.replace(source, generation=generation) for source in made.sources]
    replaced = tuple(source.name for source in changes.changed)
    outdated = {*replaced, *pruned}
    kept: list[Source] = []
    if live is not None:
        kept = [source for source in _with_times(live, changes.touched).sources if source.name not in outdated]
    counts = Counter(dict(enumerate(live.class_counts)) if live else {})
    counts.update(made.class_counts)
    counts.subtract(carried.dropped_counts)
    all_shards = (*untouched, *new_shards)
    created = now()
    revision = Revision(
        generation=generation,
        created=created,
        num_records=sum(shard.num_records for shard in all_shards),
        num_added=len(changes.added),
        replaced=replaced,
        pruned=tuple(pruned),
    )
    all_sources = tuple(sorted([*kept, *fresh], key=lambda source: source.name))
    class_counts = tuple(counts[class_id] for class_id in range(len(charset)))
    if live is not None:
        return _revised(
            live,
            revision,
            storage.absolute(config.input_dir),
            shards=all_shards,
            sources=all_sources,
            class_counts=class_counts,
        )
    return Manifest(
        split_name=config.dataset_split_name,
        generation=generation,
        image_format=config.stored_format,
        charset_digest=charset.digest,
        shards=all_shards,
        sources=all_sources,
        class_counts=class_counts,
        settings={
            "gnt_dir": storage.absolute(config.input_dir),
            "on_bad_record": config.on_bad_record,
            "max_bad_fraction": config.max_bad_fraction,
            "shuffle_at_write": config.shuffle_at_write,
            "target_shard_mb": config.target_shard_mb,
            "seed": config.seed,
        },
        history=(revision,),
        created=created,
        package_version=__version__,
    )


def _revised(live: Manifest, revision: Revision, gnt_dir: str, **changes: Any) -> Manifest:
    return dataclasses.replace(
        live,
        generation=revision.generation,
        created=revision.created,
        settings={**live.settings, "gnt_dir": gnt_dir},
        history=(*live.history, revision),
        package_version=__version__,
        **changes,
    )


# --- afterwards ------------------------------------------------------------------------------------------------------


def _log_account(split: SplitLayout, made: Manifest, listing: Listing, changes: Changes, config: ConvertConfig) -> None:
    """Says what is in the split, and what is not: nothing disappears without a line."""
    _log.info(
        "%s: %d records of %d classes in %d shards", split.root, made.num_records, made.num_classes, len(made.shards)
    )
    if listing.left_out:
        _log.warning("%s: %s", storage.absolute(config.input_dir), listing.account)
    if changes.gone and not config.prune:
        _log.warning(
            "%d source files are not there any more, and their records still are (--prune drops them): %s",
            len(changes.gone),
            some(changes.gone),
        )
    if made.filtered:
        counts = sorted(made.filtered.items(), key=lambda item: (-item[1], item[0]))
        _log.warning(
            "%d records are not in the charset and were left out: %s",
            sum(made.filtered.values()),
            some([f"{character} × {count}" for character, count in counts]),
        )
    if made.quarantined:
        _log.warning(
            "%d bytes of %d files could not be read and are listed in %s: %s",
            sum(made.quarantined.values()),
            len(made.quarantined),
            split.quarantine_dir,
            some(list(made.quarantined)),
        )


def _result(
    dataset: DatasetLayout,
    manifest: Manifest,
    listing: Listing,
    changes: Changes,
    config: ConvertConfig,
    *,
    up_to_date: bool,
    started_s: float,
) -> ConvertResult:
    return ConvertResult(
        dataset_dir=dataset.root,
        split_name=manifest.split_name,
        up_to_date=up_to_date,
        generation=manifest.generation,
        num_records=manifest.num_records,
        num_classes=manifest.num_classes,
        num_shards=len(manifest.shards),
        num_filtered=sum(manifest.filtered.values()),
        num_other_files=len(listing.left_out),
        quarantined_bytes=sum(manifest.quarantined.values()),
        quarantined_files=len(manifest.quarantined),
        num_added=len(changes.added),
        num_replaced=len(changes.changed),
        num_pruned=len(changes.gone) if config.prune else 0,
        num_gone=0 if config.prune else len(changes.gone),
        dataset_digest=manifest.digest,
        charset_digest=manifest.charset_digest,
        seconds=round(time.monotonic() - started_s, 3),
    )
