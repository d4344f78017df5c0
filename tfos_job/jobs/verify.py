"""`verify`: proves a dataset, from each bit of each shard to the splits against each other. The driver's side.

It writes nothing and takes no lock: what the job that holds it is making is told, and is no fault. Each shard is a task
on Spark. What is twice is found in a second stage, where Spark's shuffle has brought together the digests that can be
equal; the driver gets findings and counts alone.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext
from pyspark.sql import SparkSession

from tfos_job import lease, storage
from tfos_job.config import VerifyConfig
from tfos_job.driver import task_attempts, tasks
from tfos_job.errors import BadDataError, BusyError, MissingInputError, SettingsError
from tfos_job.formats import archives
from tfos_job.formats import manifest as manifests
from tfos_job.formats.archives import Member
from tfos_job.formats.charset import Charset
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import BUILDING_PREFIX, GENERATION_PREFIX, DatasetLayout, join
from tfos_job.verification import shard_proof as work
from tfos_job.verification.consistency import add_unfinished, check_names, check_shards, check_splits
from tfos_job.verification.duplicates import Repeats, sum_repeats
from tfos_job.verification.findings import Findings
from tfos_job.verification.shard_proof import RangeTask, ShardReport, ShardTask

ALL = "all"
_RECORDS_PER_BUCKET = 500_000  # some 60 MB of Python for a bucket, while it is being sorted
_RANGE_TASK_BYTES = 128 << 20
_NUM_NAMED = 20  # findings on stderr; the JSON has more

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VerifyResult:
    """What was looked at, and what was found.

    Attributes:
      splits: of each that was proved: records, shards, bytes and the dataset's digest.
      num_source_bytes: of GNT files that were read.
    """

    dataset_dir: str
    splits: Mapping[str, Mapping[str, Any]]
    num_source_bytes: int
    findings: Findings
    seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As JSON values: the command's last line on stdout."""
        return {
            "dataset_dir": self.dataset_dir,
            "splits": self.splits,
            "num_source_bytes": self.num_source_bytes,
            "seconds": self.seconds,
            **self.findings.to_dict(),
        }

    def lines(self) -> list[str]:
        """For people: the first findings, one a line, and how many more there are."""
        told = self.findings.told
        more = self.findings.counts.total() - min(len(told), _NUM_NAMED)
        lines = [str(finding) for finding in told[:_NUM_NAMED]]
        return [*lines, f"and {more} more"] if more and told[_NUM_NAMED:] else lines

    def raise_for_findings(self) -> None:
        """Raises BadDataError where anything but a warning was found."""
        if not self.findings.num_errors:
            return
        counts = ", ".join(f"{kind} × {count}" for kind, count in sorted(self.findings.counts.items()))
        raise BadDataError(
            f"{self.findings.num_errors} faults found: {counts}",
            place=self.dataset_dir,
            next_step="The last line of stdout has the list; convert a damaged split again with --overwrite",
        )


def verify(spark: SparkSession, config: VerifyConfig) -> VerifyResult:
    """Looks at one split, or at all of them, and at the splits against each other.

    Raises:
      MissingInputError: no such dataset, split or folder of GNT files.
      BusyError: a job that is at work makes the first generation, or has replaced the shards that were read.
      SettingsError: one folder of GNT files for more than one split, or for one that was not made of such.
      JobError: what storage raises for a file that is there and cannot be read.
    """
    started_s = time.monotonic()
    dataset = DatasetLayout(storage.absolute(config.dataset_dir))
    findings = Findings()
    found = _load_manifests(dataset, config.dataset_split_name, findings)
    charset = _load_charset(dataset, findings)
    chosen = {name: contents for name, contents in found.items() if config.dataset_split_name in (ALL, name)}
    range_tasks = _range_tasks(config, chosen, findings)
    for name, contents in chosen.items():
        # A job may begin, or end, while names are listed.
        at_work = _is_at_work(dataset)
        names = list(_names(dataset.split(name).root))
        findings.extend([check_names(name, contents, names, at_work=at_work or _is_at_work(dataset))])
    findings.extend([check_splits(found, charset, chosen)])
    _prove(spark.sparkContext, chosen, shard_tasks(dataset, chosen, charset), range_tasks, findings)
    if findings.num_errors:
        _require_unchanged(dataset, chosen)
    return VerifyResult(
        dataset_dir=dataset.root,
        splits={name: _summary(contents) for name, contents in chosen.items()},
        num_source_bytes=sum(task.range.end - task.range.start for group in range_tasks for task in group),
        findings=findings,
        seconds=round(time.monotonic() - started_s, 3),
    )


def _summary(contents: Manifest) -> dict[str, Any]:
    return {
        "num_records": contents.num_records,
        "num_shards": len(contents.shards),
        "num_bytes": sum(shard.size_bytes for shard in contents.shards),
        "dataset_digest": contents.digest,
    }


# --- what is there ---------------------------------------------------------------------------------------------------


def _is_at_work(dataset: DatasetLayout) -> bool:
    """Whether a job holds the dataset's lock."""
    return not lease.is_abandoned(dataset.lock)


def _require_unchanged(dataset: DatasetLayout, chosen: Mapping[str, Manifest]) -> None:
    """Raises BusyError where another job has published since: what was found may be that shards were replaced."""
    for name, contents in chosen.items():
        split = dataset.split(name)
        with contextlib.suppress(BadDataError, MissingInputError):
            if manifests.load(split).shards != contents.shards:
                fact = "another job has published a generation while this one was read"
                raise BusyError(fact, place=split.root, next_step="Run `verify` again when it has ended")


def _load_charset(dataset: DatasetLayout, findings: Findings) -> Charset | None:
    try:
        return manifests.load_charset(dataset)
    except BadDataError as error:
        findings.add("charset", "charset.json", error.fact)
    except MissingInputError:
        findings.add("charset", "charset.json", "missing: the classes of the splits have no characters")
    return None


def _load_manifests(dataset: DatasetLayout, split_name: str, findings: Findings) -> dict[str, Manifest]:
    """The manifests of all splits that have a sound one, by name. Of those that `split_name` asks for, one is there.

    Raises:
      MissingInputError: none is.
      BusyError: none is yet.
    """
    if not storage.is_dir(dataset.root):
        manifests.load_charset(dataset)  # raises
    found: dict[str, Manifest] = {}
    damaged = False
    in_progress = ""
    at_work = _is_at_work(dataset)
    for entry in storage.list_dir(dataset.root):
        split = dataset.split(entry.name)
        if not entry.is_dir:
            if entry.name.endswith(".tmp"):
                is_new = manifests.is_lockless(entry.name) and manifests.may_be_at_work(entry, time.time())
                add_unfinished(findings, entry.name, at_work=is_new or at_work or _is_at_work(dataset))
            continue
        try:
            found[entry.name] = manifests.load(split)
        except BadDataError as error:
            damaged = damaged or split_name in (ALL, entry.name)
            findings.add("manifest", join(entry.name, "manifest.json"), error.fact)
        except MissingInputError:
            made = [name for name in _names(split.root) if name.startswith((GENERATION_PREFIX, BUILDING_PREFIX))]
            if made and split_name in (ALL, entry.name) and (at_work or _is_at_work(dataset)):
                in_progress = entry.name
                add_unfinished(findings, entry.name, at_work=True)
            elif made and split_name in (ALL, entry.name):
                findings.add("missing_manifest", entry.name, f"no manifest names what is in it, such as {made[0]}")
                damaged = True
    is_there = bool(found) if split_name == ALL else split_name in found
    if in_progress and not is_there:
        fact = "nothing of it is published yet: a job that is at work makes it"
        raise BusyError(fact, place=dataset.split(in_progress).root, next_step="Run `verify` again when it has ended")
    if not damaged and not is_there:
        manifests.load(dataset.split("train" if split_name == ALL else split_name))  # raises what is missing
    return found


def _names(folder: str, prefix: str = "") -> Iterator[str]:
    """The paths of all below a folder but for what is being built; those of folders end with `/`."""
    try:
        entries = storage.list_dir(folder)
    except MissingInputError:  # renamed or removed by a job that is at work
        return
    for entry in entries:
        if entry.is_dir:
            yield f"{prefix}{entry.name}/"
            if not entry.name.startswith(BUILDING_PREFIX):
                yield from _names(entry.path, f"{prefix}{entry.name}/")
        else:
            yield prefix + entry.name


# --- the tasks -------------------------------------------------------------------------------------------------------


def shard_tasks(dataset: DatasetLayout, chosen: Mapping[str, Manifest], charset: Charset | None) -> list[ShardTask]:
    """A task for each shard, in the order of the splits and of their manifests."""
    found: list[ShardTask] = []
    first_source = 0
    for name, contents in chosen.items():
        sources = {
            source.name: (number, source.size_bytes) for number, source in enumerate(contents.sources, first_source)
        }
        first_source += len(sources)
        found += [
            ShardTask(
                number=number,
                path=path,
                file=join(name, shard.file),
                shard=shard,
                image_format=contents.image_format,
                of_pictures=contents.images is not None,
                characters=charset.characters if charset else (),
                sources={own: sources[own] for own in shard.sources or sources if own in sources} or None,
            )
            for number, (path, shard) in enumerate(
                zip(manifests.shard_paths(dataset.split(name), contents), contents.shards, strict=True), len(found)
            )
        ]
    return found


def _range_tasks(
    config: VerifyConfig, chosen: Mapping[str, Manifest], findings: Findings
) -> list[tuple[RangeTask, ...]]:
    """The source files' ranges in groups of about `_RANGE_TASK_BYTES`; none where nobody has asked for them."""
    if config.gnt_dir is None:
        return []
    if config.gnt_dir != "auto" and len(chosen) > 1:
        raise SettingsError(
            f"{config.gnt_dir} is one folder, and {len(chosen)} splits are to be proved",
            place="--gnt_dir",
            next_step="Give --dataset_split_name, or --gnt_dir auto for the folder that each was converted from",
        )
    for name, contents in chosen.items():
        if not contents.sources:
            made_from = "images" if contents.images else "a DataFrame"
            raise SettingsError(
                f"split {name} was made from {made_from}: no GNT files can prove it",
                place="--gnt_dir",
                next_step="Leave it out, or give the --dataset_split_name of a split that was made from GNT files",
            )
    groups: list[tuple[RangeTask, ...]] = []
    for contents in chosen.values():
        folder = storage.absolute(contents.settings.get("gnt_dir", "") if config.gnt_dir == "auto" else config.gnt_dir)
        if not storage.is_dir(folder):
            raise MissingInputError("no such folder of GNT files", place=folder, next_step="Check --gnt_dir")
        group: list[RangeTask] = []
        group_bytes = 0
        for task in _source_tasks(folder, contents, findings):
            group.append(task)
            group_bytes += task.range.end - task.range.start
            if group_bytes >= _RANGE_TASK_BYTES:
                groups.append(tuple(group))
                group, group_bytes = [], 0
        if group:
            groups.append(tuple(group))
    return groups


def _source_tasks(folder: str, contents: Manifest, findings: Findings) -> Iterator[RangeTask]:
    """A task for each range of each source that is there. Archives are looked into here, once each."""
    members: dict[str, dict[str, Member]] = {}
    faults: dict[str, str] = {}
    for archive in sorted({source.archive for source in contents.sources} - {""}):
        try:
            members[archive] = {member.name: member for member in archives.read_directory(join(folder, archive))}
        except BadDataError as error:
            faults[archive] = error.fact
        except MissingInputError:
            members[archive] = {}
    for source in contents.sources:
        path, member = join(folder, source.archive or source.name), None
        if source.archive in faults:
            findings.add("changed_source", source.name, f"its archive is {faults[source.archive]}")
            continue
        if source.archive:
            member = members[source.archive].get(source.name.removeprefix(f"{source.archive}/"))
            if member is None or member.fault:
                findings.add("missing_source", source.name, f"not in {path}" if member is None else member.fault)
                continue
        for part in source.ranges:
            yield RangeTask(path=path, name=source.name, size_bytes=source.size_bytes, range=part, member=member)


# --- the work --------------------------------------------------------------------------------------------------------


def _prove(
    context: SparkContext,
    chosen: Mapping[str, Manifest],
    to_prove: Sequence[ShardTask],
    range_tasks: Sequence[tuple[RangeTask, ...]],
    findings: Findings,
) -> None:
    all_tasks: list[work.Task] = [*to_prove, *range_tasks]
    num_buckets = -(-sum(task.shard.num_records for task in to_prove) // _RECORDS_PER_BUCKET) or 1
    compare = functools.partial(
        work.compare, [task.file for task in to_prove], [task.file.partition("/")[0] for task in to_prove]
    )
    prove = functools.partial(work.prove, num_buckets)
    with tasks.watched(context, "verify", len(all_tasks) + num_buckets + 1):
        outcomes = tasks.results(
            context.parallelize(all_tasks, len(all_tasks) or 1)
            .flatMap(functools.partial(task_attempts.run_keyed, prove, task_attempts.max_attempts(context)))
            .partitionBy(num_buckets + 1, int)
            .mapPartitions(compare)
            .collect()
        )
    reports = sorted((found for found in outcomes if isinstance(found, ShardReport)), key=lambda report: report.number)
    first = 0
    for name, contents in chosen.items():
        findings.extend([check_shards(name, contents, reports[first : first + len(contents.shards)])])
        first += len(contents.shards)
    findings.extend(found for found in outcomes if isinstance(found, Findings))
    findings.extend([sum_repeats([found for found in outcomes if isinstance(found, Repeats)])])
