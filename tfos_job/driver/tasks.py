"""Functions over groups of files on Spark: progress while they run, errors that arrive whole. Runs on the driver."""

from __future__ import annotations

import contextlib
import functools
import logging
import subprocess
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

from py4j.protocol import Py4JError, Py4JNetworkError
from pyspark import SparkContext

from tfos_job.driver import spark_errors, task_attempts
from tfos_job.driver.task_attempts import TaskFailure
from tfos_job.errors import JobError, NodeDiedError
from tfos_job.host.bar import Bar
from tfos_job.host.limits import within

PROGRESS_POLL_S = 0.5
# A JVM answers in milliseconds. One that collects garbage in swapped memory takes minutes.
JVM_SILENCE_S = 600.0
_GUARD_POLL_S = 1.0
_CANCEL_S = 10.0

Task = TypeVar("Task")
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def run(
    context: SparkContext, name: str, function: Callable[[Task], Result], tasks: Sequence[Task]
) -> list[Result | TaskFailure]:
    """Runs `function` over `tasks` on the executors, one Spark task each.

    Args:
      context: the driver's.
      name: of the work, for the progress and Spark's UI.
      function: a function of a module, which Spark pickles by reference; one defined in `__main__` goes by value.
      tasks: in file order.

    Returns:
      The outcome of each task, in the order of `tasks`.
    """
    if not tasks:
        return []
    with watched(context, name, len(tasks)):
        work = functools.partial(task_attempts.run, function, task_attempts.max_attempts(context))
        return list(context.parallelize(tasks, len(tasks)).map(work).collect())


@contextlib.contextmanager
def watched(context: SparkContext, name: str, total: int) -> Iterator[None]:
    """Shows how many of `total` Spark tasks are done, of jobs that begin within; cancels them if the block fails.

    Raises:
      NodeDiedError: Spark's JVM on this host is gone, or a task's process.
      StorageError: Spark has no room for its own files.
    """
    group = f"{name}-{uuid.uuid4().hex}"
    context.setJobGroup(group, f"{name}: {total} tasks")
    try:
        with _progress(context, group, name, total):
            yield
    except BaseException as failure:  # Ctrl-C as well: the tasks would go on
        try:
            within(_CANCEL_S, lambda: context.cancelJobGroup(group), "cancel")
        except TimeoutError:
            _log.warning("Spark's JVM does not answer: its tasks are not cancelled")
        except (Py4JNetworkError, OSError):
            if isinstance(failure, Exception) and not isinstance(failure, JobError):
                fact = "Spark's JVM beside this process is gone"
                raise NodeDiedError(fact, next_step="Run the command again") from failure
        except Py4JError:
            pass
        if isinstance(failure, Exception) and (error := spark_errors.explain(failure)):
            raise error from failure
        raise


def results(outcomes: Sequence[Result | TaskFailure]) -> list[Result]:
    """The results of tasks, all of which succeeded.

    Raises:
      JobError: of the first one, in their order, that failed with one.
    """
    found = []
    for outcome in outcomes:
        if isinstance(outcome, TaskFailure):
            raise outcome.error
        found.append(outcome)
    return found


@contextlib.contextmanager
def _progress(context: SparkContext, group: str, name: str, total: int) -> Iterator[None]:
    """Shows how many of a job group's tasks are done: a bar on a terminal, a line now and then elsewhere."""
    ended, answered, succeeded = threading.Event(), threading.Event(), threading.Event()
    watch = (context, group, name, total, ended, answered, succeeded)
    watcher = threading.Thread(target=_watch, args=watch, name=group, daemon=True)
    watcher.start()
    jvm = getattr(SparkContext._gateway, "proc", None)
    if jvm is not None:
        guard = (jvm, watcher, answered, ended, JVM_SILENCE_S)
        threading.Thread(target=end_if_silent, args=guard, name=f"guard of {group}", daemon=True).start()
    try:
        yield
        succeeded.set()
    finally:
        ended.set()
        watcher.join(_CANCEL_S)


def end_if_silent(
    jvm: subprocess.Popen[bytes],
    watcher: threading.Thread,
    answered: threading.Event,
    ended: threading.Event,
    silence_s: float,
) -> None:
    """Ends a JVM that no longer answers, so that all calls that wait for it return.

    Args:
      jvm: a child of this process.
      watcher: asks it for something all the time, and sets `answered` at each answer.
      answered: is taken back here.
      ended: nobody waits any more.
      silence_s: how long the watcher may wait for an answer. Only seconds in which this process has run are counted.
    """
    silent_s = 0.0
    while watcher.is_alive() and not ended.wait(_GUARD_POLL_S):
        silent_s = 0.0 if answered.is_set() else silent_s + _GUARD_POLL_S
        answered.clear()
        if silent_s >= silence_s:
            _log.error("Spark's JVM (process %d) has not answered for %.0f s: it is ended", jvm.pid, silence_s)
            jvm.kill()
            return


def _watch(
    context: SparkContext,
    group: str,
    name: str,
    total: int,
    ended: threading.Event,
    answered: threading.Event,
    succeeded: threading.Event,
) -> None:
    with Bar(name, total=total, unit="task") as bar:
        while not ended.wait(PROGRESS_POLL_S):
            try:
                done = _num_done(context, group)
            except (Py4JError, OSError):
                return  # Spark is gone; the job's own thread reports why
            answered.set()
            bar.show(min(done, total))
        if succeeded.is_set():
            bar.show(total)


def _num_done(context: SparkContext, group: str) -> int:
    tracker = context.statusTracker()
    jobs = [tracker.getJobInfo(job) for job in tracker.getJobIdsForGroup(group)]
    stages = [tracker.getStageInfo(stage) for job in jobs if job for stage in job.stageIds]
    return sum(stage.numCompletedTasks for stage in stages if stage)
