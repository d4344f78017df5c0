"""What a node tells the driver of itself: its place, its failure, its memory and its stacks."""

from __future__ import annotations

import dataclasses
import math
import os
import time
from collections.abc import Iterable

from tfos_job.errors import NodeDiedError
from tfos_job.host import container, stacks
from tfos_job.host.addresses import own_addresses
from tfos_job.host.memory import Meter, Usage
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import LineClosed
from tfos_job.protocol.line import NodeLine
from tfos_job.protocol.messages import Hello, Stacks, ToDriver, Vitals
from tfos_job.protocol.topology import Task

_SAMPLE_S = 1.0
_VITALS_S = 10.0


class NodeFailed(Exception):
    """Ends this process or its Spark task; the driver has the `Failure` already."""


def hello(task: Task, host: str, port: int, attempt: int) -> Hello:
    """The first message of the supervisor of `task`."""
    url = container.log_url(log_name(task.role, task.index))
    addresses = tuple(own_addresses(host))
    return Hello(task.role, task.index, host, os.getpid(), port, container.container_id(), url, attempt, addresses)


def log_name(role: str, index: int) -> str:
    """The name of a TensorFlow process's log in YARN's folder."""
    return f"{role}-{index}.log"


def tell(line: NodeLine, message: ToDriver) -> None:
    """Sends a message to the driver. A lost line is no error here: the thread that reads the line reports it."""
    try:
        line.send(message)
    except LineClosed:
        pass


def report(line: NodeLine, failure: Failure) -> NodeFailed:
    """Tells the driver; returns the exception to raise."""
    tell(line, failure)
    return NodeFailed(failure.cause)


def judged(failure: Failure, folders: Iterable[str]) -> Failure:
    """The failure, or the loss of the container if one of these folders is gone.

    YARN removes a container's folder when it ends the container, which its processes may outlive for a moment: what
    fails of that says nothing. Spark can say why the container was ended.
    """
    if failure.kind is not Kind.RAISED or all(map(os.path.isdir, folders)):
        return failure
    cause = f"its container's folder was removed while it worked: {failure.cause}"
    return Failure(Kind.LOST, cause, NodeDiedError.exit_code, detail=failure.detail)


class MemoryAccount:
    """What there is to tell of a process's or a node's memory, as that grows."""

    def __init__(self, meter: Meter) -> None:
        self._meter = meter
        self._told = Usage()
        self._sampled_s = self._told_s = -math.inf

    def due(self) -> Vitals | None:
        """Measures once a second, and returns every ten seconds what has changed. To be called more often."""
        now_s = time.monotonic()
        if now_s - self._told_s >= _VITALS_S:
            return self.news()
        if now_s - self._sampled_s >= _SAMPLE_S:
            self._sampled_s = now_s
            self._meter.sample()
        return None

    def news(self, ended: int | None = None) -> Vitals | None:
        """Measures; None if nothing has changed since the last time. `ended`: a child that has just ended."""
        if ended is not None:
            self._meter.note_end(ended)
        usage = self._meter.sample()
        self._sampled_s = self._told_s = time.monotonic()
        if usage == self._told:
            return None
        self._told = usage
        return Vitals(**dataclasses.asdict(usage))


def stacks_of_node(pid: int, log_path: str) -> Stacks:
    """The stacks of this process, the supervisor, and of its TensorFlow process."""
    own = f"Supervisor, process {os.getpid()}:\n{stacks.of_this_process()}"
    try:
        with open(log_path, "rb") as log:
            below = stacks.of_child(pid, log.fileno())
    except FileNotFoundError:
        below = "Its log is gone with its folder."
    half = stacks.MAX_BYTES // 2
    return Stacks(f"{stacks.cut(own, half)}\nTensorFlow, process {pid}:\n{stacks.cut(below, half)}")
