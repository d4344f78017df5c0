"""An attempt of a Spark task: an error that another attempt may mend is raised, any other is its result. On executors.

Spark runs a task again that has raised, `spark.task.maxFailures` times in all and mostly in another place: an I/O error
may be that of a host or a disk. Bad data would be the same anywhere. What still fails at the last attempt is a value as
well, which arrives whole, where an exception would arrive as a page of Java.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

from pyspark import SparkContext, TaskContext

from tfos_job.errors import JobError

Task = TypeVar("Task")
Result = TypeVar("Result")
Part = TypeVar("Part")
_LOCAL = re.compile(r"local(\[[^],]+(, *(?P<attempts>\d+))?\])?")  # which has no use for spark.task.maxFailures
_DEFAULT_ATTEMPTS = "4"


@dataclass(frozen=True)
class TaskFailure:
    """An error as a value: it crosses from executor to driver whole, where an exception becomes a page of Java."""

    error: JobError


def max_attempts(context: SparkContext) -> int:
    """The number of times that Spark runs a task that raises, before it ends the job. On the driver."""
    local = _LOCAL.fullmatch(context.master)
    if local:
        return int(local["attempts"] or 1)
    return int(context.getConf().get("spark.task.maxFailures", _DEFAULT_ATTEMPTS) or _DEFAULT_ATTEMPTS)


def run(function: Callable[[Task], Result], num_attempts: int, task: Task) -> Result | TaskFailure:
    """The result of a task; see `settled`."""
    return settled(attempt(function, task), num_attempts)


def run_keyed(
    function: Callable[[Task], Iterable[tuple[int, Part]]], num_attempts: int, failure_key: int, task: Task
) -> Iterator[tuple[int, Part | TaskFailure]]:
    """The results of a task, with keys for Spark's shuffle; see `settled`. A failure has the key `failure_key`."""
    outcome = run(lambda task: list(function(task)), num_attempts, task)
    if isinstance(outcome, TaskFailure):
        yield failure_key, outcome
    else:
        yield from outcome


def attempt(function: Callable[[Task], Result], task: Task) -> Result | TaskFailure:
    """Runs a task; a `JobError` is its result. Other exceptions are bugs, for Spark to show."""
    try:
        return function(task)
    except JobError as error:
        return TaskFailure(error)


def settled(outcome: Result | TaskFailure, num_attempts: int) -> Result | TaskFailure:
    """The outcome of an attempt of at most `num_attempts`.

    Raises:
      JobError: the outcome is a retryable error, and this is not the last attempt.
    """
    if isinstance(outcome, TaskFailure) and outcome.error.retryable and not _is_last(num_attempts):
        raise outcome.error
    return outcome


def _is_last(num_attempts: int) -> bool:
    context = TaskContext.get()
    # An attempt that was lost with its executor counts here and not for Spark, so the last attempt may come one early.
    return context is None or context.attemptNumber() + 1 >= num_attempts
