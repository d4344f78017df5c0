"""The instructions of an attempt's state to the driver that carries them out. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from tfos_job.protocol.attempt_end import AttemptEnd
from tfos_job.protocol.messages import ToDriver
from tfos_job.protocol.topology import Task


@dataclass(frozen=True)
class BeginPhase:
    """Note that this phase begins."""

    name: str


@dataclass(frozen=True)
class StartProcesses:
    """Start the nodes on executors, and the processes on the driver's host."""


@dataclass(frozen=True)
class AdmitHosts:
    """Let the hosts of all nodes connect to each node's TensorFlow server, and the driver's, by their addresses."""

    addresses: Sequence[str]


@dataclass(frozen=True)
class CloseRegistration:
    """Stop TFoS's rendezvous: all nodes are there."""


@dataclass(frozen=True)
class AssignCoordinator:
    """Give the coordinator its task, with `host:port` of every node by role."""

    cluster: Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class SendStop:
    """Tell this process to stop."""

    task: Task


@dataclass(frozen=True)
class Forward:
    """Hand the coordinator's message to the report and the display of progress."""

    message: ToDriver


@dataclass(frozen=True)
class AskSpark:
    """Ask Spark what became of an executor: answer with `LossExplained` or `ExecutorAlive`, or not yet.

    `container` is empty for whichever executor was lost.
    """

    container: str


@dataclass(frozen=True)
class AskStacks:
    """Have every process that is there write its Python stacks, before any of them is killed.

    Each answer is a `Said` with `messages.Stacks`, also that of a child of the driver, whose log the driver reads.
    """


@dataclass(frozen=True)
class Log:
    """Log a text on a level of `logging`."""

    level: int
    text: str


@dataclass(frozen=True)
class EndWith:
    """End the attempt: it has its result, or its error."""

    outcome: AttemptEnd


Instruction: TypeAlias = (
    BeginPhase
    | StartProcesses
    | AdmitHosts
    | CloseRegistration
    | AssignCoordinator
    | SendStop
    | Forward
    | AskSpark
    | AskStacks
    | Log
    | EndWith
)
