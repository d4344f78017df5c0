from __future__ import annotations

from types import SimpleNamespace

import pytest

from tfos_job.driver import task_attempts
from tfos_job.errors import StorageError


@pytest.mark.parametrize(
    ("master", "settings", "expected"),
    [
        ("local", {}, 1),
        ("local[4]", {"spark.task.maxFailures": "9"}, 1),
        ("local[*,3]", {}, 3),
        ("local-cluster[2,1,1024]", {}, 4),
        ("yarn", {}, 4),
        ("yarn", {"spark.task.maxFailures": "1"}, 1),
    ],
)
def test_attempts_are_as_many_as_spark_makes(master: str, settings: dict[str, str], expected: int) -> None:
    conf = SimpleNamespace(get=settings.get)
    assert task_attempts.max_attempts(SimpleNamespace(master=master, getConf=lambda: conf)) == expected


def test_outside_of_spark_there_is_no_other_attempt() -> None:
    failure = task_attempts.TaskFailure(StorageError("gone"))
    assert task_attempts.settled(failure, 4) is failure
