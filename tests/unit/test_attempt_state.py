"""Every row of docs/architecture.md's table of deaths that the driver decides, and the ends that are no deaths."""

from __future__ import annotations

import logging
import signal
from typing import Any

import pytest

from tfos_job.errors import (
    BadDataError,
    BusyError,
    InterruptedJobError,
    JobError,
    MissingInputError,
    NodeDiedError,
    ResourceError,
)
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_state import COLLECT_S, EXPLAIN_S, REMIND_S, AttemptState, Limits
from tfos_job.protocol.events import ChildEnded, Event, Joined, LossExplained, Lost, Said, StopHurried, StopRequested
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.instructions import (
    AskSpark,
    AssignCoordinator,
    BeginPhase,
    CloseRegistration,
    EndWith,
    Forward,
    Instruction,
    Log,
    SendStop,
    StartProcesses,
)
from tfos_job.protocol.messages import (
    Bottleneck,
    CheckpointBegun,
    CheckpointPublished,
    Evaluating,
    Finished,
    Hello,
    Left,
    Notice,
    Progress,
    Ready,
)
from tfos_job.protocol.topology import COORDINATOR, PS, WORKER, Task, Topology

LIMITS = Limits(start_s=600, stall_s=300, stop_s=60)
SERVER, FIRST, SECOND = Task(PS, 0), Task(WORKER, 0), Task(WORKER, 1)
NODES = (SERVER, FIRST, SECOND)
CONTAINER = "container_1_0001_01_2"
LOG_URL = "http://node/log"
BOUND = Bottleneck(None, None, 10, 0.5, 0.005, None, 0.1, None)
FINISHED = Finished(7, False, 1.0, 70, [70], BOUND)
AGAIN = "Run train again to resume from the last checkpoint"


class Attempt:
    """A state, its clock, and the instructions so far."""

    def __init__(self, *, is_local: bool = True, ps_on_driver_host: bool = False) -> None:
        topology = Topology(num_ps_tasks=1, num_workers=2, ps_on_driver_host=ps_on_driver_host)
        self.state = AttemptState(topology, LIMITS, driver_host="D", is_local=is_local)
        self.now_s = 1000.0
        self.instructions: list[Instruction] = self.state.begin(self.now_s)

    def hear(self, *events: Event | None, after_s: float = 0.0) -> list[Instruction]:
        """The instructions that these events bring, the first of them after so many seconds."""
        self.now_s += after_s
        found = [instruction for event in events for instruction in self.state.handle(event, self.now_s)]
        self.instructions += found
        return found

    def say(self, *messages: Any, task: Task = COORDINATOR, after_s: float = 0.0) -> list[Instruction]:
        return self.hear(*(Said(task, message) for message in messages), after_s=after_s)

    def wait(self, seconds: float) -> list[Instruction]:
        return self.hear(None, after_s=seconds)

    def join(self, *tasks: Task) -> list[Instruction]:
        return self.hear(*(Joined(task, hello(task)) for task in tasks))

    def train(self) -> Attempt:
        """Up to the first step."""
        self.join(*NODES)
        for task in NODES:
            self.say(Ready(1), task=task)
        self.join(COORDINATOR)
        self.say(Ready(1))
        return self

    def error(self) -> JobError:
        """The error that the attempt has ended with."""
        (found,) = [instruction for instruction in self.instructions if isinstance(instruction, EndWith)]
        assert isinstance(found.outcome, JobError)
        return found.outcome

    def logged(self, level: int = logging.WARNING) -> str:
        return "\n".join(i.text for i in self.instructions if isinstance(i, Log) and i.level == level)


def hello(task: Task) -> Hello:
    if task == COORDINATOR:
        return Hello(task.role, task.index, "D", 9)
    return Hello(task.role, task.index, f"H{task.index}", 7, 4000 + task.index, CONTAINER, LOG_URL)


# Birth.


def test_a_start_goes_from_the_nodes_to_the_coordinator_to_the_first_step() -> None:
    attempt = Attempt()
    began = Log(logging.INFO, "Starting 1 parameter server and 2 workers")
    assert attempt.instructions == [began, BeginPhase("nodes"), StartProcesses()]
    assert attempt.join(*NODES) == []
    assert attempt.say(Ready(1), task=SERVER) == attempt.say(Ready(1), task=FIRST) == []
    cluster = {PS: ["H0:4000"], WORKER: ["H0:4000", "H1:4001"]}
    assert attempt.say(Ready(1), task=SECOND) == [
        Log(logging.INFO, "All of them answer. Building the network"),
        CloseRegistration(),
        BeginPhase("coordinator"),
        AssignCoordinator(cluster),
    ]
    assert attempt.join(COORDINATOR) == []
    assert attempt.say(Ready(1)) == [BeginPhase("training")]
    assert not attempt.state.is_finished
    assert attempt.say(FINISHED) == [Forward(FINISHED), EndWith(FINISHED)]
    assert attempt.state.is_finished


def test_a_start_that_takes_its_time_says_what_it_waits_for() -> None:
    attempt = Attempt()
    attempt.join(SERVER, FIRST)
    attempt.say(Ready(1), task=SERVER)
    assert attempt.wait(REMIND_S - 1) == []
    assert attempt.wait(1) == [Log(logging.INFO, "Still waiting for worker:0, worker:1, 30 s after the start")]
    assert attempt.wait(REMIND_S - 1) == []
    attempt.say(Ready(1), task=FIRST)
    assert attempt.wait(1) == [Log(logging.INFO, "Still waiting for worker:1, 60 s after the start")]
    attempt.join(SECOND)
    attempt.say(Ready(1), task=SECOND)
    assert attempt.wait(REMIND_S) == [Log(logging.INFO, "Still waiting for chief:0, 90 s after the start")]


@pytest.mark.parametrize(
    ("joined", "ready", "fact"),
    [
        ((), (), "ps:0, worker:0, worker:1 did not register within 600 s"),
        ((SERVER, SECOND), (SERVER,), "worker:0 did not register within 600 s"),
        (NODES, (FIRST,), "the TensorFlow server of ps:0 on H0, worker:1 on H1 did not start within 600 s"),
        (NODES, NODES, "the coordinator did not start in time"),
    ],
)
def test_a_start_that_takes_too_long_says_who_is_missing(
    joined: tuple[Task, ...], ready: tuple[Task, ...], fact: str
) -> None:
    attempt = Attempt()
    attempt.join(*joined)
    for task in ready:
        attempt.say(Ready(1), task=task)
    assert all(isinstance(instruction, Log) for instruction in attempt.wait(LIMITS.start_s))
    attempt.wait(0.1)
    error = attempt.error()
    assert isinstance(error, ResourceError)
    assert error.fact == fact
    assert error.next_step == "See whether the queue has room, or raise --start_timeout"


# Death: one row of the table each. Failures are collected for two seconds, whatever else happens.


def of_process(kind: Kind, cause: str, exit_code: int = NodeDiedError.exit_code) -> Failure:
    return Failure(kind, cause, exit_code, detail="E last words\n")


@pytest.mark.parametrize(
    ("event", "kind", "text"),
    [
        pytest.param(
            Said(FIRST, of_process(Kind.KILLED, "its TensorFlow process 14008 was killed by SIGKILL")),
            NodeDiedError,
            "worker:0 on host H0, container container_1_0001_01_2: its TensorFlow process 14008 was killed by SIGKILL. "
            "If nobody killed it, it ran out of memory: give executors more memory overhead "
            "(spark.executor.memoryOverhead). Run train again to resume",
            id="server process, by a signal",
        ),
        pytest.param(
            Said(FIRST, of_process(Kind.RAISED, "TensorFlow sees 0 of the 1 GPUs", ResourceError.exit_code)),
            ResourceError,
            f"worker:0 on host H0, container {CONTAINER}: TensorFlow sees 0 of the 1 GPUs. {AGAIN}",
            id="server process, by an exception at its start",
        ),
        pytest.param(
            Said(SERVER, of_process(Kind.LOST, "its TensorFlow process 14008 has been silent for 20 s")),
            NodeDiedError,
            f"ps:0 on host H0, container {CONTAINER}: its TensorFlow process 14008 has been silent for 20 s. {AGAIN}",
            id="server process, stopped or hung",
        ),
        pytest.param(
            Said(SERVER, of_process(Kind.LOST, "Spark's Python worker of this node is gone")),
            NodeDiedError,
            f"ps:0 on host H0, container {CONTAINER}: Spark's Python worker of this node is gone. {AGAIN}",
            id="the supervisor's parent",
        ),
        pytest.param(
            Lost(FIRST, "connection closed"),
            NodeDiedError,
            f"worker:0 on host H0, container {CONTAINER}: the line to it is gone: connection closed. {AGAIN}",
            id="the supervisor, or the executor's JVM",
        ),
        pytest.param(
            Said(SECOND, failures.of_error(BadDataError("digest is not the manifest's", place="/s/3.tfrecord"))),
            BadDataError,
            "/s/3.tfrecord: digest is not the manifest's",
            id="a shard on its way: damaged",
        ),
        pytest.param(
            Said(SECOND, failures.of_error(MissingInputError("no such file", place="/s/3", next_step="Convert"))),
            MissingInputError,
            "/s/3: no such file. Convert",
            id="a shard on its way: missing",
        ),
        pytest.param(
            Lost(SECOND, "silent for 20 s"),
            NodeDiedError,
            f"worker:1 on host H1, container {CONTAINER}: the line to it is gone: silent for 20 s. {AGAIN}",
            id="the executor's whole host",
        ),
        pytest.param(
            Failure(Kind.SPARK, "ExecutorLostFailure"),
            NodeDiedError,
            f"Spark: ExecutorLostFailure. {AGAIN}",
            id="the executor's whole host: Spark's own word",
        ),
        pytest.param(
            ChildEnded(COORDINATOR, "the coordinator", -9, "E last words\n"),
            NodeDiedError,
            "chief:0 on host D: the coordinator was killed by SIGKILL. If nobody killed it, it ran out of memory: give "
            "the driver more memory overhead (spark.driver.memoryOverhead). Run train again to resume",
            id="the coordinator, by a signal",
        ),
        pytest.param(
            Said(COORDINATOR, failures.of_error(JobError("the model has no output"))),
            JobError,
            "chief:0 on host D: the model has no output",
            id="the coordinator, by an exception",
        ),
    ],
)
def test_a_death_ends_the_attempt_after_others_were_collected(event: Event, kind: type[JobError], text: str) -> None:
    attempt = Attempt().train()
    assert attempt.hear(event) == []
    assert attempt.wait(COLLECT_S - 0.1) == []
    attempt.wait(0.1)
    error = attempt.error()
    assert type(error) is kind
    assert str(error) == text
    has_log = "E last words" in repr(event)
    assert ("The last words of" in attempt.logged()) == ("E last words" in attempt.logged()) == has_log


@pytest.mark.parametrize("is_called", [True, False])
def test_a_server_on_the_drivers_host_is_seen_by_its_parent(is_called: bool) -> None:
    attempt = Attempt(ps_on_driver_host=True)
    if is_called:
        attempt.hear(Joined(SERVER, Hello(PS, 0, "D", 7, 4000)))
    attempt.hear(ChildEnded(SERVER, "its supervisor", -9))
    attempt.wait(COLLECT_S)
    error = attempt.error()
    assert (error.place, error.fact) == ("ps:0 on host D", "its supervisor was killed by SIGKILL")
    assert "give the driver more memory overhead (spark.driver.memoryOverhead)" in error.next_step


def test_an_exit_code_of_a_child_is_a_failure_only_if_nobody_can_have_heard_why() -> None:
    """A child that has called has said its last word, or its line ends."""
    attempt = Attempt().train()
    assert attempt.hear(ChildEnded(COORDINATOR, "the coordinator", 1)) == []
    assert attempt.wait(COLLECT_S) == []
    early = Attempt()
    early.hear(ChildEnded(COORDINATOR, "the coordinator", 1, "E no module\n"))
    early.wait(COLLECT_S)
    assert str(early.error()) == "chief:0 on host D: the coordinator ended with exit code 1"
    assert early.error().exit_code == JobError.exit_code
    assert early.logged().endswith("The last words of chief:0 on host D:\nE no module")


def test_the_process_that_really_died_is_blamed_though_others_report_first() -> None:
    attempt = Attempt().train()
    attempt.say(Failure(Kind.CONSEQUENCE, "UnavailableError"))
    attempt.hear(Failure(Kind.SPARK, "Job aborted"), after_s=1.0)
    attempt.hear(Lost(SECOND, "connection closed"))
    attempt.say(of_process(Kind.KILLED, "its TensorFlow process 7 was killed by SIGTERM"), task=FIRST)
    attempt.wait(COLLECT_S - 1)
    error = attempt.error()
    assert error.place == f"worker:0 on host H0, container {CONTAINER}"
    assert "was killed by SIGTERM (followed by chief:0, worker:1)" in error.fact
    assert f"The whole log of worker:0: {LOG_URL}" in attempt.logged()
    assert "chief:0 on host D: UnavailableError" in attempt.logged(logging.DEBUG)


@pytest.mark.parametrize(
    ("reason", "kind", "words"),
    [
        (
            "Container killed by YARN for exceeding physical memory limits. 899.4 MB of 896 MB physical memory used.",
            NodeDiedError,
            "YARN killed its container for exceeding physical memory limits: 899.4 MB of 896 MB physical memory used",
        ),
        (f"Container {CONTAINER} on host: H1 was preempted.", BusyError, "its container was preempted"),
    ],
)
def test_the_end_of_a_container_is_explained_by_spark(reason: str, kind: type[JobError], words: str) -> None:
    attempt = Attempt(is_local=False).train()
    attempt.hear(Lost(SECOND, "connection closed"))
    assert attempt.wait(COLLECT_S) == attempt.wait(EXPLAIN_S - 0.1) == [AskSpark(CONTAINER)]
    attempt.hear(LossExplained(reason))
    assert type(attempt.error()) is kind
    assert words in attempt.error().fact
    assert words in attempt.logged()
    assert attempt.error().place == f"worker:1 on host H1, container {CONTAINER}"


@pytest.mark.parametrize("ends", ["time", "hurry"])
def test_an_explanation_is_not_waited_for_for_ever(ends: str) -> None:
    attempt = Attempt(is_local=False).train()
    attempt.hear(Failure(Kind.SPARK, "Job aborted"))
    assert attempt.wait(COLLECT_S) == [AskSpark("")]
    if ends == "time":
        attempt.wait(EXPLAIN_S)
    else:
        attempt.hear(StopHurried())
    assert attempt.error().fact == "Job aborted"
    assert attempt.hear(LossExplained("too late")) == []


def test_a_killed_process_on_a_cluster_needs_no_explanation() -> None:
    attempt = Attempt(is_local=False).train()
    attempt.say(of_process(Kind.KILLED, "killed"), task=FIRST)
    attempt.wait(COLLECT_S)
    assert attempt.error().fact == "killed"


def test_a_coordinator_without_news_ends_the_attempt() -> None:
    attempt = Attempt().train()
    attempt.say(Evaluating(1, 100), after_s=LIMITS.stall_s)
    attempt.say(Notice("copied 3 files"), task=FIRST, after_s=LIMITS.stall_s)
    assert "worker:0 on host H0: copied 3 files" in attempt.logged(logging.INFO)
    attempt.say(Notice("it computes on the CPU", is_warning=True), task=FIRST)
    assert "worker:0 on host H0: it computes on the CPU" in attempt.logged(logging.WARNING)
    attempt.say(Left(), task=SECOND)  # that is none
    assert attempt.wait(LIMITS.stall_s) == []
    attempt.wait(0.1)
    assert str(attempt.error()) == (
        "chief:0 on host D: no step was finished for 300 s. "
        "If steps are really that slow raise --stall_timeout; else run train again to resume"
    )
    assert attempt.error().exit_code == NodeDiedError.exit_code


def test_what_has_left_may_hang_up() -> None:
    attempt = Attempt().train()
    attempt.say(Left(), task=FIRST)
    attempt.say(of_process(Kind.RAISED, "it broke"), task=SECOND)
    attempt.hear(Lost(FIRST, "connection closed"), Lost(SECOND, "connection closed"))
    attempt.wait(COLLECT_S)
    assert attempt.error().fact == "it broke"


# Signals.


def test_a_signal_before_the_first_step_ends_the_attempt_at_once() -> None:
    for attempt in (Attempt(), Attempt()):
        attempt.hear(StopRequested(signal.SIGTERM))
        error = attempt.error()
        assert isinstance(error, InterruptedJobError)
        assert (error.exit_code, error.fact) == (143, "stopped before a checkpoint")


def test_a_signal_waits_for_a_last_checkpoint_and_says_for_how_long() -> None:
    attempt = Attempt().train()
    progress = Progress(1, 1.0, 0.5, 1e-4, 100.0, 0.0, BOUND)
    attempt.say(progress)
    attempt.say(progress, CheckpointBegun(1), CheckpointPublished(1, "step-1", 12.0), after_s=8.0)
    first, log = attempt.hear(StopRequested(signal.SIGINT))
    assert first == SendStop(COORDINATOR)
    assert log == Log(
        logging.WARNING,
        "Waiting for the running steps and a last checkpoint, some 20 s, at most 60 s (--stop_timeout); "
        "a second signal does not wait",
    )
    assert attempt.wait(LIMITS.stop_s) == []
    finished = Finished(2, True, 1.0, 70, [70])
    assert attempt.say(finished) == [Forward(finished), EndWith(finished)]


def test_without_a_checkpoint_before_nobody_guesses_how_long_it_takes() -> None:
    attempt = Attempt().train()
    attempt.hear(StopRequested(signal.SIGINT))
    assert "a last checkpoint, at most 60 s" in attempt.logged()


@pytest.mark.parametrize("ends", ["second signal", "time", "failure"])
def test_a_signal_is_an_interruption_whatever_ends_the_wait(ends: str) -> None:
    attempt = Attempt().train()
    attempt.say(CheckpointBegun(1), CheckpointPublished(1, "step-1", 12.0))
    attempt.hear(StopRequested(signal.SIGTERM))
    if ends == "second signal":
        attempt.hear(StopHurried())
    elif ends == "time":
        attempt.wait(LIMITS.stop_s + 0.1)
    else:  # the signal may have reached the nodes as well
        attempt.hear(Lost(FIRST, "connection closed"))
    error = attempt.error()
    assert isinstance(error, InterruptedJobError)
    assert error.fact == "stopped; the last checkpoint of this attempt is of step 1"
    assert (error.exit_code, error.next_step) == (143, "Run train again to go on")


# A checkpoint on its way.


def test_a_checkpoint_on_its_way_is_published_though_a_worker_has_died() -> None:
    attempt = Attempt().train()
    attempt.say(CheckpointBegun(5))
    attempt.say(of_process(Kind.KILLED, "killed"), task=FIRST)
    attempt.wait(COLLECT_S)
    assert attempt.wait(LIMITS.stop_s) == []
    published = CheckpointPublished(5, "step-5", 1.0)
    forwarded, end = attempt.say(published)
    assert forwarded == Forward(published)
    assert isinstance(end, EndWith)
    assert attempt.error().fact == "killed"
    assert "was not finished" not in attempt.logged()


@pytest.mark.parametrize(
    ("event", "after_s", "is_told"),
    [
        (ChildEnded(COORDINATOR, "the coordinator", 1), 0, False),
        (Said(COORDINATOR, Failure(Kind.CONSEQUENCE, "UnavailableError")), 0, False),
        (StopHurried(), 0, True),
        (None, LIMITS.stop_s + 0.1, True),
    ],
)
def test_nobody_waits_for_a_checkpoint_that_cannot_come(event: Event | None, after_s: float, is_told: bool) -> None:
    attempt = Attempt().train()
    attempt.say(CheckpointBegun(5))
    attempt.hear(Lost(FIRST, "connection closed"))
    assert not any(isinstance(instruction, EndWith) for instruction in attempt.wait(COLLECT_S))
    attempt.hear(event, after_s=after_s)
    assert "the line to it is gone" in attempt.error().fact
    assert ("The checkpoint of step 5 was not finished" in attempt.logged()) == is_told


def test_a_checkpoint_after_a_signal_has_the_time_of_the_signal() -> None:
    attempt = Attempt().train()
    attempt.hear(StopRequested(signal.SIGINT))
    attempt.say(CheckpointBegun(5), after_s=LIMITS.stop_s - 1)
    assert attempt.hear(Lost(FIRST, "connection closed")) == []
    attempt.wait(1.1)
    assert attempt.error().fact == "stopped before a checkpoint"
    assert "The checkpoint of step 5 was not finished" in attempt.logged()
