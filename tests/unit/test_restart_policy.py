from __future__ import annotations

import signal
from typing import Any

import pytest

from tfos_job.errors import (
    AccessError,
    BadDataError,
    BusyError,
    DivergedError,
    FlagError,
    InterruptedJobError,
    JobError,
    MissingInputError,
    NodeDiedError,
    ResourceError,
    SettingsError,
    StorageError,
)
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_end import AttemptEnd, NodeRecord
from tfos_job.protocol.failures import Failure, Kind, Process, Reason
from tfos_job.protocol.restart_policy import (
    COOLDOWN_S,
    FIRST_DELAY_S,
    MAX_DELAY_S,
    MAX_FROM_AVOIDED,
    MEMORY_S,
    Again,
    Enough,
    RestartPolicy,
)
from tfos_job.protocol.topology import CHIEF, COORDINATOR, PS, WORKER, Task

FIRST, SECOND, SERVER = Task(WORKER, 0), Task(WORKER, 1), Task(PS, 0)


def killed(task: Task = FIRST, host: str = "a", pid: int = 7, **other: Any) -> Failure:
    process = Process(task, host, on_driver_host=task.role == CHIEF)
    return Failure(Kind.KILLED, f"its TensorFlow process {pid} was killed by SIGKILL", process=process, **other)


def preempted(host: str = "a") -> Failure:
    return killed(host=host, exit_code=BusyError.exit_code, reason=Reason.PREEMPTED)


def silent(host: str = "a", task: Task = FIRST) -> Failure:
    process = Process(task, host, on_driver_host=task.role == CHIEF)
    return Failure(Kind.LOST, "silent for 20 s", process=process, reason=Reason.SILENT)


def failed(first: Failure | None, *, step: int = 0, checkpoint: int | None = None, **other: Any) -> AttemptEnd:
    outcome = other.pop("outcome", None) or failures.to_error([first] if first else [])
    return AttemptEnd(
        number=1, outcome=outcome, phase="training", first=first, step=step, checkpoint_step=checkpoint, **other
    )


class Run:
    """A policy, its clock, and the number of hosts."""

    def __init__(self, *, restarts: int = 3, preemptions: int = -1, random: float = 1.0, hosts: int = 3) -> None:
        self.policy = RestartPolicy(max_restarts=restarts, max_preemptions=preemptions, random=lambda: random)
        self.now_s = 1000.0
        self.hosts = hosts

    def after(self, *ends: AttemptEnd) -> list[Again | Enough]:
        return [self.policy.after(end, self.now_s, self.hosts) for end in ends]

    def again(self, *ends: AttemptEnd) -> list[Again]:
        decisions = self.after(*ends)
        assert all(isinstance(decision, Again) for decision in decisions), decisions
        return decisions  # type: ignore[return-value]

    def enough(self, end: AttemptEnd) -> Enough:
        (decision,) = self.after(end)
        assert isinstance(decision, Enough), decision
        return decision

    def left_out(self) -> list[str]:
        return [avoided.host for avoided in self.policy.avoided(self.now_s)]


# What another attempt may help against.


@pytest.mark.parametrize(
    "kind",
    [FlagError, BadDataError, MissingInputError, JobError, DivergedError, AccessError, SettingsError],
)
def test_what_another_attempt_would_meet_again_ends_the_job(kind: type[JobError]) -> None:
    first = Failure(Kind.RAISED, "the fact", kind.exit_code, "the place", process=Process(COORDINATOR, "d"))
    end = failed(first, step=5)
    decision = Run().enough(end)
    assert decision.error is end.outcome
    assert str(kind.exit_code) in decision.reason


@pytest.mark.parametrize(
    "outcome",
    [
        InterruptedJobError("stopped"),
        InterruptedJobError("stopped", signum=signal.SIGTERM),
        BusyError("tfos-job train lost its lock"),
    ],
)
def test_a_signal_and_a_lost_lock_end_the_job_whatever_failed_at_that_time(outcome: JobError) -> None:
    assert Run().enough(failed(None, outcome=outcome)).error is outcome
    assert Run().enough(failed(killed(), outcome=outcome)).error is outcome


@pytest.mark.parametrize("outcome", [ResourceError("2 of 3 nodes registered"), StorageError("no answer")])
def test_a_deadline_and_the_drivers_own_storage_end_the_job_and_those_of_a_process_do_not(outcome: JobError) -> None:
    assert Run().enough(failed(None, outcome=outcome)).error is outcome
    first = Failure(Kind.RAISED, outcome.fact, outcome.exit_code, process=Process(FIRST, "a"))
    assert Run().again(failed(first))


def test_a_training_that_stands_still_is_begun_again() -> None:
    stall = NodeDiedError("no step was finished for 600 s")
    run = Run()
    assert run.again(failed(None, outcome=stall, step=3), failed(None, outcome=stall, step=9))
    assert run.enough(failed(None, outcome=stall, step=9)).error.exit_code == 71


# Budgets.


def test_the_budget_ends_with_the_cause_of_the_last_end_and_the_number_of_restarts() -> None:
    run = Run()
    decisions = run.again(*(failed(killed(), step=step, checkpoint=10) for step in (11, 12, 13)))
    assert [decision.reason for decision in decisions] == [
        f"restart {number} of 3 without a newer checkpoint (--max_restarts)" for number in (1, 2, 3)
    ]
    error = run.enough(failed(killed(SERVER, "b"), step=14, checkpoint=10)).error
    assert isinstance(error, NodeDiedError)
    assert error.fact.startswith("its TensorFlow process 7 was killed by SIGKILL")
    assert "after 3 restarts without a newer checkpoint" in error.fact
    assert error.place == "ps:0 on host b"
    assert error.next_step


def test_without_restarts_the_error_is_as_it_was() -> None:
    end = failed(killed(), step=11, checkpoint=10)
    decision = Run(restarts=0).enough(end)
    assert decision.error is end.outcome
    assert decision.reason == "--max_restarts 0"


def test_a_newer_checkpoint_refills_the_budget() -> None:
    run = Run(restarts=1)
    for checkpoint in range(10, 100, 10):
        run.again(failed(killed(), step=checkpoint + 5, checkpoint=checkpoint))
    error = run.enough(failed(killed(), step=96, checkpoint=90)).error
    assert "after 1 restart without a newer checkpoint (--max_restarts), 9 in all" in error.fact


def test_the_first_checkpoint_refills_the_budget_and_an_older_one_does_not() -> None:
    run = Run(restarts=1)
    run.again(failed(killed(), step=5), failed(killed(), step=6, checkpoint=6))
    # The newest one was damaged and set aside.
    run.enough(failed(killed(), step=8, checkpoint=4))
    run = Run(restarts=1)
    run.again(failed(killed(), step=5, checkpoint=6))
    run.enough(failed(killed(), step=6, checkpoint=6))


def test_preemptions_are_of_a_budget_of_their_own_that_nothing_refills() -> None:
    run = Run(restarts=0, preemptions=2)
    first, second = run.again(failed(preempted()), failed(preempted(), step=4, checkpoint=4))
    assert (first.reason, second.reason) == (
        "preemption 1 of 2 (--max_preemptions)",
        "preemption 2 of 2 (--max_preemptions)",
    )
    error = run.enough(failed(preempted(), step=8, checkpoint=8)).error
    assert isinstance(error, BusyError)
    assert "after 2 restarts for preemptions" in error.fact
    end = failed(preempted())
    assert Run(preemptions=0).enough(end).error is end.outcome


def test_any_number_of_preemptions_is_allowed_and_uses_up_no_restart() -> None:
    run = Run(restarts=1)
    decisions = run.again(*[failed(preempted())] * 2000)
    assert decisions[-1].reason == "preemption 2000 of any number (--max_preemptions)"
    assert decisions[-1].delay_s == MAX_DELAY_S
    assert run.left_out() == []
    run.again(failed(killed()))
    error = run.enough(failed(killed(), step=1)).error
    assert "after 1 restart without a newer checkpoint (--max_restarts), 2001 in all" in error.fact


# Delays.


def test_the_first_restart_is_immediate_and_each_later_one_may_wait_twice_as_long() -> None:
    ends = [failed(killed(), step=step) for step in range(9)]
    delays = [decision.delay_s for decision in Run(restarts=9).again(*ends)]
    assert delays == [0, 4, 8, 16, 32, 60, 60, 60, 60]
    assert delays[1] == FIRST_DELAY_S
    assert [decision.delay_s for decision in Run(restarts=9, random=0.0).again(*ends)] == [d / 2 for d in delays]


def test_a_newer_checkpoint_makes_the_next_restart_immediate() -> None:
    run = Run()
    run.again(failed(killed(), step=1), failed(killed(), step=2))
    assert run.again(failed(killed(), step=9, checkpoint=8))[0].delay_s == 0


# The same cause at the same step.


def test_the_same_cause_at_the_same_step_ends_the_job_with_its_exit_code_and_words() -> None:
    run = Run(hosts=1)
    run.again(failed(killed(pid=7), step=5, checkpoint=5))
    decision = run.enough(failed(killed(SECOND, pid=8), step=5, checkpoint=5))
    assert decision.error.exit_code == 71
    assert "process 8 was killed by SIGKILL (it has ended two attempts at step 5)" in decision.error.fact
    assert decision.reason == "the same cause has ended two attempts at one step"
    no_port = Failure(Kind.RAISED, "no port is free", ResourceError.exit_code, process=Process(FIRST, "a"))
    run = Run(hosts=1)
    run.again(failed(no_port))
    assert isinstance(run.enough(failed(no_port)).error, ResourceError)


@pytest.mark.parametrize(
    "other",
    [
        failed(killed(), step=6),
        failed(killed(SERVER), step=5),
        failed(killed(exit_code=ResourceError.exit_code), step=5),
        failed(killed(exception="UnavailableError"), step=5),
        failed(Failure(Kind.RAISED, "raised", 71, process=Process(FIRST, "a")), step=5),
        failed(Failure(Kind.SPARK, "Job aborted"), step=5),
        failed(preempted(), step=5),
        failed(None, outcome=NodeDiedError("no step was finished"), step=5),
    ],
)
def test_another_step_role_kind_code_or_exception_is_another_cause(other: AttemptEnd) -> None:
    run = Run(hosts=1)
    run.again(failed(killed(), step=5), other, failed(killed(), step=5))


def test_a_host_that_can_be_left_out_is_the_cause_until_another_one_was_tried() -> None:
    run = Run(restarts=9)
    run.again(failed(killed(host="a")))
    (decision,) = run.again(failed(killed(host="a")))
    assert [avoided.host for avoided in decision.avoided] == ["a"]
    run.enough(failed(killed(host="b")))


# Memory.


def out_of_memory(host: str = "a") -> Failure:
    return killed(host=host, reason=Reason.MEMORY)


def test_a_process_killed_for_memory_is_restarted_once() -> None:
    run = Run()
    run.again(failed(out_of_memory(), step=5), failed(killed(SERVER, "b"), step=6))
    nodes = (
        NodeRecord(process=Process(SERVER, "b"), peak_bytes=1 << 40),
        NodeRecord(process=Process(FIRST, "a"), peak_bytes=3 << 29, limit_bytes=7 << 28),
    )
    decision = run.enough(failed(out_of_memory(), step=7, nodes=nodes))
    assert "memory has run out in two attempts; at its peak it had 1.50 GiB of 1.75 GiB" in decision.error.fact
    assert decision.error.exit_code == 71
    assert decision.error.next_step
    assert run.left_out() == []


def test_a_newer_checkpoint_allows_another_restart_after_memory_ran_out() -> None:
    run = Run(restarts=1)
    run.again(failed(out_of_memory(), step=5), failed(out_of_memory(), step=9, checkpoint=8))
    assert "two attempts" in run.enough(failed(out_of_memory(), step=9, checkpoint=8)).error.fact


# Hosts.


def test_a_host_with_two_failures_is_left_out_for_a_while() -> None:
    run = Run(restarts=9)
    first, second = run.again(failed(killed(host="a"), step=1), failed(killed(SERVER, "a"), step=2))
    assert first.avoided == ()
    (avoided,) = second.avoided
    assert (avoided.host, avoided.until_s, avoided.reason) == (
        "a",
        run.now_s + COOLDOWN_S,
        "2 attempts have failed there",
    )
    run.now_s += COOLDOWN_S - 1
    assert run.left_out() == ["a"]
    run.now_s += 1
    assert run.left_out() == []
    # What it has done before is forgotten.
    assert run.again(failed(killed(host="a"), step=3))[0].avoided == ()


def test_a_silent_host_is_left_out_at_once() -> None:
    run = Run()
    (decision,) = run.again(failed(silent("a")))
    assert [avoided.host for avoided in decision.avoided] == ["a"]
    assert decision.avoided[0].reason == "nothing was heard from it"


def test_the_last_host_is_never_left_out() -> None:
    run = Run(restarts=9, hosts=1)
    run.again(*(failed(silent("a"), step=step) for step in range(3)))
    assert run.left_out() == []
    run = Run(restarts=9, hosts=2)
    run.again(*(failed(silent(host), step=step) for step, host in enumerate("abab")))
    assert run.left_out() == ["a"]
    run.now_s += COOLDOWN_S
    run.again(failed(silent("b"), step=9))
    assert run.left_out() == ["b"]


def test_the_drivers_host_is_not_left_out_for_the_processes_that_run_there_anyway() -> None:
    run = Run(restarts=9)
    server = Process(SERVER, "d", on_driver_host=True)
    gone = Failure(Kind.LOST, "silent", process=server, reason=Reason.SILENT)
    ends = [failed(silent("d", COORDINATOR), step=1), failed(gone, step=2), failed(killed(COORDINATOR, "d"), step=3)]
    run.again(*ends)
    assert run.left_out() == []


def test_two_failures_far_apart_are_chance() -> None:
    run = Run()
    run.again(failed(killed(host="a"), step=1))
    run.now_s += MEMORY_S
    run.again(failed(killed(host="a"), step=2))
    assert run.left_out() == []


def test_progress_speaks_for_a_host_that_did_not_fail() -> None:
    nodes = tuple(NodeRecord(process=Process(task, host)) for task, host in ((FIRST, "a"), (SERVER, "b")))
    run = Run()
    run.again(failed(killed(host="a"), step=1))
    run.again(failed(killed(SERVER, host="b"), step=9, checkpoint=8, nodes=nodes))
    run.again(failed(killed(host="a"), step=19, checkpoint=18, nodes=nodes))
    assert run.left_out() == []
    run.again(failed(killed(host="a"), step=29, checkpoint=28, nodes=nodes))
    assert run.left_out() == ["a"]


def test_a_node_from_a_host_that_is_left_out_counts_as_no_failure_but_not_for_ever() -> None:
    wrong = Failure(Kind.RAISED, "host a is left out", process=Process(FIRST, "a"), reason=Reason.AVOIDED)
    run = Run(restarts=1)
    run.again(failed(silent("a")), *[failed(wrong)] * MAX_FROM_AVOIDED)
    error = run.enough(failed(wrong)).error
    assert error.exit_code == 71
    assert f"after {MAX_FROM_AVOIDED} restarts for that reason" in error.fact
    run = Run(restarts=2)
    run.again(failed(silent("a")), failed(wrong), failed(killed(host="b")))
    run.enough(failed(killed(host="c"), step=4))
