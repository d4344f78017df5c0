"""The events of an attempt, as the driver learns them. Pure.

A `failures.Failure` is an event, too: of Spark's job or TFoS's rendezvous.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

from tfos_job.errors import JobError
from tfos_job.protocol.failures import Failure
from tfos_job.protocol.messages import Hello, ToDriver
from tfos_job.protocol.topology import Task


@dataclass(frozen=True)
class Joined:
    """A process has called and proved that it holds the key."""

    task: Task
    hello: Hello


@dataclass(frozen=True)
class Said:
    """A message has come."""

    task: Task
    message: ToDriver


@dataclass(frozen=True)
class Lost:
    """A line has ended; expected after `Left` or `Finished`, a failure otherwise.

    `log_tail` has the last lines of the process's log if the driver has it. `is_silent`: nothing was heard for
    `line.SILENCE_S`, so the host may be cut off; else the connection was closed.
    """

    task: Task
    reason: str
    log_tail: str = ""
    is_silent: bool = False


@dataclass(frozen=True)
class ChildEnded:
    """A process on the driver's host has ended, by a signal where the code is negative.

    `name` is that of the child in words, `log_tail` as in `Lost`.
    """

    task: Task
    name: str
    exit_code: int
    log_tail: str = ""


@dataclass(frozen=True)
class StopRequested:
    """The first signal has come."""

    signum: int


@dataclass(frozen=True)
class StopHurried:
    """A second signal has come."""


@dataclass(frozen=True)
class LockLost:
    """Another command has taken the run, or removed its lock: this one must not go on."""

    error: JobError


@dataclass(frozen=True)
class LossExplained:
    """Spark has learned why an executor was lost."""

    reason: str


@dataclass(frozen=True)
class ExecutorAlive:
    """Spark still has the executor that it was asked about: only a process in it has ended."""


Event: TypeAlias = (
    Joined | Said | Lost | ChildEnded | Failure | StopRequested | StopHurried | LockLost | LossExplained | ExecutorAlive
)
