"""Spark jobs that turn source files, or live shards, into a folder of shards. Runs on the driver.

Tasks write to `work_dir` under names of their own. What one run of each task has made is moved to `shards_dir`, so that
what others have made (a task that Spark ran twice, or that was lost half-way) stays behind and is removed with
`work_dir`.
"""

from __future__ import annotations

import dataclasses
import itertools
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pyspark import SparkContext

from tfos_job import storage
from tfos_job.conversion import digests, generation, gnt_shard, rewrite
from tfos_job.conversion.gnt_shard import CutTask, GroupTask
from tfos_job.conversion.rewrite import DealTask, GatherTask, RewriteTask, Stretch
from tfos_job.conversion.shard_file import PieceResult, ShardResult
from tfos_job.conversion.shard_plan import Piece, SourceFile
from tfos_job.conversion.source_changes import Comparison
from tfos_job.driver import tasks
from tfos_job.driver.on_demand import Spark
from tfos_job.driver.task_attempts import TaskFailure
from tfos_job.errors import BadDataError
from tfos_job.formats.manifest import Manifest, shard_paths
from tfos_job.formats.manifest_parts import Shard, Source
from tfos_job.formats.quarantine import BadRange
from tfos_job.layout import SplitLayout, join, shard_name

Key = TypeVar("Key", int, str)
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class WrittenShards:
    """The results of tasks: shards that lie in `work_dir`, and what was read and counted.

    Attributes:
      results: one a shard.
      sources: the files that were read, without their generation (0).
      bad_ranges: in them.
    """

    results: tuple[ShardResult, ...] = ()
    sources: tuple[Source, ...] = ()
    bad_ranges: tuple[BadRange, ...] = ()

    @property
    def class_counts(self) -> Counter[int]:
        """Records in the shards, by class id."""
        return _sum(result.class_counts for result in self.results)

    @property
    def dropped_counts(self) -> Counter[int]:
        """Records that were in the shards these were made of, and are not in these, by class id."""
        return _sum(result.dropped_counts for result in self.results)


def _sum(counts: Iterable[Mapping[Key, int]]) -> Counter[Key]:
    total: Counter[Key] = Counter()
    for part in counts:
        total.update(part)
    return total


def group_tasks(
    groups: Sequence[tuple[Piece, ...]],
    *,
    work_dir: str,
    characters: tuple[str, ...],
    image_format: str,
    quarantine: bool,
) -> list[GroupTask]:
    """One task a shard; see `GroupTask`."""
    return [
        GroupTask(
            shard_file=shard_name(index, len(groups)),
            pieces=group,
            building_dir=work_dir,
            characters=characters,
            image_format=image_format,
            quarantine=quarantine,
        )
        for index, group in enumerate(groups)
    ]


def scan(context: SparkContext, group_tasks: Sequence[GroupTask]) -> set[str]:
    """The characters that the pieces of all tasks hold."""
    found = tasks.results(tasks.run(context, "scan", gnt_shard.scan_tags, group_tasks))
    return set(itertools.chain.from_iterable(found))


def convert(context: SparkContext, group_tasks: Sequence[GroupTask]) -> WrittenShards:
    """Makes shards of source files.

    Where a file was cut, the reader of the second part has to guess where a record begins. It has guessed right if the
    first part's reader came to an end there; if not, or if a task failed that had to guess, the files concerned
    are read from their beginnings to see where they must be cut, and those tasks are run again.

    Raises:
      JobError: of the first task that failed, in file order.
    """
    outcomes = tasks.run(context, "convert", gnt_shard.convert_group, group_tasks)
    while doubtful := _doubtful(group_tasks, outcomes):
        _log.info("%d files were not cut where a record begins: reading them once more", len(doubtful))
        exact = _cut_again(context, group_tasks, doubtful)
        again = [i for i, task in enumerate(exact) if task != group_tasks[i]]
        for index, outcome in zip(
            again, tasks.run(context, "convert", gnt_shard.convert_group, [exact[i] for i in again]), strict=True
        ):
            outcomes[index] = outcome
        group_tasks = exact
    results = tasks.results(outcomes)
    files = {piece.source.name: piece.source for task in group_tasks for piece in task.pieces}
    pieces = _by_source(result.pieces for result in results)
    sources = tuple(_source(files[name], pieces[name]) for name in sorted(files))
    return WrittenShards(
        results=tuple(results),
        sources=sources,
        bad_ranges=tuple(bad for name in sorted(files) for piece in pieces[name] for bad in piece.bad_ranges),
    )


def _by_source(groups: Iterable[Iterable[PieceResult]]) -> dict[str, list[PieceResult]]:
    found: dict[str, list[PieceResult]] = {}
    for piece in itertools.chain.from_iterable(groups):
        found.setdefault(piece.name, []).append(piece)
    return found


def _source(file: SourceFile, pieces: Sequence[PieceResult]) -> Source:
    return Source(
        name=file.name,
        size_bytes=file.size_bytes,
        mtime_s=file.mtime_s,
        num_records=sum(piece.num_records for piece in pieces),
        filtered=dict(sorted(_sum(piece.filtered for piece in pieces).items())),
        quarantined_bytes=sum(bad.end - bad.start for piece in pieces for bad in piece.bad_ranges),
        generation=0,
        ranges=tuple(piece.range for piece in pieces),
        archive=file.archive,
    )


def _doubtful(group_tasks: Sequence[GroupTask], outcomes: Sequence[ShardResult | TaskFailure]) -> set[str]:
    """Names of files whose parts do not meet, or of which a part failed that had to guess its beginning."""
    doubtful, incomplete = set(), set()
    for task, outcome in zip(group_tasks, outcomes, strict=True):
        if isinstance(outcome, TaskFailure):
            incomplete |= {piece.source.name for piece in task.pieces}
            if isinstance(outcome.error, BadDataError):
                doubtful |= {piece.source.name for piece in task.pieces if piece.within}
    guessed = {piece.source.name for task in group_tasks for piece in task.pieces if piece.within}
    good = [outcome.pieces for outcome in outcomes if isinstance(outcome, ShardResult)]
    for name, pieces in _by_source(good).items():
        ends = [0, *(piece.range.end for piece in pieces)]
        if name in guessed - incomplete and [piece.range.start for piece in pieces] != ends[:-1]:
            doubtful.add(name)
    return doubtful


def _cut_again(context: SparkContext, group_tasks: Sequence[GroupTask], names: set[str]) -> list[GroupTask]:
    """The tasks with the named files cut where records begin. Raises what is wrong with such a file from its start."""
    stops: dict[str, list[int]] = {name: [] for name in sorted(names)}
    files: dict[str, SourceFile] = {}
    for task in group_tasks:
        for piece in task.pieces:
            if piece.source.name in names:
                files[piece.source.name] = piece.source
                stops[piece.source.name].append(piece.stop)
    cut_tasks = [CutTask(files[name], tuple(stops[name]), group_tasks[0].quarantine) for name in stops]
    found = tasks.results(tasks.run(context, "cut", gnt_shard.find_cuts, cut_tasks))
    bounds = {name: iter(itertools.pairwise((0, *cuts))) for name, cuts in zip(stops, found, strict=True)}

    def exact(piece: Piece) -> Piece:
        if piece.source.name not in bounds:
            return piece
        start, stop = next(bounds[piece.source.name])
        return Piece(piece.source, start, stop)

    return [dataclasses.replace(task, pieces=tuple(exact(piece) for piece in task.pieces)) for task in group_tasks]


def same_bytes(spark: Spark, comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The comparisons whose file has the bytes of the source. None need no Spark."""
    if not comparisons:
        return []
    found = tasks.results(tasks.run(spark.sparkContext, "compare", digests.has_same_bytes, comparisons))
    return [comparison for comparison, same in zip(comparisons, found, strict=True) if same]


def damage(spark: Spark, split: SplitLayout, live: Manifest, *, compare_bytes: bool) -> list[str]:
    """Live shards that are missing or have another size than in the manifest, in words.

    If there are none and `compare_bytes` is on, those that have another digest.
    """
    found = generation.damage(split, live)
    return found or (_changed_shards(spark.sparkContext, split, live) if compare_bytes else [])


def _changed_shards(context: SparkContext, split: SplitLayout, live: Manifest) -> list[str]:
    to_hash = [(path, shard.size_bytes) for path, shard in zip(shard_paths(split, live), live.shards, strict=True)]
    found = tasks.results(tasks.run(context, "hash", digests.file_sha256, to_hash))
    return [
        f"{shard.file} has other bytes than were written"
        for shard, sha256 in zip(live.shards, found, strict=True)
        if sha256 != shard.sha256
    ]


def rewrite_shards(
    context: SparkContext,
    groups: Sequence[Sequence[Stretch]],
    *,
    work_dir: str,
    drop: frozenset[str] = frozenset(),
    name: str = "rewrite",
) -> WrittenShards:
    """Makes a new shard of each group of stretches of live ones, without the records of sources in `drop`."""
    rewrite_tasks = [
        RewriteTask(shard_file=shard_name(index, len(groups)), stretches=tuple(group), building_dir=work_dir, drop=drop)
        for index, group in enumerate(groups)
    ]
    return WrittenShards(results=tuple(tasks.results(tasks.run(context, name, rewrite.rewrite, rewrite_tasks))))


def mix(context: SparkContext, written: WrittenShards, *, work_dir: str, seed: int) -> WrittenShards:
    """The same number of shards with the same records, mixed over all shards in an order that only the seed decides."""
    results = written.results
    # Dealing continues at the hand after the previous shard's last, so hands differ by one record at most.
    dealt_before = itertools.accumulate((result.shard.num_records for result in results), initial=0)
    deal_tasks = [
        DealTask(
            path=result.written_file,
            num_hands=len(results),
            first=before % len(results),
            seed=seed,
            index=index,
            building_dir=work_dir,
        )
        for index, (result, before) in enumerate(zip(results, dealt_before, strict=False))
    ]
    dealt = tuple(tasks.results(tasks.run(context, "deal", rewrite.deal, deal_tasks)))
    gather_tasks = [
        GatherTask(
            shard_file=result.shard.file,
            hands=tuple((one.path, one.bounds[index], one.bounds[index + 1]) for one in dealt),
            seed=seed,
            index=index,
            building_dir=work_dir,
        )
        for index, result in enumerate(results)
    ]
    mixed = tasks.results(tasks.run(context, "gather", rewrite.gather, gather_tasks))
    # The counts of single shards do not matter: only sums go into the manifest.
    counted = [
        dataclasses.replace(result, class_counts=before.class_counts, pieces=before.pieces)
        for result, before in zip(mixed, results, strict=True)
    ]
    return dataclasses.replace(written, results=tuple(counted))


def collect(results: Sequence[ShardResult], shards_dir: str, folder: str) -> tuple[Shard, ...]:
    """Moves shards to `shards_dir`, with new numbers; those without records stay behind.

    Returns:
      The shards as a manifest names them, in `folder`.
    """
    filled = [result for result in results if result.shard.num_records]
    shards = []
    for index, result in enumerate(filled):
        name = shard_name(index, len(filled))
        storage.rename(result.written_file, join(shards_dir, name))
        shards.append(dataclasses.replace(result.shard, file=join(folder, name)))
    return tuple(shards)
