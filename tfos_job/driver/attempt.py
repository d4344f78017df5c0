"""One attempt at a training, seen from the driver: nodes up, coordinator up, wait for the first end, all down again.

Every wait has a deadline, and every way out goes through `close`, which leaves no process behind. A restart is a new
`Attempt` in the same SparkContext.
"""

from __future__ import annotations

import logging
import os
import queue
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

from msgspec.structs import replace

from tfos_job.driver.launch import NodeJob
from tfos_job.driver.stop_signal import StopSignal
from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError, ResourceError
from tfos_job.host import container, ports
from tfos_job.host.child import Child, child_environment, end_in_words
from tfos_job.host.ports import PortRange
from tfos_job.nodes.driver_host import ParameterServer
from tfos_job.nodes.node import NodeArgs
from tfos_job.protocol import failures, messages
from tfos_job.protocol.events import Joined, Lost, Said
from tfos_job.protocol.failures import Failure, Kind, Process
from tfos_job.protocol.frames import new_key
from tfos_job.protocol.switchboard import Switchboard
from tfos_job.protocol.topology import CHIEF, PS, WORKER, Task, Topology, WorkerInput, describe_missing

log = logging.getLogger(__name__)

_POLL_S = 0.2
# After the first failure: time for the report of the process that really died to overtake those of its peers.
_COLLECT_S = 2.0
# For Spark to learn from YARN what became of a container: some of its heartbeats, of 3 s.
_EXPLAIN_S = 10.0
_NODES_STOP_S = 3.0
_CLOSE_POLL_S = 0.02
_CANCEL_S = 1.0
_SERVER_STOP_S = 1.0
_CHIEF = Task(CHIEF, 0)


@dataclass(frozen=True, kw_only=True)
class AttemptSpec:
    """What one attempt is to run.

    Attributes:
      topology: the nodes.
      inputs: what each worker reads.
      assignment: the fields of `coordinator.Assignment` that are not about the cluster.
      num_gpus: GPUs a worker.
      allow_cpu: a worker without its GPU goes on without.
      driver_host: address of the driver that every node reaches.
      local: all nodes share the driver's host.
      start_timeout: seconds until the first step may begin.
      stall_timeout: seconds without any news from the coordinator or the stagers.
      stop_timeout: seconds from a signal to the end of a last checkpoint.
      port_range: to listen in; None for any ports.
    """

    topology: Topology
    inputs: tuple[WorkerInput, ...]
    assignment: Mapping[str, Any]
    num_gpus: int
    driver_host: str
    local: bool
    start_timeout: int
    stall_timeout: int
    stop_timeout: float
    allow_cpu: bool = False
    port_range: PortRange | None = None


@dataclass
class _State:
    hellos: dict[Task, messages.Hello] = field(default_factory=dict)
    ready: set[Task] = field(default_factory=set)
    left: set[Task] = field(default_factory=set)
    failures: list[Failure] = field(default_factory=list)
    published_step: int | None = None
    publishing_step: int | None = None
    publishing_s: float = 0.0  # that the last checkpoint took
    block_s: float = 0.0  # between the last two accounts of steps
    progress_at_s: float | None = None
    finished: messages.Finished | None = None


class Attempt:
    """Runs one attempt."""

    def __init__(
        self,
        sc: Any,
        spec: AttemptSpec,
        *,
        on_message: Callable[[messages.ToDriver], None],
        on_phase: Callable[[str], None],
        stop: StopSignal,
        guard: Callable[[], None],
    ) -> None:
        """Takes the ports; starts nothing yet.

        Args:
          sc: the SparkContext.
          spec: what to run.
          on_message: given what the coordinator says.
          on_phase: given the name of each phase as it begins.
          stop: asks the job to stop.
          guard: called all the time; raises where the job must not go on, such as after the loss of its lock.
        """
        self._spec = spec
        self._on_message = on_message
        self._on_phase = on_phase
        self._stop = stop
        self._guard = guard
        self._state = _State()
        self._key = new_key()
        # Held until each is needed: the nodes must know the addresses of those beside the driver before these serve.
        self._chief_port = ports.listen(spec.driver_host, spec.port_range)
        self._ps_ports = [
            ports.listen(spec.driver_host, spec.port_range) for _ in range(spec.topology.num_driver_ps_tasks)
        ]
        self._beside = {CHIEF: [_address(self._chief_port)]}
        if self._ps_ports:
            self._beside[PS] = [_address(held) for held in self._ps_ports]
        self._switchboard = Switchboard(spec.driver_host, self._key, spec.port_range)
        args = NodeArgs(
            driver=self._switchboard.address,
            key=self._key,
            beside=self._beside,
            inputs=spec.inputs,
            num_gpus=spec.num_gpus,
            allow_cpu=spec.allow_cpu,
            local=spec.local,
            start_timeout=spec.start_timeout,
            port_range=spec.port_range,
        )
        self._job = NodeJob(sc, spec.topology, args, self._switchboard.events, spec.start_timeout)
        self._servers: list[ParameterServer] = []
        self._coordinator: Child | None = None
        self._coordinator_log = _open_log()
        # TensorFlow leaves the source of every function it has traced in the folder for temporary files.
        self._scratch = container.make_scratch()
        self._ends_noticed: set[Task] = set()
        self._stop_deadline: float | None = None

    # The phases, in order.

    def run(self) -> messages.Finished:
        """Runs to the end of training or to the stop signal.

        Raises:
          JobError: the first cause of the failure.
          InterruptedJobError: stopped by a signal, and without time for a last checkpoint; `Finished.interrupted` tells
            of a stop with one.
        """
        try:
            try:
                return self._run()
            except JobError:
                self._await_checkpoint()
                raise
        except InterruptedJobError as e:
            step = self._state.published_step
            raise InterruptedJobError(
                f"stopped; the last checkpoint of this attempt is of step {step}"
                if step
                else "stopped before a checkpoint",
                next_step="Run train again to go on",
                signum=e.signum,
            ) from None
        finally:
            self.close()

    def _run(self) -> messages.Finished:
        nodes = set(self._spec.topology.nodes)
        deadline = time.monotonic() + self._spec.start_timeout
        self._on_phase("nodes")
        self._job.start()
        # They import TensorFlow, some seconds, while Spark starts the nodes and these do the same.
        self._spawn_servers()
        self._spawn_coordinator()
        self._wait_for(lambda: nodes <= self._state.ready, deadline, lambda: self._missing(nodes))
        self._job.close_registration()
        self._on_phase("coordinator")
        self._assign_coordinator()
        self._wait_for(lambda: _CHIEF in self._state.ready, deadline, lambda: "the coordinator did not start in time")
        self._on_phase("training")
        return self._train()

    def _missing(self, nodes: set[Task]) -> str:
        absent = describe_missing(nodes, self._state.hellos)
        if absent:
            return f"{absent} did not register within {self._spec.start_timeout} s"
        silent = sorted(nodes - self._state.ready)
        where = ", ".join(f"{task} on {self._state.hellos[task].host}" for task in silent)
        return f"the TensorFlow server of {where} did not start within {self._spec.start_timeout} s"

    def _wait_for(self, done: Callable[[], bool], deadline: float, what_is_missing: Callable[[], str]) -> None:
        while not done():
            self._take_event()
            if self._stop.signum is not None:
                raise InterruptedJobError("stopped", signum=self._stop.signum)
            if self._state.failures:
                raise self._failure()
            if time.monotonic() > deadline:
                raise ResourceError(
                    what_is_missing(), next_step="See whether the queue has room, or raise --start_timeout"
                )

    def _train(self) -> messages.Finished:
        last_news = time.monotonic()
        while self._state.finished is None:
            if self._take_event():
                last_news = time.monotonic()
            if self._stop.signum is not None:
                if self._stop_deadline is None:
                    self._switchboard.send(_CHIEF, messages.Stop())
                    self._stop_deadline = time.monotonic() + self._spec.stop_timeout
                    log.warning("%s", self._what_is_waited_for())
                # A signal may have reached Spark's JVM too, and its nodes: then their end is no news.
                if self._state.failures or self._stop.hurry or time.monotonic() > self._stop_deadline:
                    raise InterruptedJobError("stopped", signum=self._stop.signum)
            elif self._state.failures:
                raise self._failure()
            if time.monotonic() - last_news > self._spec.stall_timeout:
                raise NodeDiedError(
                    f"no step was finished for {self._spec.stall_timeout} s",
                    place=f"{_CHIEF} on host {self._spec.driver_host}",
                    next_step="If steps are really that slow raise --stall_timeout; else run train again to resume",
                )
        return self._state.finished

    def _what_is_waited_for(self) -> str:
        expected_s = self._state.block_s + self._state.publishing_s
        text = f"some {max(1.0, expected_s):.0f} s, " if self._state.publishing_s else ""
        return (
            f"Waiting for the running steps and a last checkpoint, {text}at most {self._spec.stop_timeout:g} s "
            "(--stop_timeout); a second signal does not wait"
        )

    def _await_checkpoint(self) -> None:
        """A checkpoint that is on its way needs no node any more: whoever has died, it can still be published."""
        deadline = self._stop_deadline or time.monotonic() + self._spec.stop_timeout
        while self._state.publishing_step is not None and _CHIEF not in self._state.left:
            if self._coordinator is None or self._coordinator.poll() is not None:
                return
            if self._stop.hurry or time.monotonic() > deadline:
                log.warning("The checkpoint of step %d was not finished", self._state.publishing_step)
                return
            self._take_event()

    # Events.

    def _take_event(self, timeout_s: float = _POLL_S) -> bool:
        """Handles at most one event; True where it was news of the work."""
        self._guard()
        self._watch_children()
        try:
            event = self._switchboard.events.get(timeout=timeout_s)
        except queue.Empty:
            return False
        if isinstance(event, Failure):
            self._state.failures.append(event)
        elif isinstance(event, Joined):
            self._state.hellos[event.task] = event.hello
        elif isinstance(event, Said):
            self._hear(event.task, event.message)
            # A notice is a stager's, whose shards the first step may be waiting for.
            return event.task == _CHIEF or isinstance(event.message, messages.Notice)
        elif isinstance(event, Lost) and event.task not in self._state.left:
            self._fail(event.task, Kind.LOST, f"the line to it is gone: {event.reason}")
        return False

    def _hear(self, task: Task, message: messages.ToDriver) -> None:
        if isinstance(message, messages.Ready):
            self._state.ready.add(task)
        elif isinstance(message, messages.Left):
            self._state.left.add(task)
        elif isinstance(message, Failure):
            self._state.left.add(task)
            self._state.failures.append(self._of_process(task, message))
        elif isinstance(message, messages.Notice):
            level = logging.WARNING if message.is_warning else logging.INFO
            log.log(level, "%s on host %s: %s", task, self._state.hellos[task].host, message.text)
        else:
            if isinstance(message, messages.CheckpointBegun):
                self._state.publishing_step = message.step
            if isinstance(message, messages.CheckpointPublished):
                self._state.published_step = message.step
                self._state.publishing_step = None
                self._state.publishing_s = message.seconds
            if isinstance(message, messages.Progress):
                now = time.monotonic()
                self._state.block_s = now - (self._state.progress_at_s or now)
                self._state.progress_at_s = now
            if isinstance(message, messages.Finished):
                self._state.left.add(task)
                self._state.finished = message
            self._on_message(message)

    def _watch_children(self) -> None:
        """Of what runs beside the driver, the end is seen at once, and how it came."""
        children = [(server.task, server.process, "its supervisor") for server in self._servers]
        if self._coordinator is not None:
            children.append((_CHIEF, self._coordinator, "the coordinator"))
        for task, process, name in children:
            code = process.poll()
            if code is None or task in self._ends_noticed:
                continue
            self._ends_noticed.add(task)
            if code < 0:
                self._fail(task, Kind.KILLED, f"{name} {end_in_words(code)}")
            elif task not in self._state.hellos:
                self._fail(task, Kind.RAISED, f"{name} {end_in_words(code)}", JobError.exit_code)

    def _fail(self, task: Task, kind: Kind, cause: str, exit_code: int = NodeDiedError.exit_code) -> None:
        detail = self._coordinator_log_tail() if task == _CHIEF else ""
        self._state.failures.append(self._of_process(task, Failure(kind, cause, exit_code, detail=detail)))

    def _of_process(self, task: Task, failure: Failure) -> Failure:
        hello = self._state.hellos.get(task)
        process = Process(
            task=task,
            host=hello.host if hello else self._spec.driver_host,
            container=hello.container if hello else "",
            log_url=hello.log_url if hello else "",
            on_driver_host=task.role in self._beside,
        )
        return replace(failure, process=process)

    def _failure(self) -> JobError:
        """Collects what else fails now, and says which was first."""
        deadline = time.monotonic() + _COLLECT_S
        while time.monotonic() < deadline:
            self._take_event()
        first = self._explained(failures.first_cause(self._state.failures))
        for failure in self._state.failures:
            log.log(logging.WARNING if failure is first else logging.DEBUG, "%s", failure)
        if first.detail:
            log.warning("The last words of %s:\n%s", first.process or "Spark", first.detail.rstrip())
        if first.process and first.process.log_url:
            log.warning("The whole log of %s: %s", first.process.task, first.process.log_url)
        return failures.to_error(self._state.failures)

    def _explained(self, first: Failure) -> Failure:
        """Where a line broke on a cluster, Spark learns within seconds what became of the executor."""
        if self._spec.local or first.kind not in (Kind.LOST, Kind.SPARK):
            return first
        deadline = time.monotonic() + _EXPLAIN_S
        while time.monotonic() < deadline and not self._stop.hurry:
            if reason := self._job.loss_reason(first.process.container if first.process else ""):
                explained = failures.explain(first, reason)
                self._state.failures = [explained if f is first else f for f in self._state.failures]
                return explained
            self._take_event()
        return first

    # What runs beside the driver.

    def _spawn_servers(self) -> None:
        for index, held in enumerate(self._ps_ports):
            server = ParameterServer(
                index,
                held,
                driver=self._switchboard.address,
                key=self._key,
                beside=self._beside,
                start_timeout=self._spec.start_timeout,
            )
            self._servers.append(server)

    def _spawn_coordinator(self) -> None:
        self._coordinator = Child(
            "tfos_job.training.coordinator",
            name="the coordinator",
            # A GPU that the coordinator opened would be missing to a worker.
            env={**child_environment(""), "TMPDIR": self._scratch},
            output=self._coordinator_log,
        )

    def _assign_coordinator(self) -> None:
        cluster: dict[str, list[str]] = {CHIEF: self._beside[CHIEF], PS: [], WORKER: []}
        for task in self._spec.topology.nodes:
            hello = self._state.hellos[task]
            cluster[task.role].append(f"{hello.host}:{hello.port}")
        assignment = {
            **self._spec.assignment,
            "driver": self._switchboard.address,
            "key": self._key.hex(),
            "cluster": cluster,
            "scratch": self._scratch,
        }
        ports.release(self._chief_port)
        assert self._coordinator is not None
        self._coordinator.tell(assignment)

    def _coordinator_log_tail(self) -> str:
        # The child writes at the offset that the two share: read without moving it.
        num_bytes = os.fstat(self._coordinator_log.fileno()).st_size
        text = os.pread(self._coordinator_log.fileno(), num_bytes, 0).decode(errors="replace")
        return failures.log_tail(text.splitlines(keepends=True))

    # The end.

    def close(self) -> None:
        """Ends every process of this attempt, in seconds, whatever state it is in."""
        self._on_phase("stopping")
        if self._coordinator is not None:
            self._coordinator.end(_NODES_STOP_S if self._state.finished else 0)
        for task in self._spec.topology.nodes:
            self._switchboard.send(task, messages.Stop())
        deadline = time.monotonic() + _NODES_STOP_S
        # A job that has failed is over sooner than its nodes, which still clean up; Spark's end would cut that off.
        while self._switchboard.connected() and time.monotonic() < deadline:
            time.sleep(_CLOSE_POLL_S)
        if not self._job.wait(max(0.0, deadline - time.monotonic())):
            self._job.cancel()
            self._job.wait(_CANCEL_S)
        for server in self._servers:
            server.close(_SERVER_STOP_S)
        self._job.close_registration()
        self._switchboard.close()
        for held in (self._chief_port, *self._ps_ports):
            held.close()
        self._coordinator_log.close()
        shutil.rmtree(self._scratch, ignore_errors=True)


def _address(held: socket.socket) -> str:
    return "{}:{}".format(*held.getsockname()[:2])


def _open_log() -> BinaryIO:
    """The coordinator's log: where YARN keeps it, else a file without a name that ends with the attempt."""
    path = container.log_file("coordinator.log")
    return open(path, "ab+") if path else tempfile.TemporaryFile()
