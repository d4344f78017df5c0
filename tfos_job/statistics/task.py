"""The Spark task that sums the pixels of some shards; a process of its own does the work (`statistics_process`)."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tfos_job.host import calls
from tfos_job.statistics.pixel_statistics import Subject


@dataclass(frozen=True, kw_only=True)
class TaskShard:
    """A shard, and the index of its first record within the split."""

    path: str
    size_bytes: int
    sha256: str
    num_records: int
    first_index: int


@dataclass(frozen=True, kw_only=True)
class StatisticsTask:
    """The shards of one task.

    Attributes:
      num_records: of the whole split.
      limit: size of the sample of the whole split (`pixel_statistics.is_sampled`).
      output: path of the .npz file to write.
    """

    subject: Subject
    shards: tuple[TaskShard, ...]
    num_records: int
    limit: int
    output: str

    @staticmethod
    def from_json(value: dict[str, Any]) -> StatisticsTask:
        """Reads the values of `dataclasses.asdict`."""
        shards = tuple(TaskShard(**shard) for shard in value["shards"])
        return StatisticsTask(**value | {"subject": Subject(**value["subject"]), "shards": shards})


def run(task: StatisticsTask) -> str:
    """Runs a task on an executor; returns the path of its output.

    Raises:
      JobError: the error of the process.
      NodeDiedError: the process was killed.
    """
    calls.call(
        "tfos_job.input.statistics_process",
        dataclasses.asdict(task),
        name="the process that sums pixels",
        if_killed="If nobody killed it, it ran out of memory: give executors more, or a smaller --image_size",
    )
    return task.output
