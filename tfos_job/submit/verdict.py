"""The verdict on an application's end: from messages of YARN and Spark to the submitter's error. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfos_job.errors import (
    AccessError,
    BusyError,
    InterruptedJobError,
    JobError,
    NodeDiedError,
    ResourceError,
    SettingsError,
    StorageError,
    exit_code_class,
)

_OVERHEAD = "-- --conf spark.driver.memoryOverhead=…"
_USER_STATUS = re.compile(r"User application exited with (?:status )?(\d+)")
_MEMORY_FIGURES = re.compile(r"(?P<used>[\d.]+ ?[KMGT]?B) of (?P<limit>[\d.]+ ?[KMGT]?B) physical memory used")
_MEMORY_EXIT = re.compile(r"exitCode: -104\b")
_EXIT = re.compile(r"exitCode: (-?\d+)")
_SIGKILL, _SIGTERM = 137, 143
_PREEMPTED = -102

# Messages of YARN or Spark's client, and their errors; the first match counts. The matched text, up to the end of its
# line, is the fact.
_REFUSALS: tuple[tuple[str, type[JobError], str], ...] = (
    (r"[^\n]*unknown queue[^\n]*", SettingsError, "Give --queue: `yarn queue -list` names them"),
    (r"[^\n]*[qQ]ueue[^\n]* is (?:STOPPED|DRAINING)[^\n]*", ResourceError, "Give another --queue, or wait"),
    (r"[^\n]*non-leaf queue[^\n]*", SettingsError, "Give --queue one of its children"),
    (
        r"[^\n]*(?:cannot submit applications to queue|does not have permission to submit)[^\n]*",
        AccessError,
        "Ask for the right to use the queue, or give another --queue",
    ),
    (
        r"Required (?:executor|AM) memory[^\n]*",
        SettingsError,
        "Ask for less (-- --executor-memory, --conf spark.executor.memoryOverhead, a smaller --batch_size or "
        "--shuffle_buffer), or have yarn.scheduler.maximum-allocation-mb raised",
    ),
    (
        r"[^\n]*(?:Invalid resource request|requested resource (?:type|is greater))[^\n]*",
        SettingsError,
        "Ask for less memory, cores or GPUs a container, or have YARN's maximum allocation raised",
    ),
    (
        r"[^\n]*(?:Unknown resource|ResourceNotFoundException)[^\n]*",
        SettingsError,
        "This YARN has no such resource: yarn.io/gpu in resource-types.xml, or --num_gpus 0",
    ),
    (
        r"[^\n]*(?:AccessControlException|Permission denied)[^\n]*",
        AccessError,
        "Check the owner and the permissions of the folder",
    ),
    (r"[^\n]*(?:QuotaExceeded|quota of)[^\n]*", AccessError, "Free some space, or have the quota raised"),
    (
        r"[^\n]*(?:Failed to find any Kerberos|Client cannot authenticate|GSS initiate failed)[^\n]*",
        AccessError,
        "Run kinit, or give -- --principal … --keytab …",
    ),
    (
        r"[^\n]*Max number of executor failures[^\n]*",
        NodeDiedError,
        "See the executors' logs: `yarn logs -applicationId …`",
    ),
    (
        r"[^\n]*(?:Connection refused|ConnectException|UnknownHostException|RetriesExceeded)[^\n]*",
        ResourceError,
        "See whether the ResourceManager and HDFS are up, and HADOOP_CONF_DIR is right",
    ),
)


@dataclass(frozen=True, kw_only=True)
class ApplicationEnd:
    """The end of an application, as spark-submit reported it.

    Attributes:
      application: its id; empty if it was not submitted.
      final_status: of YARN: SUCCEEDED, FAILED, KILLED; empty if there is none.
      diagnostics: of YARN; the last lines of spark-submit if there was no application.
      command: the submitted command.
    """

    application: str
    final_status: str
    diagnostics: str
    command: str


def judge(end: ApplicationEnd, outcome: Mapping[str, Any] | None) -> JobError | None:
    """Returns the submitter's error; None for success.

    Args:
      end: YARN's report.
      outcome: the job's own (`outcome.Outcome`), or None.
    """
    status = _USER_STATUS.search(end.diagnostics)
    if outcome is not None and _is_of_this_end(outcome, end, status):
        code = outcome["exit_code"]
        return None if code == 0 else error_of(code, outcome.get("error"))
    if end.final_status == "SUCCEEDED":
        return None
    if status:
        return exit_code_class(int(status[1]))(
            f"the driver exited with {status[1]} and left no outcome", place=end.application, next_step=_logs(end)
        )
    return _of_container(end) or _refused(end) or _unknown(end)


def _is_of_this_end(outcome: Mapping[str, Any], end: ApplicationEnd, status: re.Match[str] | None) -> bool:
    """True if the outcome is of the attempt that ended, not of an earlier one that YARN repeated."""
    code = outcome.get("exit_code")
    if code is None:
        return False
    if end.final_status == "SUCCEEDED":
        return bool(code == 0)
    return bool(status and int(status[1]) == code)


def error_of(code: int, told: Mapping[str, str] | None) -> JobError:
    """The error of a job that ended with this exit code, which is not 0, and these words."""
    words = dict(told or {"fact": f"the job ended with exit code {code}"})
    if code in (128 + 2, 128 + 15):
        return InterruptedJobError(**words, signum=code - 128)
    return exit_code_class(code)(**words)


def _of_container(end: ApplicationEnd) -> JobError | None:
    """Returns the error of the driver's container, which ended or was killed."""
    text = end.diagnostics
    if end.final_status == "KILLED" or "killed by user" in text:
        return InterruptedJobError("the application was killed", place=end.application, signum=15)
    figures_found = _MEMORY_FIGURES.search(text)
    if figures_found or _MEMORY_EXIT.search(text):
        figures = f": {figures_found['used']} of {figures_found['limit']} used" if figures_found else ""
        return NodeDiedError(
            f"YARN killed the driver's container for its memory{figures}",
            place=end.application,
            next_step=f"Give it more: {_OVERHEAD}, or a larger -- --driver-memory",
        )
    exits = [int(code) for code in _EXIT.findall(text)]
    if exits and exits[-1] == _PREEMPTED:
        return BusyError("the driver's container was preempted", place=end.application, next_step="Submit it again")
    if exits and exits[-1] in (_SIGKILL, _SIGTERM):
        return NodeDiedError(
            f"the driver's container was killed (exit code {exits[-1]})",
            place=end.application,
            next_step=f"If nobody killed it, it ran out of memory: {_OVERHEAD}. {_logs(end)}",
        )
    return None


def _refused(end: ApplicationEnd) -> JobError | None:
    for pattern, kind, next_step in _REFUSALS:
        if found := re.search(pattern, end.diagnostics):
            return kind(_clean(found[0]), place=end.application or "spark-submit", next_step=next_step)
    return None


def _unknown(end: ApplicationEnd) -> JobError:
    last = next((line.strip() for line in reversed(end.diagnostics.splitlines()) if line.strip()), "")
    if not end.application:
        return ResourceError(f"nothing was submitted: {last or 'spark-submit said nothing'}", place="spark-submit")
    kind = StorageError if "HDFS" in last else NodeDiedError
    return kind(last or "ended without a word", place=end.application, next_step=_logs(end))


def _logs(end: ApplicationEnd) -> str:
    return f"The whole log: yarn logs -applicationId {end.application}"


def _clean(text: str) -> str:
    """Removes the class of a Java exception before its message."""
    return re.sub(r"^.*?(?:Exception|Error): ", "", text.strip()).rstrip(".")
