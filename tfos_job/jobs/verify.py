"""`verify`: proves a dataset, from each bit of each shard to the splits against each other. The driver's side.

It writes nothing and takes no lock: unfinished files of a running job are reported, and are no fault. Each shard is a
task on Spark. Duplicates are found in a second stage, after Spark's shuffle has brought together the digests that can
be equal; the driver gets only findings and counts.
"""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pyspark import SparkContext

from tfos_job import storage
from tfos_job.config import VerifyConfig
from tfos_job.driver import task_attempts, tasks
from tfos_job.driver.on_demand import Spark
from tfos_job.errors import BadDataError
from tfos_job.formats.manifest import Manifest
from tfos_job.layout import DatasetLayout
from tfos_job.verification import stages
from tfos_job.verification.consistency import check_names, check_shards, check_splits
from tfos_job.verification.duplicates import Repeats, sum_repeats
from tfos_job.verification.findings import Findings
from tfos_job.verification.inventory import (
    ALL,
    is_at_work,
    load_charset,
    load_manifests,
    names_below,
    require_unchanged,
)
from tfos_job.verification.shard_proof import ShardReport, ShardTask
from tfos_job.verification.source_proof import RangeTask
from tfos_job.verification.task_plan import range_tasks, shard_tasks

_RECORDS_PER_BUCKET = 500_000  # some 60 MB of Python for a bucket, while it is being sorted
_NUM_NAMED = 20  # findings on stderr; the JSON has more
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class VerifyResult:
    """The result of `verify`: what was proved, and the findings.

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
        """The result as JSON values: the command's last line on stdout."""
        return {
            "dataset_dir": self.dataset_dir,
            "splits": self.splits,
            "num_source_bytes": self.num_source_bytes,
            "seconds": self.seconds,
            **self.findings.to_dict(),
        }

    def lines(self) -> list[str]:
        """The first findings for people, one a line, and the number of the others."""
        told = self.findings.told
        more = self.findings.counts.total() - min(len(told), _NUM_NAMED)
        lines = [str(finding) for finding in told[:_NUM_NAMED]]
        return [*lines, f"and {more} more"] if more and told[_NUM_NAMED:] else lines

    def raise_for_findings(self) -> None:
        """Raises BadDataError if anything but a warning was found."""
        if not self.findings.num_errors:
            return
        counts = ", ".join(f"{kind} × {count}" for kind, count in sorted(self.findings.counts.items()))
        raise BadDataError(
            f"{self.findings.num_errors} faults found: {counts}",
            place=self.dataset_dir,
            next_step="The last line of stdout has the list; convert a damaged split again with --overwrite",
        )


def verify(spark: Spark, config: VerifyConfig) -> VerifyResult:
    """Proves one split, or all of them, and compares the splits with each other.

    The names and manifests are read before a SparkContext is asked for.

    Raises:
      MissingInputError: no such dataset, split or folder of GNT files.
      BusyError: a job that is at work makes the first generation, or has replaced the shards that were read.
      SettingsError: one folder of GNT files for more than one split, or for one that was not made of such.
      JobError: what storage raises for a file that is there and cannot be read.
    """
    started_s = time.monotonic()
    dataset = DatasetLayout(storage.absolute(config.dataset_dir))
    findings = Findings()
    found = load_manifests(dataset, config.dataset_split_name, findings)
    charset = load_charset(dataset, findings)
    chosen = {name: contents for name, contents in found.items() if config.dataset_split_name in (ALL, name)}
    to_compare = range_tasks(config, chosen, findings)
    for name, contents in chosen.items():
        # A job may begin, or end, while names are listed.
        at_work = is_at_work(dataset)
        names = list(names_below(dataset.split(name).root))
        findings.extend([check_names(name, contents, names, at_work=at_work or is_at_work(dataset))])
    findings.extend([check_splits(found, charset, chosen)])
    for name, contents in chosen.items():
        _log.info("Proving %s: %d records in %d shards", name, contents.num_records, len(contents.shards))
    _prove(spark.sparkContext, chosen, shard_tasks(dataset, chosen, charset), to_compare, findings)
    if findings.num_errors:
        require_unchanged(dataset, chosen)
    return VerifyResult(
        dataset_dir=dataset.root,
        splits={name: _summary(contents) for name, contents in chosen.items()},
        num_source_bytes=sum(task.range.end - task.range.start for group in to_compare for task in group),
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


# --- the work --------------------------------------------------------------------------------------------------------


def _prove(
    context: SparkContext,
    chosen: Mapping[str, Manifest],
    to_prove: Sequence[ShardTask],
    to_compare: Sequence[tuple[RangeTask, ...]],
    findings: Findings,
) -> None:
    all_tasks: list[stages.Task] = [*to_prove, *to_compare]
    num_buckets = -(-sum(task.shard.num_records for task in to_prove) // _RECORDS_PER_BUCKET) or 1
    compare = functools.partial(
        stages.compare, [task.file for task in to_prove], [task.file.partition("/")[0] for task in to_prove]
    )
    prove = functools.partial(
        task_attempts.run_keyed,
        functools.partial(stages.prove, num_buckets),
        task_attempts.max_attempts(context),
        num_buckets,
    )
    with tasks.watched(context, "verify", len(all_tasks) + num_buckets + 1):
        outcomes = tasks.results(
            context.parallelize(all_tasks, len(all_tasks) or 1)
            .flatMap(prove)
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
