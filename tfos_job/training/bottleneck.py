"""The bottleneck of a training's steps, which is input, network or compute, with the evidence. Pure.

Measured in every step, on the workers' own clocks: `input_wait_s`, from asking for a batch until it is there,
and `update_s`, from the last gradient's being computed until the parameter servers have applied all of them. Measured
once a run: `compute_s`, a step's passes forward and backward with made-up variables in the worker's own memory, nothing
sent and nothing received. `step_s` is wall time by the coordinator's clock: what one worker has for one of its steps.

Not measured but left over: `network_s`, the step's time without input and compute. It is what the step would
save if parameter servers cost nothing: variables and gradients on the wire and in gRPC's buffers, the update, the
coordinator's dispatch and, where servers and workers share a machine's cores, what they take from each other.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tfos_job.training.engine import StepBlock

INPUT, NETWORK, COMPUTE = "input", "network", "compute"


@dataclass(frozen=True)
class StepProfile:
    """Seconds a step and worker, averages over `steps` global steps; `compute_s` is None if it was not measured."""

    steps: int
    step_s: float
    input_wait_s: float
    update_s: float
    compute_s: float | None

    @property
    def shares(self) -> dict[str, float] | None:
        """The fraction of a step's time that each takes; together 1. None without `compute_s`."""
        if self.compute_s is None:
            return None
        input_wait = min(1.0, self.input_wait_s / self.step_s)
        # A pass alone may take longer than within a step, whose caches are warm: limited to the rest of the step.
        compute = min(1 - input_wait, self.compute_s / self.step_s)
        return {INPUT: input_wait, NETWORK: 1 - input_wait - compute, COMPUTE: compute}

    @property
    def by(self) -> str | None:
        """The one that takes the most; None if that is unknown."""
        if self.shares is not None:
            return max(self.shares, key=self.shares.__getitem__)
        halves = {INPUT: self.input_wait_s, NETWORK: self.update_s}
        return next((name for name, seconds in halves.items() if seconds > self.step_s / 2), None)

    def to_json(self) -> dict[str, Any]:
        shares = self.shares
        return {
            "by": self.by,
            "shares": shares and {name: round(share, 4) for name, share in shares.items()},
            "steps": self.steps,
            "step_s": round(self.step_s, 6),
            "input_wait_s": round(self.input_wait_s, 6),
            "network_s": shares and round(shares[NETWORK] * self.step_s, 6),
            "update_s": round(self.update_s, 6),
            "compute_s": self.compute_s and round(self.compute_s, 6),
        }


class StepProfiler:
    """Adds up a run's blocks. The first, in which graphs are made and buffers fill, counts only while it is alone."""

    def __init__(self, num_workers: int) -> None:
        self._num_workers = num_workers
        self._blocks = 0
        self._steps = 0
        self._seconds = self._input_wait_s = self._update_s = 0.0
        self.compute_s: float | None = None

    def add(self, block: StepBlock) -> None:
        if self._blocks == 1:
            self._steps = 0
            self._seconds = self._input_wait_s = self._update_s = 0.0
        self._blocks += 1
        self._steps += block.steps
        self._seconds += block.seconds
        self._input_wait_s += block.input_wait_s
        self._update_s += block.update_s

    @property
    def profile(self) -> StepProfile | None:
        """None before the first block."""
        if not self._steps:
            return None
        return StepProfile(
            steps=self._steps,
            step_s=self._seconds * self._num_workers / self._steps,
            input_wait_s=self._input_wait_s / self._steps,
            update_s=self._update_s / self._steps,
            compute_s=self.compute_s,
        )
