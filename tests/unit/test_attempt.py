"""The shell of an attempt: real children and lines, no Spark. Its decisions are in test_attempt_state.py."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from typing import Any

import pytest

from tests.ports import free_port_range
from tests.unit.dataset import config, run_assignment
from tests.unit.waits import PATIENCE_S, wait_until
from tfos_job.driver import attempt, launch
from tfos_job.driver.attempt import Attempt, AttemptSpec
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import BusyError, InterruptedJobError, JobError, NodeDiedError, ResourceError
from tfos_job.host import proc, stacks
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.line import NodeLine, call_driver
from tfos_job.protocol.messages import (
    Admit,
    CheckpointBegun,
    CheckpointPublished,
    DumpStacks,
    Finished,
    Hello,
    Ready,
    Stacks,
    Stop,
)
from tfos_job.protocol.topology import CHIEF, PS, WORKER, Topology

FINISHED = Finished(1, True, 1.0, 32, [32])


class Run:
    """An attempt at its start: its coordinator imports TensorFlow, and its Spark job is told to do nothing."""

    def __init__(
        self,
        monkeypatch: pytest.MonkeyPatch,
        port_range: tuple[int, int] | None = None,
        deadlines: str = "shutdown=1",
    ) -> None:
        monkeypatch.setattr(attempt, "_FAILED_STOP_S", 0.0)
        monkeypatch.setattr(attempt, "_CANCEL_S", 0.0)
        monkeypatch.setattr(launch.NodeJob, "start", lambda _: None)  # there is no Spark
        self.stop = StopSignal()
        self.messages: list[Any] = []
        self.phases: list[str] = []
        self.guard: Callable[[], None] = lambda: None
        spec = AttemptSpec(
            topology=Topology(num_ps_tasks=1, num_workers=1),
            inputs=(),
            assignment=run_assignment(),
            num_gpus=0,
            driver_host="127.0.0.1",
            local=True,
            deadlines=config(start_timeout=int(PATIENCE_S), deadlines=deadlines).phase_deadlines,
            port_range=port_range,
        )
        self.attempt = Attempt(
            None,
            spec,
            on_message=self.messages.append,
            on_phase=self.phases.append,
            stop=self.stop,
            guard=lambda: self.guard(),
        )

    @property
    def coordinator_pid(self) -> int:
        assert self.attempt._processes.coordinator is not None
        return self.attempt._processes.coordinator.pid

    def call(self, role: str) -> Any:
        address = self.attempt._switchboard.address
        hello = Hello(role, 0, "127.0.0.1", os.getpid(), 4242, attempt=1, addresses=("127.0.0.1",))
        return call_driver(address, self.attempt._key, hello)


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Run:
    return Run(monkeypatch)


@pytest.mark.parametrize("ends", ["killed", "signal", "lock"])
def test_an_attempt_that_ends_leaves_no_process(started: Run, ends: str) -> None:
    kinds: dict[str, type[JobError]] = {"killed": NodeDiedError, "signal": InterruptedJobError, "lock": BusyError}

    def end() -> None:
        started.guard = lambda: None
        if ends == "killed":
            os.kill(started.coordinator_pid, signal.SIGKILL)
        elif ends == "signal":
            started.stop.signum = signal.SIGTERM
        else:
            raise BusyError("lost its lock")

    started.guard = end
    found = started.attempt.run()
    assert isinstance(found.outcome, kinds[ends])
    assert started.phases == ["registration", "shutdown"]
    assert (found.number, found.phase) == (1, "registration")
    if ends == "killed":
        assert found.outcome.fact == "the coordinator was killed by SIGKILL"
        assert found.first is not None
    else:
        assert found.first is None
    with pytest.raises(ProcessLookupError):
        os.kill(started.coordinator_pid, 0)


def test_events_of_lines_and_signals_arrive_in_their_order_and_instructions_are_carried_out(
    started: Run, caplog: pytest.LogCaptureFixture
) -> None:
    lines: dict[str, Any] = {}

    def call() -> None:
        for role in (PS, WORKER, CHIEF):
            lines[role] = started.call(role)
            lines[role].send(Ready(1))
        started.guard = when_training

    def when_training() -> None:
        if started.phases[-1] == "first_step":
            lines[CHIEF].send(CheckpointBegun(1))
            lines[CHIEF].send(CheckpointPublished(1, "step-1", 1.0))
            started.stop.signum = signal.SIGINT
            started.guard = when_stopped

    def when_stopped() -> None:
        if started.messages:
            assert lines[CHIEF].receive() == Stop()
            lines[CHIEF].send(FINISHED)
            started.guard = lambda: None

    started.guard = call
    end = started.attempt.run()
    assert (end.outcome, end.step, end.checkpoint_step) == (FINISHED, 1, 1)
    assert started.messages == [CheckpointBegun(1), CheckpointPublished(1, "step-1", 1.0), FINISHED]
    assert started.phases == ["registration", "build", "first_step", "shutdown"]
    assert [lines[WORKER].receive() for _ in range(2)] == [Admit(("127.0.0.1",)), Stop()]
    assert "ps:0, worker:0 did not end within 1 s: the Spark job is cancelled" in caplog.text  # they are deaf here
    for line in lines.values():
        line.close()


def test_an_attempt_that_stands_still_asks_all_for_their_stacks_and_the_coordinators_log(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    started = Run(monkeypatch, deadlines="shutdown=1,first_step=1")
    lines: dict[str, NodeLine] = {}
    answers: list[threading.Thread] = []

    def answer(line: NodeLine) -> None:
        assert [line.receive() for _ in range(2)] == [Admit(("127.0.0.1",)), DumpStacks()]
        line.send(Stacks("in a supervisor"))

    def call() -> None:
        wait_until(lambda: proc.catches(started.coordinator_pid, stacks.SIGNAL))
        lines.update({role: started.call(role) for role in (PS, WORKER, CHIEF)})
        for role, line in lines.items():
            line.send(Ready(1))
            if role != CHIEF:
                answers.append(threading.Thread(target=answer, args=(line,)))
                answers[-1].start()
        started.guard = lambda: None

    started.guard = call
    found = started.attempt.run()
    for thread in answers:
        thread.join()
    for line in lines.values():
        line.close()
    assert isinstance(found.outcome, NodeDiedError)
    assert found.outcome.fact.startswith("no step was finished for 1 s")
    assert found.stacks.keys() == {"chief:0", "ps:0", "worker:0"}
    assert found.stacks["ps:0"] == "in a supervisor"
    assert "most recent call first" in found.stacks["chief:0"]  # it may be deep in an import, or at work
    (chief,) = (node for node in found.nodes if node.process.task.role == CHIEF)
    assert chief.peak_bytes > 0


def test_sparks_failure_is_an_event_like_others(started: Run) -> None:
    started.attempt._switchboard.events.put(Failure(Kind.SPARK, "Job aborted"))
    assert str(started.attempt.run().outcome).startswith("Spark: Job aborted")


def test_the_loss_of_the_lock_does_not_hide_what_came_before(started: Run) -> None:
    started.attempt._switchboard.events.put(Failure(Kind.SPARK, "Job aborted"))

    def lose() -> None:
        if started.attempt._switchboard.events.empty():  # the failure is known, and others are being collected
            raise BusyError("lost its lock")

    started.guard = lose
    assert str(started.attempt.run().outcome).startswith("Spark: Job aborted")


def test_an_attempt_without_ports_for_all_leaves_none_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The coordinator's, the switchboard's and the rendezvous's; and the next attempt has those of the one before."""
    low, high = free_port_range(3)
    for ports_range in ((low, low), (low, low + 1)):
        with pytest.raises(ResourceError, match="no port of"):
            Run(monkeypatch, ports_range)
    for _ in range(2):
        Run(monkeypatch, (low, high)).attempt.close()
