"""The facts of one attempt at a training, gathered from its events. Pure."""

from __future__ import annotations

import logging
from collections import defaultdict

from msgspec.structs import replace

from tfos_job.errors import InterruptedJobError, JobError, NodeDiedError
from tfos_job.host.child import end_in_words
from tfos_job.protocol import failures, messages
from tfos_job.protocol.attempt_end import NodeRecord
from tfos_job.protocol.events import ChildEnded, Event, Joined, LockLost, Lost, Said, StopHurried, StopRequested
from tfos_job.protocol.failures import Failure, Kind, Process, Reason
from tfos_job.protocol.instructions import Forward, Instruction, Log
from tfos_job.protocol.messages import Hello, ToDriver
from tfos_job.protocol.topology import CHIEF, PS, WORKER, Task, Topology

_STACKS_LINES = 200
_STACKS_CHARACTERS = 32 << 10
# What the driver finds out by itself about a coordinator that may stand still.
_NO_NEWS = messages.Vitals | messages.Stacks


class AttemptFacts:
    """The driver's knowledge of its processes, its signals and the training.

    Attributes:
      hellos: of the processes that have called.
      ready: processes whose server answers, and the coordinator when it begins to train.
      left: processes that have said their last word.
      ended: children of the driver that have ended.
      failures: in the order of their arrival.
      stacks: Python stacks of the processes that were asked for them, the last lines of each.
      notices: what a process has last said about its work.
      finished: the coordinator's last word, once training is over.
      signum: of the signal that asks the job to stop.
      is_hurried: a second signal has come.
      lock_error: the run belongs to another command now.
      step: the last that was done in this attempt; None before the first.
      published_step: of the last checkpoint.
      publishing_step: of the newest checkpoint that is on its way.
      publishing_s: seconds that the last checkpoint took.
      block_s: seconds between the last two messages of progress.
      last_news_s: time of the last news from the coordinator or a stager.
    """

    def __init__(self, topology: Topology, driver_host: str, avoided_hosts: frozenset[str] = frozenset()) -> None:
        """No facts yet; `avoided_hosts` are those that no node may be on."""
        self.hellos: dict[Task, Hello] = {}
        self.ready: set[Task] = set()
        self.left: set[Task] = set()
        self.ended: set[Task] = set()
        self.failures: list[Failure] = []
        self.stacks: dict[Task, str] = {}
        self.notices: dict[Task, str] = {}
        self.finished: messages.Finished | None = None
        self.signum: int | None = None
        self.is_hurried = False
        self.lock_error: JobError | None = None
        self.step: int | None = None
        self.published_step: int | None = None
        self.publishing_step: int | None = None
        self.publishing_s = 0.0
        self.block_s = 0.0
        self.last_news_s = 0.0
        self._progress_at_s: float | None = None
        self._lost: set[Task] = set()
        self._vitals: dict[Task, messages.Vitals] = {}
        self._step_s: defaultdict[Task, list[float]] = defaultdict(list)
        self._topology = topology
        self._driver_host = driver_host
        self._avoided_hosts = avoided_hosts

    @property
    def talking(self) -> set[Task]:
        """The processes whose line is open, and who have more to say."""
        return self.hellos.keys() - self.left - self._lost

    def cluster(self) -> dict[str, list[str]]:
        """`host:port` of every node, which have all called, by role."""
        addresses: dict[str, list[str]] = {PS: [], WORKER: []}
        for task in self._topology.nodes:
            addresses[task.role].append(f"{self.hellos[task].host}:{self.hellos[task].port}")
        return addresses

    def hosts(self) -> list[str]:
        """The addresses of every node's host, which have all called."""
        return sorted({address for task in self._topology.nodes for address in self.hellos[task].addresses})

    def note(self, event: Event, now_s: float) -> list[Instruction]:
        """Takes an event; returns what is passed on of it, to the log or to the report."""
        match event:
            case Joined(task, hello):
                self._welcome(task, hello)
            case Said(task, message):
                # A notice is a stager's, for whose shards the first step may be waiting.
                if isinstance(message, messages.Notice) or (task.role == CHIEF and not isinstance(message, _NO_NEWS)):
                    self.last_news_s = now_s
                return self._hear(task, message, now_s)
            case Lost(task, reason, log_tail, is_silent):
                self._lost.add(task)
                if task not in self.left:
                    why = Reason.SILENT if is_silent else Reason.NONE
                    cause = f"the line to it is gone: {reason}"
                    self._fail(task, Failure(Kind.LOST, cause, detail=log_tail, reason=why))
            case ChildEnded(task, name, exit_code, log_tail):
                self.ended.add(task)
                cause = f"{name} {end_in_words(exit_code)}"
                if exit_code < 0:
                    self._fail(task, Failure(Kind.KILLED, cause, detail=log_tail))
                elif task not in self.hellos:  # else it has said why, or its line will end
                    self._fail(task, Failure(Kind.RAISED, cause, JobError.exit_code, detail=log_tail))
            case Failure():
                self.failures.append(event)
            case StopRequested(signum):
                self.signum = signum
            case StopHurried():
                self.is_hurried = True
            case LockLost(error):
                self.lock_error = error
        return []

    def _welcome(self, task: Task, hello: Hello) -> None:
        """Notes a process's place. Those of other attempts have been turned away by the switchboard."""
        self.hellos[task] = hello
        if hello.host in self._avoided_hosts and not self._is_on_driver_host(task):
            cause = "its host is left out of this attempt, since others have failed there"
            self._fail(task, Failure(Kind.RAISED, cause, NodeDiedError.exit_code, reason=Reason.AVOIDED))

    def _hear(self, task: Task, message: ToDriver, now_s: float) -> list[Instruction]:
        match message:
            case messages.Ready():
                self.ready.add(task)
            case messages.Left():
                self.left.add(task)
            case Failure():
                self.left.add(task)
                self._fail(task, message)
            case messages.Vitals():
                self._vitals[task] = message
            case messages.Stacks():
                self.stacks[task] = _tail(message.text)
            case messages.Notice():
                self.notices[task] = message.text
                level = logging.WARNING if message.is_warning else logging.INFO
                return [Log(level, f"{task} on host {self.hellos[task].host}: {message.text}")]
            case _:
                self._follow(task, message, now_s)
                return [Forward(message)]
        return []

    def _follow(self, task: Task, message: ToDriver, now_s: float) -> None:
        """Notes what the coordinator says of the training."""
        match message:
            case messages.CheckpointBegun():
                self.publishing_step = message.step
            case messages.CheckpointPublished():
                self.published_step = message.step
                if message.step == self.publishing_step:  # else a newer one is on its way, too
                    self.publishing_step = None
                self.publishing_s = message.seconds
            case messages.Progress():
                self.step = message.step
                self.block_s = now_s - (now_s if self._progress_at_s is None else self._progress_at_s)
                self._progress_at_s = now_s
                for index, step_s in message.worker_step_s.items():
                    self._step_s[Task(WORKER, int(index))].append(step_s)
            case messages.Finished():
                self.left.add(task)
                self.finished = message

    def _fail(self, task: Task, failure: Failure) -> None:
        self.failures.append(replace(failure, process=self.process(task)))

    def interruption(self, signum: int) -> InterruptedJobError:
        """The error of a stop by a signal, with the checkpoint that the run goes on from."""
        fact = "stopped before a checkpoint"
        if self.published_step:
            fact = f"stopped; the last checkpoint of this attempt is of step {self.published_step}"
        return InterruptedJobError(fact, next_step="Run train again to go on", signum=signum)

    def blame_memory(self, failure: Failure) -> Failure:
        """One of the failures, with the kernel's word where it has killed for memory; it is replaced by that."""
        if failure.process is None:
            return failure
        known = failures.with_memory(failure, self._record(failure.process.task))
        self.failures = [known if each is failure else each for each in self.failures]
        return known

    def process(self, task: Task) -> Process:
        """A task and its place, as far as it is known."""
        hello = self.hellos.get(task)
        return Process(
            task=task,
            host=hello.host if hello else self._driver_host,
            container=hello.container if hello else "",
            log_url=hello.log_url if hello else "",
            on_driver_host=self._is_on_driver_host(task),
        )

    def _is_on_driver_host(self, task: Task) -> bool:
        return task.role == CHIEF or (task.role == PS and self._topology.ps_on_driver_host)

    def records(self) -> tuple[NodeRecord, ...]:
        """What is known of each process that has called."""
        return tuple(self._record(task) for task in sorted(self.hellos))

    def _record(self, task: Task) -> NodeRecord:
        vitals = self._vitals.get(task, messages.Vitals(0))
        blocks = self._step_s[task]
        return NodeRecord(
            process=self.process(task),
            peak_bytes=vitals.peak_bytes,
            limit_bytes=vitals.limit_bytes,
            num_oom_kills=vitals.num_oom_kills,
            step_s=sum(blocks) / len(blocks) if blocks else None,
        )


def _tail(text: str) -> str:
    """The last lines of a text, of which a report holds as many as there are processes."""
    return "\n".join(text.splitlines()[-_STACKS_LINES:])[-_STACKS_CHARACTERS:]
