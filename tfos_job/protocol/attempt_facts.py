"""The facts of one attempt at a training, gathered from its events. Pure."""

from __future__ import annotations

import logging

from msgspec.structs import replace

from tfos_job.errors import JobError
from tfos_job.host.child import end_in_words
from tfos_job.protocol import messages
from tfos_job.protocol.events import ChildEnded, Event, Joined, Lost, Said, StopHurried, StopRequested
from tfos_job.protocol.failures import Failure, Kind, Process
from tfos_job.protocol.instructions import Forward, Instruction, Log
from tfos_job.protocol.messages import Hello, ToDriver
from tfos_job.protocol.topology import CHIEF, COORDINATOR, PS, Task, Topology


class AttemptFacts:
    """The driver's knowledge of its processes, its signals and the training.

    Attributes:
      hellos: of the processes that have called.
      ready: processes whose server answers, and the coordinator when it begins to train.
      left: processes that have said their last word.
      ended: children of the driver that have ended.
      failures: in the order of their arrival.
      finished: the coordinator's last word, once training is over.
      signum: of the signal that asks the job to stop.
      is_hurried: a second signal has come.
      published_step: of the last checkpoint.
      publishing_step: of the checkpoint that is on its way.
      publishing_s: seconds that the last checkpoint took.
      block_s: seconds between the last two messages of progress.
      last_news_s: time of the last news from the coordinator or a stager.
    """

    def __init__(self, topology: Topology, driver_host: str) -> None:
        self.hellos: dict[Task, Hello] = {}
        self.ready: set[Task] = set()
        self.left: set[Task] = set()
        self.ended: set[Task] = set()
        self.failures: list[Failure] = []
        self.finished: messages.Finished | None = None
        self.signum: int | None = None
        self.is_hurried = False
        self.published_step: int | None = None
        self.publishing_step: int | None = None
        self.publishing_s = 0.0
        self.block_s = 0.0
        self.last_news_s = 0.0
        self._progress_at_s: float | None = None
        self._topology = topology
        self._driver_host = driver_host

    def note(self, event: Event, now_s: float) -> list[Instruction]:
        """Takes an event; returns what is passed on of it, to the log or to the report."""
        match event:
            case Joined(task, hello):
                self.hellos[task] = hello
            case Said(task, message):
                # A notice is a stager's, for whose shards the first step may be waiting.
                if task == COORDINATOR or isinstance(message, messages.Notice):
                    self.last_news_s = now_s
                return self._hear(task, message, now_s)
            case Lost(task, reason, log_tail) if task not in self.left:
                self._fail(task, Failure(Kind.LOST, f"the line to it is gone: {reason}", detail=log_tail))
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
        return []

    def _hear(self, task: Task, message: ToDriver, now_s: float) -> list[Instruction]:
        match message:
            case messages.Ready():
                self.ready.add(task)
                return []
            case messages.Left():
                self.left.add(task)
                return []
            case Failure():
                self.left.add(task)
                self._fail(task, message)
                return []
            case messages.Notice():
                level = logging.WARNING if message.is_warning else logging.INFO
                return [Log(level, f"{task} on host {self.hellos[task].host}: {message.text}")]
            case messages.CheckpointBegun():
                self.publishing_step = message.step
            case messages.CheckpointPublished():
                self.published_step = message.step
                self.publishing_step = None
                self.publishing_s = message.seconds
            case messages.Progress():
                self.block_s = now_s - (now_s if self._progress_at_s is None else self._progress_at_s)
                self._progress_at_s = now_s
            case messages.Finished():
                self.left.add(task)
                self.finished = message
        return [Forward(message)]

    def _fail(self, task: Task, failure: Failure) -> None:
        hello = self.hellos.get(task)
        process = Process(
            task=task,
            host=hello.host if hello else self._driver_host,
            container=hello.container if hello else "",
            log_url=hello.log_url if hello else "",
            on_driver_host=task.role == CHIEF or (task.role == PS and self._topology.ps_on_driver_host),
        )
        self.failures.append(replace(failure, process=process))
