"""The failures of a cluster's processes, and the one of them that came first. Pure.

When one process of a cluster dies, the others fail within milliseconds, each with an error of its own ("connection
reset", "worker unavailable", "job aborted"), and theirs may reach the driver before the report on the dead one. So
failures are ranked by what they can have been caused by, not by the clock alone.
"""

from __future__ import annotations

import enum
import re
import signal
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import msgspec

from tfos_job.errors import BusyError, JobError, NodeDiedError, exit_code_class
from tfos_job.host.memory import gib
from tfos_job.protocol.topology import Task

if TYPE_CHECKING:
    from tfos_job.protocol.attempt_end import NodeRecord  # which imports this module

_LOG_TAIL_LINES = 15
_TENSORFLOW_GREETINGS = ("I0000 ", "WARNING: All log messages before absl::InitializeLog()")

# By whether the process runs on the driver's host.
_OVERHEAD_SETTINGS = {True: "spark.driver.memoryOverhead", False: "spark.executor.memoryOverhead"}

# What Spark's YarnAllocator says of a container (org.apache.spark.deploy.yarn, 4.3), and YARN's ContainerExitStatus.
_MEMORY = re.compile(
    r"killed by YARN for exceeding (?P<kind>physical|virtual) memory limits\."
    r"(?:\s*(?P<used>[\d.]+ [KMGTPE]?B) of (?P<limit>[\d.]+ [KMGTPE]?B) (?:physical|virtual) memory used)?"
)
EXECUTOR_LOST = "ExecutorLostFailure"
"""Spark's word for a task that ended with its executor."""
_EXIT_STATUS = re.compile(r"[Ee]xit status: (-?\d+)")
_PREEMPTED = -102
_VMEM_EXCEEDED = -103
_PMEM_EXCEEDED = -104
_SIGKILLED = 128 + signal.SIGKILL
# Of Spark (HeartbeatReceiver), and of YARN when a NodeManager has not been heard for its expiry.
_SILENCE = re.compile(r"heartbeat timed out|\*lost\* node")
_KILL = re.compile(rf"SIGKILL|exit status {_SIGKILLED}\b")
_MAX_REASON = 300


class Kind(enum.StrEnum):
    """Kinds of failures, ordered: an earlier kind explains the later ones."""

    KILLED = "killed"
    """The process was ended by a signal: nothing else in the cluster can do that to it."""
    RAISED = "raised"
    """An exception with a cause of its own."""
    LOST = "lost"
    """A line went quiet or a host vanished; the process may have been killed together with its supervisor."""
    SPARK = "spark"
    """Spark aborted the job: often the consequence of a task that has already said why."""
    CONSEQUENCE = "consequence"
    """A TensorFlow connection error: some other process went away first."""


class Reason(enum.StrEnum):
    """Reasons of a failure that decide about a restart; most failures have none of them."""

    NONE = ""
    MEMORY = "memory"
    """The container's limit was reached: YARN says so, or the kernel's count of its kills does."""
    PREEMPTED = "preempted"
    """YARN has taken the container for another queue."""
    SILENT = "silent"
    """Nothing was heard from its host for some time: the host may be cut off."""
    AVOIDED = "avoided"
    """It came from a host that this attempt leaves out."""


_RANK = list(Kind)


class Process(msgspec.Struct, frozen=True):
    """A process of the cluster and its place, as the driver knows them from its `Hello`."""

    task: Task
    host: str
    container: str = ""
    log_url: str = ""
    on_driver_host: bool = False

    def __str__(self) -> str:
        return f"{self.task} on host {self.host}" + (f", container {self.container}" if self.container else "")


class Failure(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """The failure of one process, with the parts of a `JobError`.

    It is a message, too: a process that can still speak tells it to its supervisor or to the driver. The driver adds
    the `process`, which stays None for Spark's own failures. `exception` is the name of the class that was raised.
    """

    kind: Kind
    cause: str
    exit_code: int = NodeDiedError.exit_code
    place: str = ""
    next_step: str = ""
    detail: str = ""
    process: Process | None = None
    reason: Reason = Reason.NONE
    exception: str = ""

    def __str__(self) -> str:
        return f"{self.process or 'Spark'}: {self.cause}"


def of_error(error: JobError, detail: str = "") -> Failure:
    """The failure of a process that ends with an error of this package."""
    name = type(error).__name__
    return Failure(Kind.RAISED, error.fact, error.exit_code, error.place, error.next_step, detail, exception=name)


def identity(failure: Failure) -> tuple[str, Kind, int, str]:
    """What two failures of the same cause have in common: role, kind, exit code, exception; no words, no process id."""
    role = failure.process.task.role if failure.process else ""
    return role, failure.kind, failure.exit_code, failure.exception


def first_cause(failures: Sequence[Failure]) -> Failure:
    """The failure that explains the others: by rank of its kind, then by order of arrival."""
    return min(failures, key=lambda failure: _RANK.index(failure.kind))


def to_error(failures: Sequence[Failure]) -> JobError:
    """One error for the whole cluster's failure, with the followers named as such."""
    first = first_cause(failures)
    tasks = [failure.process.task for failure in failures if failure.process is not None]
    followers = [str(task) for task in tasks if first.process is None or task != first.process.task]
    fact = first.cause + (f" (followed by {', '.join(dict.fromkeys(followers))})" if followers else "")
    place = first.place or str(first.process or "Spark")
    return exit_code_class(first.exit_code)(fact, place=place, next_step=first.next_step or _next_step(first))


def explain(failure: Failure, reason: str) -> Failure:
    """The same failure with what Spark has learned from the cluster manager about the executor's end.

    Args:
      failure: of a node whose line broke, or of Spark's job.
      reason: Spark's words for the loss of the executor (4.3: YarnAllocator, ExecutorLostFailure).
    """
    memory = _MEMORY.search(reason)
    if memory:
        used = f": {memory['used']} of {memory['limit']} {memory['kind']} memory used" if memory["used"] else ""
        limit = f"the limit of {memory['limit']} is executor memory and overhead together" if memory["used"] else ""
        cause = f"YARN killed its container for exceeding {memory['kind']} memory limits{used}"
        return _killed(failure, cause, _more_memory(limit=limit), reason=Reason.MEMORY)
    status = _EXIT_STATUS.search(reason)
    code = int(status[1]) if status else None
    if code in (_VMEM_EXCEEDED, _PMEM_EXCEEDED):
        cause = f"YARN killed its container for exceeding its memory limits (exit status {code})"
        return _killed(failure, cause, _more_memory(), reason=Reason.MEMORY)
    if "was preempted" in reason or code == _PREEMPTED:
        return _killed(
            failure,
            "its container was preempted: another queue had a right to the resources",
            "Run train again to resume, in a queue that is not preempted if there is one",
            exit_code=BusyError.exit_code,
            reason=Reason.PREEMPTED,
        )
    if code == _SIGKILLED:
        return _killed(
            failure,
            f"its container was killed (exit status {code}), as happens where memory runs out",
            "If nobody killed it, give executors more memory: tfos-job submit train … -- --conf "
            "spark.executor.memoryOverhead=…; then run train again to resume",
        )
    words = " ".join(reason.split())[:_MAX_REASON]
    why = Reason.SILENT if _SILENCE.search(reason) else failure.reason
    return msgspec.structs.replace(failure, cause=f"{failure.cause}; Spark says: {words}", reason=why)


def with_memory(failure: Failure, record: NodeRecord) -> Failure:
    """The same failure with what the kernel says about its process's memory.

    Args:
      failure: of a process.
      record: of the same process. Only with a kill of the kernel's in it a SIGKILL was for memory; else it may have
        been anybody's.
    """
    if not record.num_oom_kills or failure.kind is not Kind.KILLED or not _KILL.search(failure.cause):
        return failure
    peak = f": {gib(record.peak_bytes)}" if record.peak_bytes else ""
    limit = f" of {gib(record.limit_bytes)}" if peak and record.limit_bytes else ""
    step = _more_memory(on_driver_host=record.process.on_driver_host)
    cause = f"{failure.cause} by the kernel, since memory had run out{peak}{limit}"
    return msgspec.structs.replace(failure, cause=cause, next_step=step, reason=Reason.MEMORY)


def _more_memory(*, on_driver_host: bool = False, limit: str = "") -> str:
    setting = _OVERHEAD_SETTINGS[on_driver_host]
    return (
        "Submit train again: it resumes, and asks for more memory by itself. Or raise "
        f"{setting}{f' ({limit})' if limit else ''}: tfos-job submit train … -- --conf {setting}=…"
    )


def _killed(
    failure: Failure,
    cause: str,
    next_step: str,
    *,
    exit_code: int = NodeDiedError.exit_code,
    reason: Reason = Reason.NONE,
) -> Failure:
    return msgspec.structs.replace(
        failure, kind=Kind.KILLED, cause=cause, next_step=next_step, exit_code=exit_code, reason=reason
    )


def log_tail(lines: Iterable[str]) -> str:
    """The last lines of a TensorFlow process's log, without those that every such process writes first."""
    telling = [line for line in lines if not line.startswith(_TENSORFLOW_GREETINGS)]
    return "".join(telling[-_LOG_TAIL_LINES:])


def _next_step(failure: Failure) -> str:
    if failure.kind is Kind.KILLED and "SIGKILL" in failure.cause:
        on_driver_host = failure.process is not None and failure.process.on_driver_host
        whose = "the driver" if on_driver_host else "executors"
        setting = _OVERHEAD_SETTINGS[on_driver_host]
        return (
            f"If nobody killed it, it ran out of memory: give {whose} more memory overhead ({setting}). "
            "Run train again to resume"
        )
    if exit_code_class(failure.exit_code).retryable:
        return "Run train again to resume from the last checkpoint"
    return ""
