"""The state of one attempt at a training: events in, instructions out. Pure; time is an argument.

An attempt starts its nodes, then its coordinator, then trains. After the first failure it collects others for a time,
asks Spark about an executor that was lost on a cluster, and blames the failure that explains the rest. However it ends,
it first waits for a checkpoint that is on its way, which needs no node any more.
"""

from __future__ import annotations

import enum
import logging
from dataclasses import dataclass

from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError
from tfos_job.protocol import failures
from tfos_job.protocol.attempt_facts import AttemptFacts
from tfos_job.protocol.events import Event, LossExplained
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.instructions import (
    AskSpark,
    AssignCoordinator,
    BeginPhase,
    CloseRegistration,
    EndWith,
    Instruction,
    Log,
    SendStop,
    StartProcesses,
)
from tfos_job.protocol.topology import COORDINATOR, PS, WORKER, Topology, describe_missing

COLLECT_S = 2.0
"""Seconds after the first failure: the report on the process that really died may arrive after those of its peers."""
REMIND_S = 30.0
"""Seconds after which a start that goes on says what it waits for, again and again."""
EXPLAIN_S = 10.0
"""Seconds for Spark to learn from YARN what became of a container: some of its heartbeats, of 3 s."""


class _Phase(enum.Enum):
    NODES = enum.auto()
    COORDINATOR = enum.auto()
    TRAINING = enum.auto()
    COLLECTING = enum.auto()
    EXPLAINING = enum.auto()
    PUBLISHING = enum.auto()
    ENDED = enum.auto()


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Seconds that an attempt waits.

    Attributes:
      start_s: until the first step may begin.
      stall_s: without news from the coordinator or the stagers.
      stop_s: from a signal to the end of a last checkpoint.
    """

    start_s: int
    stall_s: int
    stop_s: float


class AttemptState:
    """The phase of an attempt, and what the driver does next."""

    def __init__(self, topology: Topology, limits: Limits, *, driver_host: str, is_local: bool) -> None:
        """The state before the start.

        Args:
          topology: the nodes.
          limits: of its waits.
          driver_host: address of the driver.
          is_local: all nodes are on the driver's host, and no cluster manager can explain their end.
        """
        self._facts = AttemptFacts(topology, driver_host)
        self._topology = topology
        self._limits = limits
        self._driver_host = driver_host
        self._is_local = is_local
        self._phase = _Phase.NODES
        self._deadline_s = 0.0  # of the phase
        self._begun_s = self._reminded_s = 0.0
        self._stop_deadline_s: float | None = None
        self._first: Failure | None = None
        self._error: JobError | None = None
        self._instructions: list[Instruction] = []

    @property
    def is_finished(self) -> bool:
        """The coordinator has said its last word after training, and ends by itself."""
        return self._facts.finished is not None

    def begin(self, now_s: float) -> list[Instruction]:
        """The first instructions."""
        self._deadline_s = now_s + self._limits.start_s
        self._begun_s = self._reminded_s = now_s
        return [Log(logging.INFO, f"Starting {self._topology}"), BeginPhase("nodes"), StartProcesses()]

    def handle(self, event: Event | None, now_s: float) -> list[Instruction]:
        """The instructions after an event, or after some time without one.

        Args:
          event: None for the passing of time, which is looked at with every event as well.
          now_s: of a clock that only goes forward.
        """
        self._instructions = []
        if isinstance(event, LossExplained):
            self._explain(event.reason, now_s)
        elif event is not None:
            self._instructions += self._facts.note(event, now_s)
        before = None
        while before is not self._phase:  # a phase may be over as soon as it begins
            before = self._phase
            self._decide(now_s)
        return self._instructions

    def _decide(self, now_s: float) -> None:
        match self._phase:
            case _Phase.NODES | _Phase.COORDINATOR:
                self._decide_start(now_s)
            case _Phase.TRAINING:
                self._decide_training(now_s)
            case _Phase.COLLECTING if now_s >= self._deadline_s:
                self._choose(now_s)
            case _Phase.EXPLAINING:
                self._decide_explanation(now_s)
            case _Phase.PUBLISHING:
                self._decide_publishing(now_s)

    def _decide_start(self, now_s: float) -> None:
        if self._facts.signum is not None:
            self._end_with(InterruptedJobError("stopped", signum=self._facts.signum), now_s)
        elif self._facts.failures:
            self._collect(now_s)
        elif self._phase is _Phase.NODES and self._facts.ready.issuperset(self._topology.nodes):
            self._phase, self._reminded_s = _Phase.COORDINATOR, now_s
            self._log(logging.INFO, "All of them answer. Building the network")
            self._instructions += [CloseRegistration(), BeginPhase("coordinator"), AssignCoordinator(self._cluster())]
        elif self._phase is _Phase.COORDINATOR and COORDINATOR in self._facts.ready:
            self._phase, self._facts.last_news_s = _Phase.TRAINING, now_s
            self._instructions.append(BeginPhase("training"))
        elif now_s > self._deadline_s:
            next_step = "See whether the queue has room, or raise --start_timeout"
            self._end_with(ResourceError(self._missing(), next_step=next_step), now_s)
        elif now_s >= self._reminded_s + REMIND_S:
            self._reminded_s = now_s
            tasks = [COORDINATOR] if self._phase is _Phase.COORDINATOR else self._topology.nodes
            absent = describe_missing(tasks, self._facts.ready)
            self._log(logging.INFO, f"Still waiting for {absent}, {now_s - self._begun_s:.0f} s after the start")

    def _cluster(self) -> dict[str, list[str]]:
        cluster: dict[str, list[str]] = {PS: [], WORKER: []}
        for task in self._topology.nodes:
            hello = self._facts.hellos[task]
            cluster[task.role].append(f"{hello.host}:{hello.port}")
        return cluster

    def _missing(self) -> str:
        if self._phase is _Phase.COORDINATOR:
            return "the coordinator did not start in time"
        absent = describe_missing(self._topology.nodes, self._facts.hellos)
        if absent:
            return f"{absent} did not register within {self._limits.start_s} s"
        silent = sorted(set(self._topology.nodes) - self._facts.ready)
        where = ", ".join(f"{task} on {self._facts.hellos[task].host}" for task in silent)
        return f"the TensorFlow server of {where} did not start within {self._limits.start_s} s"

    def _decide_training(self, now_s: float) -> None:
        if self._facts.finished is not None:
            self._phase = _Phase.ENDED
            self._instructions.append(EndWith(self._facts.finished))
        elif self._facts.signum is not None and self._must_interrupt(now_s):
            self._end_with(InterruptedJobError("stopped", signum=self._facts.signum), now_s)
        elif self._facts.signum is None and self._facts.failures:
            self._collect(now_s)
        elif now_s - self._facts.last_news_s > self._limits.stall_s:
            error = NodeDiedError(
                f"no step was finished for {self._limits.stall_s} s",
                place=f"{COORDINATOR} on host {self._driver_host}",
                next_step="If steps are really that slow raise --stall_timeout; else run train again to resume",
            )
            self._end_with(error, now_s)

    def _must_interrupt(self, now_s: float) -> bool:
        """Asks for a last checkpoint once; true when it is not waited for any longer."""
        if self._stop_deadline_s is None:
            self._stop_deadline_s = now_s + self._limits.stop_s
            self._instructions.append(SendStop(COORDINATOR))
            expected_s = max(1.0, self._facts.block_s + self._facts.publishing_s)
            text = f"some {expected_s:.0f} s, " if self._facts.publishing_s else ""
            self._log(
                logging.WARNING,
                f"Waiting for the running steps and a last checkpoint, {text}at most {self._limits.stop_s:g} s "
                "(--stop_timeout); a second signal does not wait",
            )
        # A signal may have reached Spark's JVM and its nodes, too: then their failures are expected.
        return bool(self._facts.failures) or self._facts.is_hurried or now_s > self._stop_deadline_s

    def _collect(self, now_s: float) -> None:
        self._phase, self._deadline_s = _Phase.COLLECTING, now_s + COLLECT_S

    def _choose(self, now_s: float) -> None:
        self._first = failures.first_cause(self._facts.failures)
        if self._is_local or self._first.kind not in (Kind.LOST, Kind.SPARK):
            self._blame(self._first, now_s)
        else:
            self._phase, self._deadline_s = _Phase.EXPLAINING, now_s + EXPLAIN_S

    def _decide_explanation(self, now_s: float) -> None:
        """On a cluster Spark learns within seconds what became of an executor whose line broke."""
        assert self._first is not None
        if self._facts.is_hurried or now_s >= self._deadline_s:
            self._blame(self._first, now_s)
        else:
            self._instructions.append(AskSpark(self._first.process.container if self._first.process else ""))

    def _explain(self, reason: str, now_s: float) -> None:
        if self._phase is _Phase.EXPLAINING:
            assert self._first is not None
            explained = failures.explain(self._first, reason)
            facts = self._facts
            facts.failures = [explained if failure is self._first else failure for failure in facts.failures]
            self._blame(explained, now_s)

    def _blame(self, first: Failure, now_s: float) -> None:
        for failure in self._facts.failures:
            self._log(logging.WARNING if failure is first else logging.DEBUG, str(failure))
        process = first.process
        if first.detail:
            self._log(logging.WARNING, f"The last words of {process or 'Spark'}:\n{first.detail.rstrip()}")
        if process and process.log_url:
            self._log(logging.WARNING, f"The whole log of {process.task}: {process.log_url}")
        self._end_with(failures.to_error(self._facts.failures), now_s)

    def _end_with(self, error: JobError, now_s: float) -> None:
        self._error = error
        self._phase = _Phase.PUBLISHING
        self._deadline_s = now_s + self._limits.stop_s if self._stop_deadline_s is None else self._stop_deadline_s

    def _decide_publishing(self, now_s: float) -> None:
        """Waits for a checkpoint in progress: it needs no node, so it can be published whichever process has died."""
        assert self._error is not None
        if self._facts.publishing_step is not None and COORDINATOR not in self._facts.left | self._facts.ended:
            if not self._facts.is_hurried and now_s <= self._deadline_s:
                return
            self._log(logging.WARNING, f"The checkpoint of step {self._facts.publishing_step} was not finished")
        error = self._error
        if isinstance(error, InterruptedJobError):
            error = InterruptedJobError(
                f"stopped; the last checkpoint of this attempt is of step {self._facts.published_step}"
                if self._facts.published_step
                else "stopped before a checkpoint",
                next_step="Run train again to go on",
                signum=error.signum,
            )
        self._phase = _Phase.ENDED
        self._instructions.append(EndWith(error))

    def _log(self, level: int, text: str) -> None:
        self._instructions.append(Log(level, text))
