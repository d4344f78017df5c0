"""The two stages of `verify` on executors: the proof of each shard and source file, then the search for duplicates.

Between them Spark's shuffle brings the keys of each bucket together.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

from tfos_job.verification.duplicates import KeyTable, Repeats, check_repeats
from tfos_job.verification.findings import Findings
from tfos_job.verification.shard_proof import ShardReport, ShardTask, verify_shard
from tfos_job.verification.source_proof import RangeTask, verify_ranges

Task = ShardTask | tuple[RangeTask, ...]
Outcome = ShardReport | Findings
Part = tuple[str, KeyTable] | Outcome  # a table with its kind, `pixels` or `places`
Other = TypeVar("Other")


def prove(num_buckets: int, task: Task) -> Iterator[tuple[int, Part]]:
    """Carries out a task.

    Yields:
      The rows of its tables with their bucket's number, and its outcome with the number `num_buckets`.

    Raises:
      JobError: a file cannot be read for another reason than that it is not there.
    """
    if isinstance(task, ShardTask):
        found = verify_shard(task)
        for kind, table in (("pixels", found.pixels), ("places", found.places)):
            for bucket, rows in table.deal(num_buckets):
                yield bucket, (kind, rows)
        yield num_buckets, found.report
    else:
        yield num_buckets, verify_ranges(task)


def compare(
    files: Sequence[str], splits: Sequence[str], parts: Iterable[tuple[int, Part | Other]]
) -> Iterator[Outcome | Other | Repeats]:
    """Searches the tables of one bucket, of all tasks, for repeats; outcomes, and failures of tasks, pass through."""
    tables: dict[str, list[KeyTable]] = {"pixels": [], "places": []}
    for _, part in parts:
        if isinstance(part, tuple):
            tables[part[0]].append(part[1])
        else:
            yield part
    if any(tables.values()):
        yield check_repeats(tables["pixels"], tables["places"], files, splits)
