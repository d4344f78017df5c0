"""An attempt of a Spark task: what another one may mend is raised, all else is its result. Runs on executors.

Spark runs a task again that has raised, `spark.task.maxFailures` times in all and mostly in another place: an I/O error
may be that of a host or a disk. Bad data would be the same anywhere. What still fails at the last attempt is a value as
well, which arrives whole, where an exception would arrive as a page of Java.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import TypeVar

from pyspark import SparkContext, TaskContext

from tfos_job.conversion.gnt_shard import Failure, attempt

Task = TypeVar("Task")
Result = TypeVar("Result")
_LOCAL = re.compile(r"local(\[[^],]+(, *(?P<attempts>\d+))?\])?")  # which has no use for spark.task.maxFailures
_DEFAULT_ATTEMPTS = "4"


def max_attempts(context: SparkContext) -> int:
    """How often Spark runs a task that raises, before it ends the job. On the driver."""
    local = _LOCAL.fullmatch(context.master)
    if local:
        return int(local["attempts"] or 1)
    return int(context.getConf().get("spark.task.maxFailures", _DEFAULT_ATTEMPTS) or _DEFAULT_ATTEMPTS)


def run(function: Callable[[Task], Result], num_attempts: int, task: Task) -> Result | Failure:
    """What the task comes to; see `settled`."""
    return settled(attempt(function, task), num_attempts)


def run_keyed(
    function: Callable[[Task], Iterator[tuple[int, Result | Failure]]], num_attempts: int, task: Task
) -> Iterator[tuple[int, Result | Failure]]:
    """All that the task comes to, with keys for Spark's shuffle; see `settled`."""
    for key, outcome in function(task):
        yield key, settled(outcome, num_attempts)


def settled(outcome: Result | Failure, num_attempts: int) -> Result | Failure:
    """The outcome of this attempt, one of at most so many.

    Raises:
      JobError: one that may be gone at the next attempt, and there is one.
    """
    if isinstance(outcome, Failure) and outcome.error.retryable and not _is_last(num_attempts):
        raise outcome.error
    return outcome


def _is_last(num_attempts: int) -> bool:
    context = TaskContext.get()
    # An attempt that was lost with its executor counts here and not for Spark: rather one too few than a page of Java.
    return context is None or context.attemptNumber() + 1 >= num_attempts
