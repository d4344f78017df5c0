"""A Spark task that sums pixels: what it is to do, and how it has a process do it (`pixel_sums`). On an executor."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from tfos_job.host import calls
from tfos_job.statistics.pixel_statistics import Subject


@dataclass(frozen=True, kw_only=True)
class SumShard:
    """A shard, and which of the split's records its first one is."""

    path: str
    size_bytes: int
    sha256: str
    num_records: int
    first_index: int


@dataclass(frozen=True, kw_only=True)
class SumTask:
    """Some shards of a split.

    Attributes:
      num_records: of the whole split.
      limit: records of the whole split that count (`statistics.is_sampled`).
      output: the .npz to write.
    """

    subject: Subject
    shards: tuple[SumShard, ...]
    num_records: int
    limit: int
    output: str

    @staticmethod
    def from_json(value: dict[str, Any]) -> SumTask:
        """The inverse of `dataclasses.asdict`."""
        shards = tuple(SumShard(**shard) for shard in value["shards"])
        return SumTask(**value | {"subject": Subject(**value["subject"]), "shards": shards})


def sum_pixels(task: SumTask) -> str:
    """Does a task; returns its output's path.

    Raises:
      JobError: what the process met.
      NodeDiedError: it was killed.
    """
    calls.call(
        "tfos_job.input.statistics_process",
        dataclasses.asdict(task),
        name="the process that sums pixels",
        if_killed="If nobody killed it, it ran out of memory: give executors more, or a smaller --image_size",
    )
    return task.output
