"""The events of an attempt, as the driver learns them. Pure.

A `failures.Failure` is an event, too: of Spark's job, or of TFoS's rendezvous.
"""

from __future__ import annotations

from dataclasses import dataclass

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
    """A line has ended; expected after `Left` or `Finished`, a failure otherwise."""

    task: Task
    reason: str
