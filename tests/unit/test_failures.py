from __future__ import annotations

import itertools

import pytest

from tfos_job.errors import BadDataError, NodeDiedError
from tfos_job.protocol import failures
from tfos_job.protocol.failures import Failure, Kind, Process, first_cause, to_error
from tfos_job.protocol.topology import CHIEF, PS, WORKER, Task


def failure(kind: Kind, task: Task, host: str, cause: str, exit_code: int = 71, container: str = "") -> Failure:
    return Failure(kind, cause, exit_code, process=Process(task, host, container))


KILLED = failure(Kind.KILLED, Task(PS, 0), "host-a", "its TensorFlow process 7 was killed by SIGKILL")
LOST = failure(Kind.LOST, Task(CHIEF, 0), "driver", "the line to it is gone")
SPARK = Failure(Kind.SPARK, "Job aborted")
CONSEQUENCE = failure(Kind.CONSEQUENCE, Task(CHIEF, 0), "driver", "UnavailableError")


@pytest.mark.parametrize("order", list(itertools.permutations([KILLED, LOST, SPARK, CONSEQUENCE])))
def test_the_killed_process_explains_the_others_in_whichever_order_they_report(order: tuple[Failure, ...]) -> None:
    assert first_cause(order) is KILLED
    error = to_error(order)
    assert isinstance(error, NodeDiedError)
    assert error.place == "ps:0 on host host-a"
    assert "followed by chief:0" in error.fact


def test_of_equals_the_first_to_arrive() -> None:
    other = failure(Kind.KILLED, Task(PS, 1), "host-b", "killed")
    assert first_cause([other, KILLED]) is other


def test_an_error_keeps_its_exit_code() -> None:
    bad = failure(Kind.RAISED, Task(CHIEF, 0), "driver", "part-3: record 5 cannot be read", BadDataError.exit_code)
    error = to_error([SPARK, bad])
    assert isinstance(error, BadDataError)
    assert "followed by" not in error.fact


def test_log_tail_leaves_out_what_every_process_says() -> None:
    lines = ["WARNING: All log messages before absl::InitializeLog() is called\n", "I0000 00:00 port.cc\n", "E real\n"]
    assert failures.log_tail(lines) == "E real\n"


CONTAINER = "container_1_0001_01_3"
CONTAINER_LOST = failure(Kind.LOST, Task(WORKER, 1), "node-7", "the line to it is gone", container=CONTAINER)
# Spark 4.3's own words: YarnAllocator.processCompletedContainers.
BOOST = "Consider boosting spark.executor.memoryOverhead."


@pytest.mark.parametrize(
    ("reason", "code", "words", "advice"),
    [
        (
            "Container killed by YARN for exceeding physical memory limits. "
            f"1.3 GB of 1.2 GB physical memory used. {BOOST}",
            71,
            "physical memory limits: 1.3 GB of 1.2 GB physical memory used",
            "--conf spark.executor.memoryOverhead=…",
        ),
        (
            "Container killed by YARN for exceeding virtual memory limits. 5.1 GB of 4.2 GB virtual memory used. "
            "Consider boosting spark.executor.memoryOverhead or boosting yarn.nodemanager.vmem-pmem-ratio or disabling "
            "yarn.nodemanager.vmem-check-enabled because of YARN-4714.",
            71,
            "virtual memory limits: 5.1 GB of 4.2 GB virtual memory used",
            "the limit of 4.2 GB",
        ),
        (f"Container killed by YARN for exceeding physical memory limits.  {BOOST}", 71, "physical", "memoryOverhead"),
        (
            "Container from a bad node: container_1_0001_01_3 on host: node-7. Exit status: 137. Possible causes: "
            "(SIGKILL, possible container OOM). Diagnostics: Container killed on request. Exit code is 137.",
            71,
            "was killed (exit status 137)",
            "memoryOverhead",
        ),
        ("Container container_1_0001_01_3 on host: node-7 was preempted.", 75, "was preempted", "resume"),
        (
            "Container marked as failed: container_1_0001_01_3 on host: node-7. Exit status: -100. Possible causes: "
            "None. Diagnostics: Container released on a *lost* node.",
            71,
            "Container released on a *lost* node",
            "resume",
        ),
    ],
)
def test_what_spark_learns_from_yarn_explains_a_lost_line(reason: str, code: int, words: str, advice: str) -> None:
    for told in (
        reason,
        f"ExecutorLostFailure (executor 2 exited caused by one of the running tasks) Reason: {reason}",
    ):
        error = to_error([failures.explain(CONTAINER_LOST, told), CONSEQUENCE])
        assert error.exit_code == code
        assert words in error.fact
        assert advice in error.next_step
        assert error.place == "worker:1 on host node-7, container container_1_0001_01_3"
