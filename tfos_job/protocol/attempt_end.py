"""The end of one attempt at a training, for the decision about the next one and for the report. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from tfos_job.errors import JobError
from tfos_job.protocol.failures import Failure, Process
from tfos_job.protocol.messages import Finished


@dataclass(frozen=True, kw_only=True)
class NodeRecord:
    """What an attempt has learned of one of its processes.

    Attributes:
      process: its task and place.
      peak_bytes: the highest memory of its processes; 0 where it is unknown.
      limit_bytes: of its container; 0 where it is unknown.
      num_oom_kills: by the kernel, in its cgroup.
      step_s: mean seconds of a step, of a worker that has done any; else None.
    """

    process: Process
    peak_bytes: int = 0
    limit_bytes: int = 0
    num_oom_kills: int = 0
    step_s: float | None = None


@dataclass(frozen=True, kw_only=True)
class AttemptEnd:
    """How an attempt ended, and how far it came.

    Attributes:
      number: of the attempt, in its run.
      outcome: the coordinator's last word, or the error that the attempt ends with.
      phase: in which it ended: `registration`, `build`, `first_step` or `training`.
      first: the failure that explains the others; None where no process has failed, so that another attempt would meet
        the same end: a signal, the loss of the lock, nodes that did not come in time, a network not built in time.
      followers: the other failures, in the order of their arrival.
      start_step: of the checkpoint that it began with; 0 without one.
      step: the last step that it is known to have done.
      checkpoint_step: of the run's newest checkpoint at its end; None without one.
      nodes: its processes, as far as they have called.
      stacks: the Python stacks of processes of an attempt that stood still, by task.
    """

    number: int
    outcome: Finished | JobError
    phase: str
    first: Failure | None = None
    followers: tuple[Failure, ...] = ()
    start_step: int = 0
    step: int = 0
    checkpoint_step: int | None = None
    nodes: tuple[NodeRecord, ...] = ()
    stacks: Mapping[str, str] = field(default_factory=dict)
