"""One attempt at a training, on the driver: the shell around `protocol/attempt_state.py`, which decides.

It turns the news of lines, processes, Spark and signals into events, and carries out the instructions. Every way out
goes through `close`, which leaves no process behind. A restart is a new `Attempt` in the same SparkContext.
"""

from __future__ import annotations

import contextlib
import dataclasses
import logging
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job.config.deadlines import Deadlines
from tfos_job.driver.attempt_processes import AttemptProcesses
from tfos_job.driver.launch import NodeJob
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import JobError
from tfos_job.host.addresses import own_addresses
from tfos_job.host.ports import PortRange
from tfos_job.nodes.node import NodeArgs
from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.attempt_state import AttemptState
from tfos_job.protocol.events import Event, LockLost, Lost, Said, StopHurried, StopRequested
from tfos_job.protocol.frames import new_key
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
from tfos_job.protocol.messages import Admit, DumpStacks, Stacks, Stop, ToDriver
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import COORDINATOR, Topology, WorkerInput
from tfos_job.run.assignment import RunAssignment

log = logging.getLogger(__name__)

_POLL_S = 0.2
_FAILED_STOP_S = 3.0  # for nodes of an attempt that has failed: the next one waits
_CLOSE_POLL_S = 0.02
_CANCEL_S = 1.0


@dataclass(frozen=True, kw_only=True)
class AttemptSpec:
    """The nodes of one attempt, their work, and its limits.

    Attributes:
      number: of the attempt, in its run.
      topology: the nodes.
      inputs: the records of each worker.
      assignment: the coordinator's, as far as it is about the run.
      num_gpus: GPUs a worker.
      allow_cpu: a worker without its GPU goes on without.
      driver_host: address of the driver that every node reaches.
      local: all nodes share the driver's host.
      deadlines: of the phases.
      port_range: to listen in; None for any ports.
      require_isolation: end where the kernel does not keep other hosts from a TensorFlow server.
      avoided_hosts: a node that calls from one of them ends the attempt.
      container_bytes: memory of an executor's container; 0 if nobody limits it.
      executor_hosts: of each executor that Spark has, to say who is missing; empty if that is unknown.
    """

    topology: Topology
    inputs: tuple[WorkerInput, ...]
    assignment: RunAssignment
    num_gpus: int
    driver_host: str
    local: bool
    deadlines: Deadlines
    allow_cpu: bool = False
    port_range: PortRange | None = None
    require_isolation: bool = False
    number: int = 1
    avoided_hosts: frozenset[str] = frozenset()
    container_bytes: int = 0
    executor_hosts: tuple[str, ...] = ()


class Attempt:
    """Runs one attempt."""

    def __init__(
        self,
        sc: Any,
        spec: AttemptSpec,
        *,
        on_message: Callable[[ToDriver], None],
        on_phase: Callable[[str], None],
        stop: StopSignal,
        guard: Callable[[], None],
    ) -> None:
        """Takes the ports; starts nothing yet.

        Args:
          sc: the SparkContext.
          spec: of the attempt.
          on_message: called with each message of the coordinator about the training.
          on_phase: called with the name of each phase as it begins.
          stop: asks the job to stop.
          guard: called all the time; raises if the job must not go on, such as after the loss of its lock.

        Raises:
          ResourceError: there are too few ports; none is taken then.
          SettingsError: of `ServerPort.judge`.
        """
        self._spec = spec
        self._on_message = on_message
        self._on_phase = on_phase
        self._stop = stop
        self._guard = guard
        self._state = AttemptState(
            spec.topology,
            number=spec.number,
            deadlines=spec.deadlines,
            driver_host=spec.driver_host,
            is_local=spec.local,
            start_step=spec.assignment.plan.start_step,
            checkpoint_step=spec.assignment.plan.start_step if spec.assignment.checkpoint else None,
            avoided_hosts=spec.avoided_hosts,
            executor_hosts=spec.executor_hosts,
        )
        self._key = new_key()
        with contextlib.ExitStack() as taken:
            self._processes = AttemptProcesses(
                spec.topology,
                spec.driver_host,
                spec.port_range,
                spec.number,
                require_isolation=spec.require_isolation,
            )
            taken.callback(self._processes.close)
            self._switchboard = Switchboard(spec.driver_host, self._key, spec.port_range, attempt=spec.number)
            taken.callback(self._switchboard.close)
            self._job = NodeJob(sc, spec.topology, self._node_args(), self._switchboard.events)
            taken.pop_all()
        self._is_stop_told = self._is_hurry_told = self._is_loss_told = False

    @property
    def _start_timeout(self) -> int:
        """Seconds for a node's server to answer."""
        return int(self._spec.deadlines.registration)

    def _node_args(self) -> NodeArgs:
        spec = self._spec
        return NodeArgs(
            driver=self._switchboard.address,
            key=self._key,
            attempt=spec.number,
            driver_host_tasks=self._processes.addresses,
            inputs=spec.inputs,
            num_gpus=spec.num_gpus,
            allow_cpu=spec.allow_cpu,
            local=spec.local,
            start_timeout=self._start_timeout,
            port_range=spec.port_range,
            require_isolation=spec.require_isolation,
            container_bytes=spec.container_bytes,
        )

    def run(self) -> AttemptEnd:
        """Runs to the end of training, to the stop signal, or to a failure.

        Returns:
          The end; its outcome has the first cause of a failure. `Finished.interrupted` tells of a stop by a signal with
          a last checkpoint, InterruptedJobError of one without.
        """
        try:
            end = self._carry_out(self._state.begin(time.monotonic()))
            while end is None:
                for event in self._events():
                    end = self._carry_out(self._state.handle(event, time.monotonic()))
                    if end is not None:
                        break
        finally:
            self.close()
        return end

    def _events(self) -> Iterator[Event | None]:
        """The next events; None if no line brought one in time."""
        if not self._is_loss_told:
            try:
                self._guard()
            except JobError as error:
                self._is_loss_told = True
                yield LockLost(error)
        yield from self._processes.newly_ended()
        yield from self._processes.vitals()
        yield self._next_of_lines()
        if self._stop.signum is not None and not self._is_stop_told:
            self._is_stop_told = True
            yield StopRequested(self._stop.signum)
        if self._stop.hurry and not self._is_hurry_told:
            self._is_hurry_told = True
            yield StopHurried()

    def _next_of_lines(self) -> Event | None:
        try:
            event = self._switchboard.events.get(timeout=_POLL_S)
        except queue.Empty:
            return None
        if isinstance(event, Lost):
            return dataclasses.replace(event, log_tail=self._processes.log_tail(event.task))
        return event

    def _carry_out(self, instructions: Iterable[Instruction]) -> AttemptEnd | None:
        """Carries out instructions, and those that follow from Spark's answer; returns the attempt's end if it came."""
        pending = deque(instructions)
        while pending:
            match pending.popleft():
                case BeginPhase(name):
                    self._on_phase(name)
                case StartProcesses():
                    self._job.start()
                    self._processes.start(self._switchboard.address, self._key, self._start_timeout)
                case AdmitHosts(addresses):
                    self._admit({*addresses, *own_addresses(self._spec.driver_host)})
                case CloseRegistration():
                    self._job.close_registration()
                case AssignCoordinator(cluster):
                    self._assign_coordinator(cluster)
                case SendStop(task):
                    self._switchboard.send(task, Stop())
                case Forward(message):
                    self._on_message(message)
                case Log(level, text):
                    log.log(level, "%s", text)
                case AskSpark(container):
                    if answer := self._job.ask(container):
                        pending.extend(self._state.handle(answer, time.monotonic()))
                case AskStacks():
                    self._ask_stacks()
                case EndWith(end):
                    return end
        return None

    def _admit(self, addresses: Collection[str]) -> None:
        """Nodes admit the job's hosts before they are ready, and nobody calls them earlier."""
        self._processes.admit(addresses)
        for task in self._spec.topology.nodes:
            self._switchboard.send(task, Admit(tuple(sorted(addresses))))

    def _ask_stacks(self) -> None:
        """Nodes answer over their lines; the coordinator, which may wait for ever, writes into its log at a signal."""
        for task in self._switchboard.connected() - {COORDINATOR}:
            self._switchboard.send(task, DumpStacks())
        threading.Thread(target=self._read_stacks, name="coordinator-stacks", daemon=True).start()

    def _read_stacks(self) -> None:
        with contextlib.suppress(OSError, ValueError):  # the log is closed: nobody waits for this any more
            self._switchboard.events.put(Said(COORDINATOR, Stacks(self._processes.coordinator_stacks())))

    def _assign_coordinator(self, cluster: Mapping[str, Sequence[str]]) -> None:
        self._processes.assign_coordinator(
            self._spec.assignment, driver=self._switchboard.address, key=self._key, nodes=cluster
        )

    def close(self) -> None:
        """Ends every process of this attempt, in seconds, whatever state it is in. Nothing is heard of it later."""
        self._on_phase("shutdown")
        limit_s = self._spec.deadlines.shutdown
        if not self._state.is_finished:
            limit_s = min(limit_s, _FAILED_STOP_S)
        self._processes.end_coordinator(limit_s if self._state.is_finished else 0)
        for task in self._spec.topology.nodes:
            self._switchboard.send(task, Stop())
        deadline = time.monotonic() + limit_s
        # A job that has failed is over sooner than its nodes, which still clean up; Spark's end would cut that off.
        while self._switchboard.connected() and time.monotonic() < deadline:
            time.sleep(_CLOSE_POLL_S)
        if late := self._switchboard.connected() - {COORDINATOR}:
            words = ", ".join(map(str, sorted(late)))
            log.warning("%s did not end within %.0f s: the Spark job is cancelled", words, limit_s)
        self._job.wait(max(0.0, deadline - time.monotonic()))
        self._job.close(_CANCEL_S)
        self._processes.close()
        self._switchboard.close()
