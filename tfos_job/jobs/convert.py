"""`convert`: one split of a dataset from GNT shards. The driver's side: plan, run on Spark, publish.

What may be interrupted anywhere is kept right by the order of things. Under the dataset's lock, shards are built in a
folder of their own; then come charset.json, the quarantine files, ONE rename of the folder to `gen-…`, and the manifest
last. Readers begin at the manifest, so what a killed run left is not data, and the next run sweeps it away.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import functools
import itertools
import logging
import time
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job import __version__, storage
from tfos_job.config import DEFAULT_CHARSET_SIZE, ConvertConfig
from tfos_job.data import charset as charsets
from tfos_job.data import convert as work
from tfos_job.data import manifest as manifests
from tfos_job.data.charset import Charset
from tfos_job.data.gnt import BadRange
from tfos_job.data.manifest import Manifest
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.jobs import tasks
from tfos_job.layout import DatasetLayout, SplitLayout, generation_name, join
from tfos_job.lease import Lease

_NUM_NAMED = 10  # of a long list, a message names so many and counts the rest

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class ConvertResult:
    """What `convert` did. Counts are of the whole split; `num_filtered` are records that are not in the charset."""

    dataset_dir: str
    split_name: str
    up_to_date: bool
    generation: int
    num_records: int
    num_classes: int
    num_shards: int
    num_filtered: int
    quarantined_bytes: int
    quarantined_files: int
    dataset_digest: str
    charset_digest: str
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: the command's last line on stdout."""
        return dataclasses.asdict(self)


def convert(spark: SparkSession, config: ConvertConfig) -> ConvertResult:
    """Makes one split, unless it is there already and its input and settings are the same.

    Raises:
      MissingInputError: no GNT files.
      BadDataError: unreadable bytes with `fail`, too many of them with `quarantine`, or no record in the charset.
      SettingsError: the charset, the input or the settings are not those the dataset was made with.
      BusyError: another job is writing to the dataset.
    """
    started_s = time.monotonic()
    dataset = DatasetLayout(storage.absolute(config.dataset_dir))
    split = dataset.split(config.dataset_split_name)
    sources = _find_sources(storage.absolute(config.gnt_dir))
    with Lease(dataset.lock, f"tfos-job convert of split {config.dataset_split_name}") as lease:
        charset = _dataset_charset(dataset, config)
        live = _live_manifest(split, config)
        stale = live is None or _is_stale(config, sources, live, split)
        manifests.sweep(split, live)
        if live is not None and not stale:
            _log.info("%s is up to date (%d records): nothing to do", split.root, live.num_records)
            return _result(dataset, live, up_to_date=True, started_s=started_s)
        with _building_dir(split) as building_dir:
            generation = manifests.next_generation(split, live)
            made, bad_ranges, used_charset = _build(
                spark.sparkContext, config, sources, charset, generation, building_dir
            )
            lease.check()
            if charset is None:
                storage.write_json(dataset.charset, used_charset.to_json())
            manifests.publish(split, made, building_dir, bad_ranges)
        manifests.sweep(split, made)
        _log_account(split, made)
        return _result(dataset, made, up_to_date=False, started_s=started_s)


# --- before the work: what is asked, what is there ------------------------------------------------------------------


def _find_sources(gnt_dir: str) -> list[work.SourceFile]:
    entries = storage.find(gnt_dir, ".gnt")
    if not entries:
        raise MissingInputError("no *.gnt files in it", place=gnt_dir, next_step="Check --gnt_dir")
    start = len(gnt_dir.rstrip("/")) + 1
    return [work.SourceFile(entry.path[start:], entry.path, entry.size_bytes, entry.mtime_s) for entry in entries]


def _requested_charset(config: ConvertConfig) -> Charset | None:
    """The charset that the flags spell out; None for `auto` and where they say nothing."""
    if config.charset_size is not None:
        return charsets.level1(config.charset_size)
    if config.charset in (None, "auto"):
        return None
    try:
        return charsets.from_file(storage.read_bytes(str(config.charset)).decode("utf-8"), place=str(config.charset))
    except UnicodeDecodeError as error:
        raise SettingsError(
            f"not UTF-8: {error.reason} at byte {error.start}",
            place=str(config.charset),
            next_step="Save the characters as UTF-8",
        ) from error


def _dataset_charset(dataset: DatasetLayout, config: ConvertConfig) -> Charset | None:
    """The charset of the splits that are there; None where there are none.

    Raises:
      SettingsError: the flags ask for another one.
    """
    requested = _requested_charset(config)
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


def _live_manifest(split: SplitLayout, config: ConvertConfig) -> Manifest | None:
    if not storage.exists(split.manifest):
        return None
    try:
        return manifests.load(split)
    except BadDataError as error:
        if not config.overwrite:
            raise
        _log.warning("%s", error)
        return None


def _is_stale(config: ConvertConfig, sources: Sequence[work.SourceFile], live: Manifest, split: SplitLayout) -> bool:
    """Whether the split would be made otherwise now, or is damaged.

    Raises:
      SettingsError: so it is, and `--overwrite` was not given.
    """
    changes = [
        *_setting_changes(config, live),
        *work.source_changes(sources, live.sources),
        *manifests.damage(split, live),
    ]
    if changes and not config.overwrite:
        raise SettingsError(
            f"it is there, and not the same any more: {_some(changes)}",
            place=split.root,
            next_step="Give --overwrite to build it anew, or another --dataset_split_name",
        )
    return bool(changes)


def _setting_changes(config: ConvertConfig, live: Manifest) -> list[str]:
    changes = []
    if config.image_format != live.image_format:
        changes.append(f"--image_format is {config.image_format}, was {live.image_format}")
    if config.on_bad_record == "fail" and live.quarantined:
        changes.append(f"--on_bad_record is fail, but bytes of {len(live.quarantined)} file(s) are in quarantine")
    return changes


# --- the work --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def _building_dir(split: SplitLayout) -> Iterator[str]:
    """A folder to build a generation in. What is left of it at the end goes: all of it on failure."""
    path = split.building(uuid.uuid4().hex)
    storage.make_dirs(path)
    try:
        yield path
    finally:
        storage.discard_dir(path)
        if not storage.list_dir(split.root):
            storage.remove(split.root)  # a first conversion that failed leaves no trace of a split


def _build(
    context: SparkContext,
    config: ConvertConfig,
    sources: Sequence[work.SourceFile],
    charset: Charset | None,
    generation: int,
    building_dir: str,
) -> tuple[Manifest, list[BadRange], Charset]:
    """Writes the shards. Returns the manifest they need, what was unreadable, and the charset that was used."""
    plan = functools.partial(
        work.plan_tasks,
        sources,
        building_dir=building_dir,
        image_format=config.image_format,
        quarantine=config.on_bad_record == "quarantine",
    )
    if charset is None and config.charset == "auto":
        found = tasks.run(context, "scan", work.scan_tags, plan(characters=()))
        charset = _charset_of(itertools.chain.from_iterable(found), config)
    elif charset is None:
        charset = _requested_charset(config) or charsets.level1(DEFAULT_CHARSET_SIZE)
    _log.info(
        "converting %d files, %d bytes, for %d classes",
        len(sources),
        sum(source.size_bytes for source in sources),
        len(charset),
    )
    results = tasks.run(context, "convert", work.convert_group, plan(characters=charset.characters))
    bad_ranges = [bad for result in results for bad in result.bad_ranges]
    _require_few_bad_bytes(config, sources, bad_ranges)
    made = _manifest(config, charset, generation, results, bad_ranges)
    _require_records(config, made)
    return made, bad_ranges, charset


def _charset_of(characters: Iterator[str], config: ConvertConfig) -> Charset:
    found = set(characters)
    if not found:
        raise BadDataError("no readable record in any file", place=config.gnt_dir, next_step="Check --gnt_dir")
    return charsets.from_characters(found)


def _require_few_bad_bytes(
    config: ConvertConfig, sources: Sequence[work.SourceFile], bad_ranges: Sequence[BadRange]
) -> None:
    bad_bytes = sum(bad.end - bad.start for bad in bad_ranges)
    all_bytes = sum(source.size_bytes for source in sources)
    if bad_bytes > config.max_bad_fraction * all_bytes:
        first = bad_ranges[0]
        raise BadDataError(
            f"{bad_bytes} of {all_bytes} bytes are unreadable ({bad_bytes / all_bytes:.2%}), more than "
            f"--max_bad_fraction {config.max_bad_fraction:g}; the first: {first.source}, byte {first.start}: "
            f"{first.reason}",
            place=config.gnt_dir,
            next_step="Repair the files, or allow for more",
        )


def _require_records(config: ConvertConfig, made: Manifest) -> None:
    if made.num_records:
        return
    num_filtered = sum(made.filtered.values())
    if num_filtered:
        fact = f"none of its {num_filtered} records is of the {made.num_classes} classes; it holds "
        fact += _some(list(made.filtered))
    else:
        fact = "no readable record in any file"
    raise BadDataError(fact, place=config.gnt_dir, next_step="Check --gnt_dir and the charset")


def _manifest(
    config: ConvertConfig,
    charset: Charset,
    generation: int,
    results: Sequence[work.ShardResult],
    bad_ranges: Sequence[BadRange],
) -> Manifest:
    class_counts: Counter[int] = Counter()
    filtered: Counter[str] = Counter()
    quarantined: Counter[str] = Counter()
    for result in results:
        class_counts.update(result.class_counts)
        filtered.update(result.filtered)
    for bad in bad_ranges:
        quarantined[bad.source] += bad.end - bad.start
    folder = generation_name(generation)
    return Manifest(
        split_name=config.dataset_split_name,
        generation=generation,
        image_format=config.image_format,
        charset_digest=charset.digest,
        shards=tuple(dataclasses.replace(result.shard, file=join(folder, result.shard.file)) for result in results),
        class_counts=tuple(class_counts[class_id] for class_id in range(len(charset))),
        filtered=dict(sorted(filtered.items())),
        quarantined=dict(sorted(quarantined.items())),
        settings={
            "gnt_dir": config.gnt_dir,
            "on_bad_record": config.on_bad_record,
            "max_bad_fraction": config.max_bad_fraction,
        },
        created=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        package_version=__version__,
    )


# --- afterwards ------------------------------------------------------------------------------------------------------


def _log_account(split: SplitLayout, made: Manifest) -> None:
    """Says what is in the split, and what is not: nothing disappears without a line."""
    _log.info(
        "%s: %d records of %d classes in %d shards", split.root, made.num_records, made.num_classes, len(made.shards)
    )
    if made.filtered:
        counts = sorted(made.filtered.items(), key=lambda item: (-item[1], item[0]))
        _log.warning(
            "%d records are not in the charset and were left out: %s",
            sum(made.filtered.values()),
            _some([f"{character} × {count}" for character, count in counts]),
        )
    if made.quarantined:
        _log.warning(
            "%d bytes of %d files could not be read and are listed in %s: %s",
            sum(made.quarantined.values()),
            len(made.quarantined),
            split.quarantine_dir,
            _some(list(made.quarantined)),
        )


def _some(items: Sequence[str]) -> str:
    more = len(items) - _NUM_NAMED
    return ", ".join(items[:_NUM_NAMED]) + (f" and {more} more" if more > 0 else "")


def _result(dataset: DatasetLayout, manifest: Manifest, *, up_to_date: bool, started_s: float) -> ConvertResult:
    return ConvertResult(
        dataset_dir=dataset.root,
        split_name=manifest.split_name,
        up_to_date=up_to_date,
        generation=manifest.generation,
        num_records=manifest.num_records,
        num_classes=manifest.num_classes,
        num_shards=len(manifest.shards),
        num_filtered=sum(manifest.filtered.values()),
        quarantined_bytes=sum(manifest.quarantined.values()),
        quarantined_files=len(manifest.quarantined),
        dataset_digest=manifest.digest,
        charset_digest=manifest.charset_digest,
        seconds=round(time.monotonic() - started_s, 3),
    )
