"""Which of several failures came first. Pure.

When one process of a cluster dies, the others fail within milliseconds, each with an error of its own ("connection
reset", "worker unavailable", "job aborted"), and theirs may reach the driver before the report on the dead one. So
failures are ranked by what they can have been caused by, not by the clock alone.
"""

from __future__ import annotations

import dataclasses
import re
import signal
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfos_job.errors import BusyError, JobError, NodeDiedError, exit_code_class
from tfos_job.protocol.control import Failed
from tfos_job.protocol.topology import Task

KILLED = "killed"  # The process was ended by a signal: nothing else in the cluster can do that to it.
RAISED = "raised"  # An exception with a cause of its own.
LOST = "lost"  # A line went quiet or a host vanished; the process may have been killed together with its supervisor.
SPARK = "spark"  # Spark aborted the job: often the consequence of a task that has already said why.
CONSEQUENCE = "consequence"  # A TensorFlow connection error: some other process went away first.
_LOG_TAIL_LINES = 15
_TENSORFLOW_GREETINGS = ("I0000 ", "WARNING: All log messages before absl::InitializeLog()")

# By whether the process runs beside the driver.
_OVERHEAD_SETTINGS = {True: "spark.driver.memoryOverhead", False: "spark.executor.memoryOverhead"}

# What Spark's YarnAllocator says of a container (org.apache.spark.deploy.yarn, 4.3), and YARN's ContainerExitStatus.
_MEMORY = re.compile(
    r"killed by YARN for exceeding (?P<kind>physical|virtual) memory limits\."
    r"(?:\s*(?P<used>[\d.]+ [KMGTPE]?B) of (?P<limit>[\d.]+ [KMGTPE]?B) (?:physical|virtual) memory used)?"
)
_EXIT_STATUS = re.compile(r"[Ee]xit status: (-?\d+)")
_PREEMPTED = -102
_PMEM_EXCEEDED = -104
_MAX_REASON = 300

KINDS = (KILLED, RAISED, LOST, SPARK, CONSEQUENCE)


@dataclass(frozen=True)
class Failure:
    """One process's bad end, as the driver saw it. `task` is None for Spark's own."""

    kind: str
    task: Task | None
    host: str
    cause: str
    exit_code: int = NodeDiedError.exit_code
    place: str = ""
    next_step: str = ""
    detail: str = ""
    container: str = ""
    log_url: str = ""
    beside_driver: bool = False

    @property
    def process(self) -> str:
        """Which process it was, and where: role, host and, on YARN, container."""
        if self.task is None:
            return "Spark"
        return f"{self.task} on host {self.host}" + (f", container {self.container}" if self.container else "")

    def __str__(self) -> str:
        return f"{self.process}: {self.cause}"


def of_error(error: JobError, detail: str = "") -> Failed:
    """What a process tells the driver of an error of this package, in its own words."""
    return Failed(RAISED, error.fact, error.exit_code, error.place, error.next_step, detail)


def first_cause(failures: Sequence[Failure]) -> Failure:
    """The failure that explains the others: by rank of its kind, then by order of arrival."""
    return min(failures, key=lambda failure: KINDS.index(failure.kind))


def to_error(failures: Sequence[Failure]) -> JobError:
    """One error for the whole cluster's failure, with the followers named as such."""
    first = first_cause(failures)
    followers = [str(f.task) for f in failures if f.task not in (None, first.task)]
    fact = first.cause + (f" (followed by {', '.join(dict.fromkeys(followers))})" if followers else "")
    place = first.place or first.process
    return exit_code_class(first.exit_code)(fact, place=place, next_step=first.next_step or _next_step(first))


def explain(failure: Failure, reason: str) -> Failure:
    """The same failure in the light of what Spark has learned from the cluster manager about the executor's end.

    Args:
      failure: of a node whose line broke, or of Spark's job.
      reason: Spark's words for the loss of the executor (4.3: YarnAllocator, ExecutorLostFailure).
    """
    memory = _MEMORY.search(reason)
    if memory:
        used = f": {memory['used']} of {memory['limit']} {memory['kind']} memory used" if memory["used"] else ""
        limit = f" (the limit of {memory['limit']} is executor memory and overhead together)" if memory["used"] else ""
        return _killed(
            failure,
            f"YARN killed its container for exceeding {memory['kind']} memory limits{used}",
            f"Raise spark.executor.memoryOverhead{limit}: "
            "scripts/submit.sh train … -- --conf spark.executor.memoryOverhead=…; then run train again to resume",
        )
    status = _EXIT_STATUS.search(reason)
    code = int(status[1]) if status else None
    if "was preempted" in reason or code == _PREEMPTED:
        return _killed(
            failure,
            "its container was preempted: another queue had a right to the resources",
            "Run train again to resume, in a queue that is not preempted if there is one",
            BusyError.exit_code,
        )
    if code in (_PMEM_EXCEEDED, 128 + signal.SIGKILL):
        return _killed(
            failure,
            f"its container was killed (exit status {code}), as happens where memory runs out",
            "If nobody killed it, give executors more memory: scripts/submit.sh train … -- --conf "
            "spark.executor.memoryOverhead=…; then run train again to resume",
        )
    words = " ".join(reason.split())
    return dataclasses.replace(failure, cause=f"{failure.cause}; Spark says: {words[:_MAX_REASON]}")


def _killed(failure: Failure, cause: str, next_step: str, exit_code: int = NodeDiedError.exit_code) -> Failure:
    return dataclasses.replace(failure, kind=KILLED, cause=cause, next_step=next_step, exit_code=exit_code)


def log_tail(lines: Iterable[str]) -> str:
    """The last lines of a TensorFlow process's log, without those that every such process begins with."""
    telling = [line for line in lines if not line.startswith(_TENSORFLOW_GREETINGS)]
    return "".join(telling[-_LOG_TAIL_LINES:])


def _next_step(failure: Failure) -> str:
    if failure.kind == KILLED and "SIGKILL" in failure.cause:
        whose = "the driver" if failure.beside_driver else "executors"
        setting = _OVERHEAD_SETTINGS[failure.beside_driver]
        return (
            f"If nobody killed it, it ran out of memory: give {whose} more memory overhead ({setting}). "
            "Run train again to resume"
        )
    if exit_code_class(failure.exit_code).retryable:
        return "Run train again to resume from the last checkpoint"
    return ""
