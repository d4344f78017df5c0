"""The cause of a failed Spark job, found in its page of Java: one line, with an exit code. On the driver."""

from __future__ import annotations

import contextlib
import os
import re

from py4j.protocol import Py4JError

from tfos_job import storage
from tfos_job.errors import JobError, NodeDiedError, SettingsError, StorageError
from tfos_job.protocol.failures import EXECUTOR_LOST

_LOST_TASK = re.compile(r"Lost task .*? \(TID \d+\) \((?P<where>[^)]*)\): (?P<cause>[^\n]*)")
_DEATHS = (EXECUTOR_LOST, "Python worker exited unexpectedly", "Python worker failed to connect back")
# No such program, one of another version, or one without this package and what it needs.
_OTHER_PYTHON = re.compile(
    r'Cannot run program "[^"\n]*"|Python in worker has different version[^\n]*'
    r"|ModuleNotFoundError: No module named '(?:tfos_job|pyspark|numpy|PIL|fsspec|hdfs_native|google_crc32c)\b[^\n]*"
)
_DISK_FULL = "No space left on device"
_RAISED = re.compile(r"(?P<kind>[A-Za-z_][\w.]*)(: .*)?")  # the last line of a Python traceback
_JAVA_CLASS = re.compile(r"^([a-z]\w*\.)+[A-Z]\w*: ")


def explain(failure: Exception) -> JobError | None:
    """The error in words; None if what was raised says as much itself."""
    if isinstance(failure, OSError) and (full := storage.full_disk(failure)):
        return full
    text = _words(failure)
    lost = _LOST_TASK.search(text)
    if other := _OTHER_PYTHON.search(text):
        return SettingsError(
            f"Spark's workers have no Python that can do the work: {other[0]}",
            place=f"PYSPARK_PYTHON={os.environ.get('PYSPARK_PYTHON', 'python3')}",
            next_step="Set it to a Python with this package, of the driver's version, on every node; or submit by "
            "`tfos-job submit`, which brings one along",
        )
    if lost and any(death in text for death in _DEATHS):
        cause = _JAVA_CLASS.sub("", lost["cause"]).partition(". Consider")[0]
        return NodeDiedError(
            f"a task's process has ended: {cause}",
            place=lost["where"],
            next_step="If memory has run out, give executors more (spark.executor.memoryOverhead), or run fewer "
            "tasks at a time (--master local[N]); then run the command again",
        )
    if lost and _DISK_FULL in text:
        return _disk_full(lost["where"])
    if "Traceback (most recent call last)" in text:
        return JobError(
            _raised(text),
            place="a task of Spark's",
            next_step="This is a bug; run again with --debug for the traceback",
        )
    return None


def _words(failure: Exception) -> str:
    """Java's own message, if there is one: py4j's begins with the call that failed."""
    java = getattr(failure, "java_exception", None)
    if java is not None:
        with contextlib.suppress(Py4JError, OSError):  # the JVM may be gone as well
            return str(java.getMessage() or java.toString())
    return str(failure)


def _raised(text: str) -> str:
    """The exception that a Python traceback ends with."""
    traceback = text.rpartition("Traceback (most recent call last)")[2].splitlines()[1:]
    lines = [line for line in traceback if _RAISED.fullmatch(line)]
    return lines[0] if lines else text.splitlines()[0]


def _disk_full(where: str) -> StorageError:
    folders = os.environ.get("SPARK_LOCAL_DIRS")
    return StorageError(
        f"Spark cannot write its temporary files: {_DISK_FULL}",
        place=f"{where}, SPARK_LOCAL_DIRS={folders}" if folders else where,
        next_step="Free space there, or have Spark use another disk (SPARK_LOCAL_DIRS, on YARN "
        "yarn.nodemanager.local-dirs)",
    )
