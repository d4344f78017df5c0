from __future__ import annotations

import itertools

import pytest
from msgspec.structs import replace

from tfos_job.errors import BadDataError, NodeDiedError
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_end import NodeRecord
from tfos_job.protocol.failures import Failure, Kind, Process, Reason, first_cause, to_error
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
    ("reason", "code", "words", "advice", "of"),
    [
        (
            "Container killed by YARN for exceeding physical memory limits. "
            f"1.3 GB of 1.2 GB physical memory used. {BOOST}",
            71,
            "physical memory limits: 1.3 GB of 1.2 GB physical memory used",
            "--conf spark.executor.memoryOverhead=…",
            Reason.MEMORY,
        ),
        (
            "Container killed by YARN for exceeding virtual memory limits. 5.1 GB of 4.2 GB virtual memory used. "
            "Consider boosting spark.executor.memoryOverhead or boosting yarn.nodemanager.vmem-pmem-ratio or disabling "
            "yarn.nodemanager.vmem-check-enabled because of YARN-4714.",
            71,
            "virtual memory limits: 5.1 GB of 4.2 GB virtual memory used",
            "the limit of 4.2 GB",
            Reason.MEMORY,
        ),
        (
            f"Container killed by YARN for exceeding physical memory limits.  {BOOST}",
            71,
            "physical",
            "memoryOverhead",
            Reason.MEMORY,
        ),
        (
            "Container marked as failed: container_1_0001_01_3 on host: node-7. Exit status: -104. Possible causes: ",
            71,
            "memory limits (exit status -104)",
            "asks for more memory by itself",
            Reason.MEMORY,
        ),
        (
            "Container from a bad node: container_1_0001_01_3 on host: node-7. Exit status: 137. Possible causes: "
            "(SIGKILL, possible container OOM). Diagnostics: Container killed on request. Exit code is 137.",
            71,
            "was killed (exit status 137)",
            "memoryOverhead",
            Reason.NONE,
        ),
        (
            "Container container_1_0001_01_3 on host: node-7 was preempted.",
            75,
            "was preempted",
            "resume",
            Reason.PREEMPTED,
        ),
        ("Exit status: -102. Possible causes: None.", 75, "was preempted", "resume", Reason.PREEMPTED),
        ("Executor heartbeat timed out after 30211 ms", 71, "timed out", "resume", Reason.SILENT),
        ("Command exited with code 52", 71, "code 52", "resume", Reason.NONE),
        (
            "Container marked as failed: container_1_0001_01_3 on host: node-7. Exit status: -100. Possible causes: "
            "None. Diagnostics: Container released on a *lost* node.",
            71,
            "Container released on a *lost* node",
            "resume",
            Reason.SILENT,
        ),
    ],
)
def test_what_spark_learns_from_yarn_explains_a_lost_line(
    reason: str, code: int, words: str, advice: str, of: Reason
) -> None:
    for told in (
        reason,
        f"ExecutorLostFailure (executor 2 exited caused by one of the running tasks) Reason: {reason}",
    ):
        explained = failures.explain(CONTAINER_LOST, told)
        assert explained.reason is of
        error = to_error([explained, CONSEQUENCE])
        assert error.exit_code == code
        assert words in error.fact
        assert advice in error.next_step
        assert error.place == "worker:1 on host node-7, container container_1_0001_01_3"


def test_words_of_spark_that_explain_nothing_leave_a_reason_as_it_was() -> None:
    silent = replace(CONTAINER_LOST, reason=Reason.SILENT)
    assert failures.explain(silent, "Command exited with code 143").reason is Reason.SILENT


# Memory, by the kernel's own count.


def record(of: Failure, num_oom_kills: int, **sizes: int) -> NodeRecord:
    assert of.process is not None
    return NodeRecord(process=of.process, num_oom_kills=num_oom_kills, **sizes)


def test_a_sigkill_is_for_memory_if_the_kernel_says_so() -> None:
    known = failures.with_memory(KILLED, record(KILLED, 1, peak_bytes=5 << 28, limit_bytes=3 << 29))
    assert known.reason is Reason.MEMORY
    error = to_error([known])
    assert "killed by SIGKILL by the kernel, since memory had run out: 1.25 GiB of 1.50 GiB" in error.fact
    assert "--conf spark.executor.memoryOverhead=…" in error.next_step
    container = failures.explain(CONTAINER_LOST, "Exit status: 137.")
    assert failures.with_memory(container, record(container, 2)).reason is Reason.MEMORY


def test_on_the_drivers_host_it_is_the_drivers_memory() -> None:
    chief = Failure(Kind.KILLED, "killed by SIGKILL", process=Process(Task(CHIEF, 0), "d", on_driver_host=True))
    assert "spark.driver.memoryOverhead=…" in failures.with_memory(chief, record(chief, 1)).next_step


def test_a_sigkill_alone_may_have_been_anybodys_and_a_kill_of_another_process_explains_no_other_end() -> None:
    assert failures.with_memory(KILLED, record(KILLED, 0, peak_bytes=1 << 40, limit_bytes=1 << 30)) is KILLED
    others = [
        failure(Kind.KILLED, Task(PS, 0), "host-a", "its TensorFlow process 7 was killed by SIGSEGV"),
        failure(Kind.RAISED, Task(PS, 0), "host-a", "MemoryError: SIGKILL is what comes next"),
        LOST,
    ]
    for other in others:
        assert failures.with_memory(other, record(other, 1)) is other


# What two failures have in common.


def test_the_same_cause_has_other_words_each_time() -> None:
    again = failure(Kind.KILLED, Task(PS, 1), "host-b", "its TensorFlow process 8 was killed by SIGKILL")
    assert failures.identity(again) == failures.identity(KILLED)
    raised = failures.of_error(BadDataError("record 5 cannot be read", place="part-3"))
    assert raised.exception == "BadDataError"
    assert failures.identity(raised) == ("", Kind.RAISED, 65, "BadDataError")
