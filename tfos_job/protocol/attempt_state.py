"""The state of one attempt at a training: events in, instructions out. Pure; time is an argument.

An attempt starts its nodes, then its coordinator, then trains; each phase has a deadline. After the first failure
`blame` finds the one that explains the rest. What stands still has every process write its stacks first. However an
attempt ends, it waits for a checkpoint that is on its way, which needs no node any more.
"""

from __future__ import annotations

import enum
import logging
from collections.abc import Sequence

from tfos_job.config.deadlines import Deadlines
from tfos_job.errors import InterruptedJobError, JobError
from tfos_job.protocol import failures, overdue
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.attempt_facts import AttemptFacts
from tfos_job.protocol.blame import Blame, Question, accused
from tfos_job.protocol.events import Event, ExecutorAlive, LossExplained
from tfos_job.protocol.failures import Failure
from tfos_job.protocol.instructions import (
    AdmitHosts,
    AskSpark,
    AskStacks,
    AssignCoordinator,
    BeginPhase,
    CloseRegistration,
    EndWith,
    Instruction,
    Log,
    SendStop,
    StartProcesses,
)
from tfos_job.protocol.messages import Finished
from tfos_job.protocol.topology import COORDINATOR, Topology, describe_missing

REMIND_S = 30.0
"""Seconds after which a start that goes on says what it waits for, again and again."""
STACKS_S = 3.0
"""Seconds for the stacks of all processes, which are written at once and sent in milliseconds."""


class _Phase(enum.Enum):
    REGISTRATION = "registration"
    BUILD = "build"
    FIRST_STEP = "first_step"
    TRAINING = "training"
    # Ways to the end, which are no phases of their own to the user:
    BLAMING = "blaming"
    STANDING = "standing still"
    PUBLISHING = "publishing"
    ENDED = "ended"


class AttemptState:
    """The phase of an attempt, and what the driver does next."""

    def __init__(
        self,
        topology: Topology,
        *,
        number: int,
        deadlines: Deadlines,
        driver_host: str,
        is_local: bool,
        start_step: int = 0,
        checkpoint_step: int | None = None,
        avoided_hosts: frozenset[str] = frozenset(),
        executor_hosts: Sequence[str] = (),
    ) -> None:
        """The state before the start.

        Args:
          topology: the nodes.
          number: of the attempt, in its run.
          deadlines: of its phases.
          driver_host: address of the driver.
          is_local: all nodes are on the driver's host, and no cluster manager can explain their end.
          start_step: of the checkpoint that it begins with; 0 without one.
          checkpoint_step: of the run's newest checkpoint; None without one.
          avoided_hosts: a node that calls from one of them ends the attempt.
          executor_hosts: of each executor that Spark has, to say who is missing; empty if that is unknown.
        """
        self._facts = AttemptFacts(topology, driver_host, avoided_hosts)
        self._topology = topology
        self._number = number
        self._deadlines = deadlines
        self._is_local = is_local
        self._start_step = start_step
        self._checkpoint_step = checkpoint_step
        self._executor_hosts = executor_hosts
        self._phase = self._last_phase = _Phase.REGISTRATION
        self._deadline_s = 0.0  # of the phase
        self._begun_s = self._reminded_s = 0.0
        self._are_hosts_known = False
        self._stop_deadline_s: float | None = None
        self._blame: Blame | None = None
        self._first: Failure | None = None
        self._error: JobError | None = None
        self._instructions: list[Instruction] = []

    @property
    def is_finished(self) -> bool:
        """The coordinator has said its last word after training, and ends by itself."""
        return self._facts.finished is not None

    def end(self, outcome: Finished | JobError) -> AttemptEnd:
        """The attempt's end by this outcome, with all that is known of it; also for a driver that cannot go on."""
        facts = self._facts
        return AttemptEnd(
            number=self._number,
            outcome=outcome,
            phase=self._last_phase.value,
            first=self._first,
            followers=tuple(failure for failure in facts.failures if failure is not self._first),
            start_step=self._start_step,
            step=max(self._start_step, facts.step or 0, facts.finished.step if facts.finished else 0),
            checkpoint_step=self._checkpoint_step if facts.published_step is None else facts.published_step,
            nodes=facts.records(),
            stacks={str(task): text for task, text in sorted(facts.stacks.items())},
        )

    def begin(self, now_s: float) -> list[Instruction]:
        """The first instructions."""
        self._begun_s = self._reminded_s = now_s
        self._instructions = [Log(logging.INFO, f"Starting attempt {self._number}: {self._topology}")]
        self._enter(_Phase.REGISTRATION, now_s, self._deadlines.registration)
        return [*self._instructions, StartProcesses()]

    def handle(self, event: Event | None, now_s: float) -> list[Instruction]:
        """The instructions after an event, or after some time without one.

        Args:
          event: None for the passing of time, which is looked at with every event as well.
          now_s: of a clock that only goes forward.
        """
        self._instructions = []
        if isinstance(event, LossExplained | ExecutorAlive):
            if self._blame is not None:
                self._blame.hear(event)
        elif event is not None:
            self._instructions += self._facts.note(event, now_s)
        before = None
        while before is not self._phase:  # a phase may be over as soon as it begins
            before = self._phase
            self._decide(now_s)
        return self._instructions

    def _decide(self, now_s: float) -> None:
        if self._facts.finished is not None and self._phase is not _Phase.ENDED:
            self._phase = _Phase.ENDED  # whatever fails now: the training is done
            self._instructions.append(EndWith(self.end(self._facts.finished)))
        match self._phase:
            case _Phase.REGISTRATION | _Phase.BUILD:
                self._decide_start(now_s)
            case _Phase.FIRST_STEP | _Phase.TRAINING:
                self._decide_training(now_s)
            case _Phase.BLAMING:
                self._decide_blame(now_s)
            case _Phase.STANDING:
                self._decide_standing(now_s)
            case _Phase.PUBLISHING:
                self._decide_publishing(now_s)

    def _enter(self, phase: _Phase, now_s: float, limit_s: float) -> None:
        self._phase = self._last_phase = phase
        self._deadline_s = now_s + limit_s
        self._instructions.append(BeginPhase(phase.value))

    def _decide_start(self, now_s: float) -> None:
        facts, topology, limits = self._facts, self._topology, self._deadlines
        is_building = self._phase is _Phase.BUILD
        if error := self._reason_to_stop():
            self._end_with(error, now_s)
        elif facts.failures:
            self._begin_blame(now_s)
        elif not self._are_hosts_known and facts.hellos.keys() >= set(topology.nodes):
            self._are_hosts_known = True
            self._instructions.append(AdmitHosts(facts.hosts()))
        elif not is_building and facts.ready.issuperset(topology.nodes):
            self._reminded_s = now_s
            self._log(logging.INFO, "All of them answer. Building the network")
            self._instructions.append(CloseRegistration())
            self._enter(_Phase.BUILD, now_s, limits.build)
            self._instructions.append(AssignCoordinator(facts.cluster()))
        elif is_building and COORDINATOR in facts.ready:
            facts.last_news_s = now_s
            self._enter(_Phase.FIRST_STEP, now_s, limits.first_step)
        elif now_s > self._deadline_s and is_building:
            self._stand_still(overdue.build(facts, limits.build), None, now_s)
        elif now_s > self._deadline_s:
            self._end_with(overdue.registration(facts, topology, limits.registration, self._executor_hosts), now_s)
        elif now_s >= self._reminded_s + REMIND_S:
            self._reminded_s = now_s
            come = facts.ready if self._are_hosts_known else facts.hellos  # no node is ready before all have called
            absent = describe_missing([COORDINATOR] if is_building else topology.nodes, come)
            self._log(logging.INFO, f"Still waiting for {absent}, {now_s - self._begun_s:.0f} s after the start")

    def _reason_to_stop(self) -> JobError | None:
        """The request to stop, or the loss of the lock: neither is a failure of the attempt."""
        if self._facts.signum is not None:
            return InterruptedJobError("stopped", signum=self._facts.signum)
        return self._facts.lock_error

    def _decide_training(self, now_s: float) -> None:
        facts, limits = self._facts, self._deadlines
        limit_s = limits.first_step if self._phase is _Phase.FIRST_STEP else limits.stall
        if facts.signum is not None and self._must_interrupt(now_s):
            self._end_with(InterruptedJobError("stopped", signum=facts.signum), now_s)
        elif facts.signum is None and facts.lock_error is not None:
            self._end_with(facts.lock_error, now_s)
        elif facts.signum is None and facts.failures:
            self._begin_blame(now_s)
        elif self._phase is _Phase.FIRST_STEP and facts.step is not None:
            self._enter(_Phase.TRAINING, now_s, limits.stall)
        elif now_s - facts.last_news_s > limit_s:
            first = overdue.step(facts, limit_s)
            self._stand_still(failures.to_error([first]), first, now_s)

    def _must_interrupt(self, now_s: float) -> bool:
        """Asks for a last checkpoint once; true when it is not waited for any longer."""
        drain_s = self._deadlines.drain
        if self._stop_deadline_s is None:
            self._stop_deadline_s = now_s + drain_s
            self._instructions.append(SendStop(COORDINATOR))
            expected_s = max(1.0, self._facts.block_s + self._facts.publishing_s)
            text = f"some {expected_s:.0f} s, " if self._facts.publishing_s else ""
            self._log(
                logging.WARNING,
                f"Waiting for the running steps and a last checkpoint, {text}at most {drain_s:g} s "
                "(--stop_timeout); a second signal does not wait",
            )
        is_late = now_s > self._stop_deadline_s
        if is_late:
            at = f"is behind step {self._facts.step}" if self._facts.step else "has done no step"
            self._log(logging.WARNING, f"No checkpoint came within {drain_s:g} s: the coordinator {at}")
        # A signal may have reached Spark's JVM and its nodes, too: then their failures are expected.
        return bool(self._facts.failures) or self._facts.is_hurried or is_late

    def _begin_blame(self, now_s: float) -> None:
        self._phase, self._blame = _Phase.BLAMING, Blame(self._facts, now_s, is_local=self._is_local)

    def _decide_blame(self, now_s: float) -> None:
        assert self._blame is not None
        match self._blame.decide(now_s):
            case Question(container):
                self._instructions.append(AskSpark(container))
            case Failure() as found:
                first = self._facts.blame_memory(found)
                self._instructions += accused(self._facts.failures, first)
                self._first = first
                self._end_with(failures.to_error(self._facts.failures), now_s)

    def _stand_still(self, error: JobError, first: Failure | None, now_s: float) -> None:
        """Has the stacks written before anything is killed: nothing tells later what a process was waiting for."""
        self._error, self._first = error, first
        self._phase, self._deadline_s = _Phase.STANDING, now_s + STACKS_S
        self._log(logging.WARNING, str(error))
        self._instructions.append(AskStacks())

    def _decide_standing(self, now_s: float) -> None:
        assert self._error is not None
        facts = self._facts
        asked = facts.talking | ({COORDINATOR} - facts.ended)  # also before its first word
        if facts.failures:  # this is why
            self._first = None
            self._begin_blame(now_s)
        elif facts.is_hurried or now_s >= self._deadline_s or facts.stacks.keys() >= asked:
            writers = ", ".join(map(str, sorted(facts.stacks)))
            self._log(logging.INFO, f"Stacks were written by {writers or 'no process'}")
            self._end_with(self._error, now_s)

    def _end_with(self, error: JobError, now_s: float) -> None:
        self._error = error
        self._phase = _Phase.PUBLISHING
        limit_s = self._deadlines.checkpoint
        if isinstance(error, InterruptedJobError):
            limit_s = self._deadlines.drain
        self._deadline_s = now_s + limit_s if self._stop_deadline_s is None else self._stop_deadline_s

    def _decide_publishing(self, now_s: float) -> None:
        """Waits for a checkpoint in progress, which needs no node. A coordinator without its line publishes none."""
        facts, error = self._facts, self._error
        assert error is not None
        if facts.signum is not None and self._stop_deadline_s is None:  # somebody waits now
            self._stop_deadline_s = now_s + self._deadlines.drain
            self._deadline_s = min(self._deadline_s, self._stop_deadline_s)
        if facts.publishing_step is not None and COORDINATOR in facts.talking - facts.ended:
            # A coordinator whose run belongs to another command must not publish.
            if not facts.is_hurried and facts.lock_error is None and now_s <= self._deadline_s:
                return
            self._log(logging.WARNING, f"The checkpoint of step {facts.publishing_step} was not finished")
        if isinstance(error, InterruptedJobError):
            error = facts.interruption(error.signum)
        self._phase = _Phase.ENDED
        self._instructions.append(EndWith(self.end(error)))

    def _log(self, level: int, text: str) -> None:
        self._instructions.append(Log(level, text))
