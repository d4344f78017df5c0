"""Words of Spark 4.3 as they were caught, and what becomes of them."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfos_job.driver import spark_errors
from tfos_job.errors import JobError, NodeDiedError, SettingsError, StorageError

ABORTED = "Job aborted due to stage failure: Task 0 in stage 0.0 failed 4 times, most recent failure: Lost task 0.3 in "
FULL = "com.esotericsoftware.kryo.KryoException: java.io.IOException: No space left on device\n\tat com.es.kryo.Output"
CRASHED = (
    "org.apache.spark.SparkException: Python worker exited unexpectedly (crashed). Consider setting 'spark.…'\n\tat org"
)
LOST = (
    "ExecutorLostFailure (executor 1 exited caused by one of the running tasks) Reason: Container marked as failed: "
    "container_1 on host: n1. Exit status: 137. Diagnostics: Killed\nDriver stacktrace:"
)


class Raised(Exception):
    """As py4j's, whose message begins with the call, and that has Java's."""

    def __init__(self, message: str) -> None:
        super().__init__(f"An error occurred while calling z:…collectAndServe.\n: {message}")
        self.java_exception = SimpleNamespace(getMessage=lambda: message)


@pytest.mark.parametrize(
    ("cause", "kind", "place", "fact"),
    [
        (
            FULL,
            StorageError,
            "n1 executor 1, SPARK_LOCAL_DIRS=/tiny",
            "Spark cannot write its temporary files: No space",
        ),
        (CRASHED, NodeDiedError, "n1 executor 1", "a task's process has ended: Python worker exited unexpectedly"),
        (
            LOST,
            NodeDiedError,
            "n1 executor 1",
            r"a task's process has ended: ExecutorLostFailure .* on host: n1\. Exit status: 137",
        ),
    ],
)
def test_what_was_lost_is_told_with_the_place(
    cause: str, kind: type[JobError], place: str, fact: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARK_LOCAL_DIRS", "/tiny")
    error = spark_errors.explain(Raised(f"{ABORTED}stage 0.0 (TID 6) (n1 executor 1): {cause}"))
    assert type(error) is kind
    assert (error.place, "\n" in str(error)) == (place, False)
    with pytest.raises(kind, match=fact):
        raise error


def test_a_driver_without_room_and_what_is_left_as_it_is() -> None:
    assert isinstance(spark_errors.explain(OSError(28, "No space left on device")), StorageError)
    assert spark_errors.explain(ConnectionRefusedError(111, "refused")) is None
    assert spark_errors.explain(Raised("Job 3 cancelled")) is None


NO_PYTHON = 'java.io.IOException: Cannot run program "/opt/py/bin/python3": error=2, No such file or directory\n\tat'
NO_NUMPY = (
    "org.apache.spark.api.python.PythonException: An exception was thrown from the Python worker: Traceback (most "
    'recent call last):\n  File "worker.py", line 3, in main\n'
    "ModuleNotFoundError: No module named 'numpy'\n\n\tat org"
)
OLD_PYTHON = (
    "pyspark.errors.PySparkRuntimeError: [PYTHON_VERSION_MISMATCH] Python in worker has different version: 3.9 than "
    "that in driver: 3.11, PySpark cannot run with different minor versions.\n\tat org"
)


@pytest.mark.parametrize(
    ("cause", "fact"),
    [
        (NO_PYTHON, 'Cannot run program "/opt/py/bin/python3"'),
        (NO_NUMPY, "ModuleNotFoundError: No module named 'numpy'"),
        (OLD_PYTHON, "Python in worker has different version: 3.9 than that in driver: 3.11"),
    ],
)
def test_a_python_that_cannot_do_the_work_is_a_setting(cause: str, fact: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYSPARK_PYTHON", "/opt/py/bin/python3")
    error = spark_errors.explain(Raised(f"{ABORTED}stage 0.0 (TID 6) (n1 executor 1): {cause}"))
    assert isinstance(error, SettingsError)
    assert error.fact.startswith(f"Spark's workers have no Python that can do the work: {fact}")
    assert error.place == "PYSPARK_PYTHON=/opt/py/bin/python3"
