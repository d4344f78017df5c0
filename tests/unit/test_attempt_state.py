"""Every row of docs/architecture.md's table of deaths that the driver decides, and the ends that are no deaths."""

from __future__ import annotations

import logging
import signal
from typing import Any

import pytest

from tfos_job.config.deadlines import Deadlines
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
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.attempt_state import REMIND_S, STACKS_S, AttemptState
from tfos_job.protocol.blame import COLLECT_S, EXPLAIN_S, SUSPECT_S
from tfos_job.protocol.events import (
    ChildEnded,
    Event,
    ExecutorAlive,
    Joined,
    LockLost,
    LossExplained,
    Lost,
    Said,
    StopHurried,
    StopRequested,
)
from tfos_job.protocol.failures import Failure, Kind, Reason
from tfos_job.protocol.instructions import (
    AdmitHosts,
    AskSpark,
    AskStacks,
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
    Stacks,
    Vitals,
)
from tfos_job.protocol.topology import COORDINATOR, EXECUTOR, PS, WORKER, Task, Topology

LIMITS = Deadlines(
    containers=500,
    registration=600,
    build=400,
    first_step=200,
    stall=300,
    checkpoint=250,
    drain=60,
    shutdown=30,
)
SERVER, FIRST, SECOND = Task(PS, 0), Task(WORKER, 0), Task(WORKER, 1)
NODES = (SERVER, FIRST, SECOND)
CONTAINER = "container_1_0001_01_2"
LOG_URL = "http://node/log"
BOUND = Bottleneck(None, None, 10, 0.5, 0.005, None, 0.1, None)
FINISHED = Finished(7, False, 1.0, 70, [70], BOUND)
AGAIN = "Run train again to resume from the last checkpoint"


class Attempt:
    """A state, its clock, and the instructions so far."""

    def __init__(self, *, is_local: bool = True, ps_on_driver_host: bool = False, **more: Any) -> None:
        topology = Topology(num_ps_tasks=1, num_workers=2, ps_on_driver_host=ps_on_driver_host)
        self.state = AttemptState(topology, number=3, deadlines=LIMITS, driver_host="D", is_local=is_local, **more)
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

    def register(self) -> Attempt:
        """Up to the building of the network."""
        self.join(*NODES)
        for task in NODES:
            self.say(Ready(1), task=task)
        return self

    def train(self) -> Attempt:
        """Up to the first step."""
        self.register().join(COORDINATOR)
        self.say(Ready(1))
        return self

    def step(self, step: int = 1) -> Attempt:
        """Some steps."""
        self.say(Progress(step, 1.0, 0.5, 1e-4, 100.0, 0.0, BOUND))
        return self

    def end(self) -> AttemptEnd:
        (found,) = [instruction for instruction in self.instructions if isinstance(instruction, EndWith)]
        return found.outcome

    def error(self) -> JobError:
        """The error that the attempt has ended with."""
        outcome = self.end().outcome
        assert isinstance(outcome, JobError)
        return outcome

    def logged(self, level: int = logging.WARNING) -> str:
        return "\n".join(i.text for i in self.instructions if isinstance(i, Log) and i.level == level)


def hello(task: Task) -> Hello:
    if task == COORDINATOR:
        return Hello(task.role, task.index, "D", 9)
    host = f"H{task.index}"
    addresses = (host, f"{host}b")
    return Hello(task.role, task.index, host, 7, 4000 + task.index, CONTAINER, LOG_URL, addresses=addresses)


# Birth.


def test_a_start_goes_from_the_nodes_to_the_coordinator_to_the_first_step() -> None:
    attempt = Attempt()
    began = Log(logging.INFO, "Starting attempt 3: 1 parameter server and 2 workers")
    assert attempt.instructions == [began, BeginPhase("registration"), StartProcesses()]
    assert attempt.join(SERVER, FIRST) == []
    assert attempt.join(SECOND) == [AdmitHosts(["H0", "H0b", "H1", "H1b"])]
    assert attempt.say(Ready(1), task=SERVER) == attempt.say(Ready(1), task=FIRST) == []
    cluster = {PS: ["H0:4000"], WORKER: ["H0:4000", "H1:4001"]}
    assert attempt.say(Ready(1), task=SECOND) == [
        Log(logging.INFO, "All of them answer. Building the network"),
        CloseRegistration(),
        BeginPhase("build"),
        AssignCoordinator(cluster),
    ]
    assert attempt.join(COORDINATOR) == []
    assert attempt.say(Ready(1)) == [BeginPhase("first_step")]
    progress = Progress(1, 1.0, 0.5, 1e-4, 100.0, 0.0, BOUND)
    assert attempt.say(progress) == [Forward(progress), BeginPhase("training")]
    assert attempt.say(progress) == [Forward(progress)]
    assert not attempt.state.is_finished
    assert attempt.say(FINISHED) == [Forward(FINISHED), EndWith(attempt.end())]
    assert attempt.state.is_finished
    assert (attempt.end().outcome, attempt.end().phase) == (FINISHED, "training")


def test_a_start_that_takes_its_time_says_what_it_waits_for() -> None:
    attempt = Attempt()
    attempt.join(SERVER)
    assert attempt.wait(REMIND_S - 1) == []
    assert attempt.wait(1) == [Log(logging.INFO, "Still waiting for worker:0, worker:1, 30 s after the start")]
    attempt.join(FIRST)
    assert attempt.wait(REMIND_S) == [Log(logging.INFO, "Still waiting for worker:1, 60 s after the start")]
    attempt.join(SECOND)
    attempt.say(Ready(1), task=SERVER)
    assert attempt.wait(REMIND_S - 1) == []
    attempt.say(Ready(1), task=FIRST)
    assert attempt.wait(1) == [Log(logging.INFO, "Still waiting for worker:1, 90 s after the start")]
    attempt.say(Ready(1), task=SECOND)
    assert attempt.wait(REMIND_S) == [Log(logging.INFO, "Still waiting for chief:0, 120 s after the start")]


# Deadlines. Each says who is missing.


@pytest.mark.parametrize(
    ("joined", "ready", "fact"),
    [
        ((), (), "0 of 3 nodes registered within 600 s; ps:0, worker:0, worker:1 are missing"),
        ((SERVER, FIRST), (), "2 of 3 nodes registered within 600 s; worker:1 is missing"),
        (
            NODES,
            (FIRST,),
            "3 of 3 nodes registered within 600 s; the TensorFlow server of ps:0 on H0, worker:1 on H1 did not start",
        ),
    ],
)
def test_a_registration_that_takes_too_long_says_who_is_missing(
    joined: tuple[Task, ...], ready: tuple[Task, ...], fact: str
) -> None:
    attempt = Attempt()
    attempt.join(*joined)
    for task in ready:
        attempt.say(Ready(1), task=task)
    assert all(isinstance(instruction, Log) for instruction in attempt.wait(LIMITS.registration))
    attempt.wait(0.1)
    error, end = attempt.error(), attempt.end()
    assert isinstance(error, ResourceError)
    assert error.fact == fact
    assert error.next_step == (
        "See whether the queue has room, or raise --start_timeout or --deadlines registration=600"
    )
    assert (end.phase, end.first, end.number, end.step) == ("registration", None, 3, 0)
    assert [node.process.task for node in end.nodes] == sorted(joined)


def test_a_missing_node_is_looked_for_on_the_executor_that_no_call_came_from() -> None:
    attempt = Attempt(executor_hosts=("H0", "H0", "H1", "H2"))
    attempt.join(SERVER, FIRST)
    attempt.wait(LIMITS.registration + 0.1)
    assert "worker:1 is missing (no call came from the executor on H1, H2)" in attempt.error().fact


@pytest.mark.parametrize(
    ("has_called", "fact"),
    [
        (True, "the coordinator has been building the network for 400 s"),
        (False, "the coordinator did not call within 400 s"),
    ],
)
def test_a_network_that_is_not_built_in_time_ends_the_attempt_with_its_stacks(has_called: bool, fact: str) -> None:
    attempt = Attempt().register()
    if has_called:
        attempt.join(COORDINATOR)
    assert all(isinstance(instruction, Log) for instruction in attempt.wait(LIMITS.build))
    assert AskStacks() in attempt.wait(0.1)
    attempt.say(Stacks("in apply"), task=SERVER)
    attempt.wait(STACKS_S)
    error, end = attempt.error(), attempt.end()
    assert isinstance(error, ResourceError)
    assert (error.place, error.fact) == ("chief:0 on host D", fact)
    assert error.next_step.endswith("or raise --start_timeout or --deadlines build=400")
    assert (end.phase, end.first, end.stacks) == ("build", None, {"ps:0": "in apply"})


def test_a_first_step_that_does_not_come_is_a_failure_of_the_attempt() -> None:
    attempt = Attempt(start_step=40).train()
    attempt.say(Notice("copied 3 files"), task=FIRST, after_s=LIMITS.first_step)
    assert attempt.wait(LIMITS.first_step) == []
    attempt.wait(0.1)
    attempt.wait(STACKS_S)
    error, end = attempt.error(), attempt.end()
    assert isinstance(error, NodeDiedError)
    assert str(error) == (
        "chief:0 on host D: no step was finished for 200 s, the first one is missing; last heard: worker:0 on host "
        "H0: copied 3 files. If steps are really that slow raise --stall_timeout or --deadlines first_step=200; else "
        "run train again to resume"
    )
    assert (end.phase, end.step, end.start_step) == ("first_step", 40, 40)
    assert end.first is not None
    assert end.first.process is not None
    assert end.first.process.on_driver_host


def test_an_attempt_that_stands_still_has_the_stacks_of_its_processes_before_any_of_them_is_killed() -> None:
    attempt = Attempt().train().step(57)
    attempt.say(Evaluating(57, 100), after_s=LIMITS.stall)
    attempt.say(Notice("copied 3 files"), task=FIRST, after_s=LIMITS.stall)
    assert "worker:0 on host H0: copied 3 files" in attempt.logged(logging.INFO)
    attempt.say(Notice("it computes on the CPU", is_warning=True), task=FIRST)
    assert "worker:0 on host H0: it computes on the CPU" in attempt.logged(logging.WARNING)
    attempt.say(Left(), task=SECOND)  # that is none
    assert attempt.say(Vitals(1 << 30), after_s=LIMITS.stall) == []  # the driver measures that, whatever happens
    told, ask = attempt.wait(0.1)
    assert ask == AskStacks()
    assert isinstance(told, Log)
    text = "".join(f"line {i}\n" for i in range(1000))
    assert attempt.say(Stacks(text), task=SERVER) == attempt.say(Stacks("x" * 100_000), task=FIRST) == []
    attempt.say(Stacks("in step"), after_s=STACKS_S - 1)  # the last one that is asked
    error, end = attempt.error(), attempt.end()
    assert str(error) == told.text
    assert told.text == (
        "chief:0 on host D: no step was finished for 300 s, the next one is missing after step 57. If steps are "
        "really that slow raise --stall_timeout or --deadlines stall=300; else run train again to resume"
    )
    assert error.exit_code == NodeDiedError.exit_code
    assert end.stacks == {
        "chief:0": "in step",
        "ps:0": "\n".join(f"line {i}" for i in range(800, 1000)),
        "worker:0": "x" * 32768,
    }
    assert (end.phase, end.step) == ("training", 57)
    assert end.first is not None
    assert end.first.kind is Kind.LOST


@pytest.mark.parametrize("ends", ["time", "hurry", "failure"])
def test_stacks_are_not_waited_for_for_ever(ends: str) -> None:
    attempt = Attempt().train().step()
    attempt.wait(LIMITS.stall + 0.1)
    attempt.say(Stacks("in step"))
    if ends == "time":
        attempt.wait(STACKS_S)
    elif ends == "hurry":
        attempt.hear(StopHurried())
    else:  # a process that is stopped falls silent at last: that was why
        attempt.hear(Lost(FIRST, "silent for 20 s", is_silent=True))
        attempt.wait(COLLECT_S)
        assert attempt.error().fact == "the line to it is gone: silent for 20 s"
        assert attempt.error().place.startswith("worker:0 on host H0")
    assert attempt.end().stacks == {"chief:0": "in step"}


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
            Said(
                Task(EXECUTOR, 0), failures.of_error(ResourceError("no port of 4-6 is free", place="--port_range 4-6"))
            ),
            ResourceError,
            f"--port_range 4-6: no port of 4-6 is free. {AGAIN}",
            id="a Spark task before it has a role",
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
    collect_s = SUSPECT_S if isinstance(event, Failure) else COLLECT_S
    assert attempt.wait(collect_s - 0.1) == []
    attempt.wait(0.1)
    error = attempt.error()
    assert type(error) is kind
    assert str(error) == text
    assert attempt.end().outcome is error
    assert str(attempt.end().first) in attempt.logged()
    assert attempt.end().followers == ()
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
    assert attempt.wait(COLLECT_S - 0.1) == []
    attempt.wait(0.1)
    error, end = attempt.error(), attempt.end()
    assert end.first is not None
    assert end.first.kind is Kind.KILLED
    assert [each.kind for each in end.followers] == [Kind.CONSEQUENCE, Kind.SPARK, Kind.LOST]
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


@pytest.mark.parametrize("ends", ["time", "signal", "hurry", "the executor is there"])
def test_an_explanation_is_not_waited_for_for_ever(ends: str) -> None:
    attempt = Attempt(is_local=False).train()
    attempt.hear(Lost(SECOND, "connection closed"))
    assert attempt.wait(COLLECT_S) == [AskSpark(CONTAINER)]
    if ends == "time":
        attempt.wait(EXPLAIN_S)
    elif ends == "signal":
        attempt.hear(StopRequested(signal.SIGTERM))
    elif ends == "hurry":
        attempt.hear(StopHurried())
    else:
        attempt.hear(ExecutorAlive())
    assert attempt.error().fact == "the line to it is gone: connection closed"
    assert attempt.hear(LossExplained("too late")) == []


def test_spark_is_asked_about_any_executor_where_only_spark_has_failed() -> None:
    attempt = Attempt(is_local=False)
    assert attempt.hear(LossExplained("nobody has asked")) == attempt.hear(Failure(Kind.SPARK, "Job aborted")) == []
    assert attempt.wait(COLLECT_S) == [AskSpark("")]
    attempt.hear(LossExplained(f"Container {CONTAINER} on host: H1 was preempted."))
    assert isinstance(attempt.error(), BusyError)


def test_spark_is_not_asked_about_a_host_that_is_silent() -> None:
    attempt = Attempt(is_local=False).train()
    attempt.hear(Lost(SECOND, "silent for 20 s", is_silent=True))
    attempt.wait(COLLECT_S)
    first = attempt.end().first
    assert first is not None
    assert (first.kind, first.reason) == (Kind.LOST, Reason.SILENT)


def test_a_killed_process_on_a_cluster_needs_no_explanation() -> None:
    attempt = Attempt(is_local=False).train()
    attempt.say(of_process(Kind.KILLED, "killed"), task=FIRST)
    attempt.wait(COLLECT_S)
    assert attempt.error().fact == "killed"


# What only follows from another failure: the cause may be a host whose silence takes its time.


CONSEQUENCE = Said(COORDINATOR, Failure(Kind.CONSEQUENCE, "UnavailableError"))


@pytest.mark.parametrize("event", [CONSEQUENCE, Failure(Kind.SPARK, "ExecutorLostFailure")])
def test_a_silent_host_is_blamed_for_what_follows_from_its_silence(event: Event) -> None:
    attempt = Attempt(is_local=False).train()
    assert attempt.hear(event) == []
    assert attempt.wait(SUSPECT_S - COLLECT_S - 0.1) == []
    assert attempt.hear(Lost(SECOND, "silent for 20 s", is_silent=True)) == []
    assert attempt.wait(COLLECT_S - 0.1) == []
    attempt.wait(0.1)
    assert attempt.error().place == f"worker:1 on host H1, container {CONTAINER}"


def test_a_consequence_without_a_cause_is_blamed_when_no_silence_can_explain_it_any_more() -> None:
    attempt = Attempt().train()
    assert attempt.hear(CONSEQUENCE) == attempt.wait(SUSPECT_S - 0.1) == []
    attempt.wait(0.1)
    assert str(attempt.error()) == f"chief:0 on host D: UnavailableError. {AGAIN}"


@pytest.mark.parametrize(
    "others",
    [
        pytest.param([Said(task, Left()) for task in NODES], id="nobody is left who could fall silent"),
        pytest.param([StopRequested(signal.SIGINT)], id="the user does not want to wait"),
    ],
)
def test_a_consequence_is_not_doubted_for_nothing(others: list[Event]) -> None:
    attempt = Attempt().train()
    attempt.hear(CONSEQUENCE, *others)
    attempt.wait(COLLECT_S)
    assert attempt.error().fact == "UnavailableError"


@pytest.mark.parametrize("exit_code", [JobError.exit_code, NodeDiedError.exit_code])
def test_an_exception_that_spark_tells_of_is_a_cause(exit_code: int) -> None:
    attempt = Attempt().train()
    attempt.hear(Failure(Kind.SPARK, "SparkException: Python worker exited unexpectedly", exit_code))
    attempt.wait(COLLECT_S)
    assert attempt.error().fact == "SparkException: Python worker exited unexpectedly"
    assert attempt.error().exit_code == exit_code


@pytest.mark.parametrize("is_publishing", [True, False])
def test_a_training_that_is_done_has_not_failed_whatever_happens_meanwhile(is_publishing: bool) -> None:
    attempt = Attempt().train()
    if is_publishing:
        attempt.say(CheckpointBegun(7))
    attempt.hear(Lost(FIRST, "connection closed"))
    attempt.wait(COLLECT_S if is_publishing else COLLECT_S - 0.1)
    attempt.say(FINISHED)
    assert attempt.end().outcome == FINISHED


# Hosts that are left out, and what an end tells.


def test_a_node_on_a_host_that_is_left_out_ends_the_attempt() -> None:
    attempt = Attempt(avoided_hosts=frozenset({"H0"}))
    assert attempt.join(SECOND, SERVER) == []
    attempt.wait(COLLECT_S)
    first = attempt.end().first
    assert first is not None
    assert first.reason is Reason.AVOIDED
    assert str(attempt.error()) == (
        f"ps:0 on host H0, container {CONTAINER}: its host is left out of this attempt, since others have failed "
        f"there. {AGAIN}"
    )


def test_the_drivers_own_processes_stay_on_its_host() -> None:
    attempt = Attempt(avoided_hosts=frozenset({"H0", "D"}), ps_on_driver_host=True)
    assert attempt.join(COORDINATOR, SECOND, SERVER) == attempt.wait(COLLECT_S) == []


def test_an_end_has_what_is_known_of_each_node() -> None:
    attempt = Attempt(start_step=10, checkpoint_step=10).train()
    attempt.say(Vitals(3 << 30, 4 << 30, 1), task=FIRST)
    for step, seconds in ((12, 0.5), (14, 1.5)):
        attempt.say(Progress(step, 1.0, 0.5, 1e-4, 100.0, 0.0, BOUND, worker_step_s={"0": seconds, "1": 0.25}))
    attempt.say(CheckpointBegun(14), CheckpointPublished(14, "step-14"))
    attempt.hear(Lost(FIRST, "connection closed"))
    attempt.wait(COLLECT_S)
    end = attempt.end()
    assert (end.number, end.start_step, end.step, end.checkpoint_step) == (3, 10, 14, 14)
    told = {str(node.process.task): node for node in end.nodes}
    assert list(told) == ["chief:0", "ps:0", "worker:0", "worker:1"]
    first = told["worker:0"]
    assert (first.peak_bytes, first.limit_bytes, first.num_oom_kills, first.step_s) == (3 << 30, 4 << 30, 1, 1.0)
    assert (told["worker:1"].step_s, told["ps:0"].step_s) == (0.25, None)
    assert told["worker:1"].process.host == "H1"


def test_a_kill_that_the_kernel_has_counted_is_for_memory_and_any_other_may_be_anybodys() -> None:
    killed = of_process(Kind.KILLED, "its TensorFlow process 7 was killed by SIGKILL")
    lost = Lost(SECOND, "connection closed")
    for num_oom_kills, reason in ((1, Reason.MEMORY), (0, Reason.NONE)):
        attempt = Attempt().train()
        attempt.say(Vitals(3 << 30, 4 << 30, num_oom_kills), killed, task=FIRST)
        attempt.hear(lost)
        attempt.wait(SUSPECT_S)
        first = attempt.end().first
        assert first is not None
        assert first.reason is reason
        assert ("3.00 GiB of 4.00 GiB" in attempt.error().fact) == (num_oom_kills > 0)
        assert attempt.error().fact.endswith("(followed by worker:1)")
        assert len(attempt.end().followers) == 1


def test_an_end_without_a_step_is_at_the_checkpoint_that_it_began_with() -> None:
    attempt = Attempt(start_step=10, checkpoint_step=12)
    attempt.hear(StopRequested(signal.SIGTERM))
    assert (attempt.end().step, attempt.end().checkpoint_step) == (10, 12)


# The lock.


@pytest.mark.parametrize("is_training", [True, False])
def test_an_attempt_whose_run_belongs_to_another_command_ends_at_once(is_training: bool) -> None:
    attempt = Attempt()
    if is_training:
        attempt.train().say(CheckpointBegun(5))  # which the coordinator must not publish
    lost = BusyError("lost its lock")
    attempt.hear(LockLost(lost))
    assert attempt.error() is lost
    assert attempt.end().first is None


def test_the_loss_of_the_lock_does_not_hide_the_first_cause() -> None:
    attempt = Attempt().train()
    attempt.say(of_process(Kind.KILLED, "killed"), task=FIRST)
    attempt.hear(LockLost(BusyError("lost its lock")))
    attempt.wait(COLLECT_S)
    assert attempt.error().fact == "killed"


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
    assert attempt.wait(LIMITS.drain) == []
    finished = Finished(2, True, 1.0, 70, [70])
    assert attempt.say(finished) == [Forward(finished), EndWith(attempt.end())]
    assert attempt.end().outcome is finished


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
        attempt.wait(LIMITS.drain + 0.1)
        assert "No checkpoint came within 60 s: the coordinator has done no step" in attempt.logged()
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
    assert attempt.wait(LIMITS.checkpoint) == []
    published = CheckpointPublished(5, "step-5", 1.0)
    forwarded, end = attempt.say(published)
    assert forwarded == Forward(published)
    assert isinstance(end, EndWith)
    assert attempt.error().fact == "killed"
    assert "was not finished" not in attempt.logged()


def test_the_second_of_two_checkpoints_on_their_way_is_waited_for() -> None:
    attempt = Attempt().train()
    attempt.say(CheckpointBegun(5), CheckpointBegun(7), CheckpointPublished(5, "step-5", 1.0))
    attempt.hear(Lost(FIRST, "connection closed"))
    assert not any(isinstance(instruction, EndWith) for instruction in attempt.wait(COLLECT_S))
    assert isinstance(attempt.say(CheckpointPublished(7, "step-7", 1.0))[-1], EndWith)


@pytest.mark.parametrize(
    ("event", "after_s", "is_told"),
    [
        (ChildEnded(COORDINATOR, "the coordinator", 1), 0, False),
        (Said(COORDINATOR, Failure(Kind.CONSEQUENCE, "UnavailableError")), 0, False),
        (Lost(COORDINATOR, "silent for 20 s", is_silent=True), 0, False),  # it is stopped
        (StopHurried(), 0, True),
        (None, LIMITS.checkpoint + 0.1, True),
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


@pytest.mark.parametrize("when", ["while the first cause is found", "while it is published"])
def test_a_signal_shortens_the_wait_for_a_checkpoint(when: str) -> None:
    attempt = Attempt().train()
    attempt.say(CheckpointBegun(5))
    attempt.say(of_process(Kind.KILLED, "killed"), task=FIRST)
    attempt.wait(COLLECT_S if when == "while it is published" else COLLECT_S - 0.1)
    assert attempt.hear(StopRequested(signal.SIGTERM)) == []
    attempt.wait(0.1)
    assert attempt.wait(LIMITS.drain - 0.2) == []
    attempt.wait(0.3)
    assert attempt.error().fact == "killed"
    assert "The checkpoint of step 5 was not finished" in attempt.logged()


def test_a_checkpoint_after_a_signal_has_the_time_of_the_signal() -> None:
    attempt = Attempt().train()
    attempt.hear(StopRequested(signal.SIGINT))
    attempt.say(CheckpointBegun(5), after_s=LIMITS.drain - 1)
    assert attempt.hear(Lost(FIRST, "connection closed")) == []
    attempt.wait(1.1)
    assert attempt.error().fact == "stopped before a checkpoint"
    assert "The checkpoint of step 5 was not finished" in attempt.logged()
