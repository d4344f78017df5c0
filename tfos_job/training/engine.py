"""The interface of a training engine, and the values that pass through it.

An engine holds the variables and the input streams and runs steps. Everything around the steps (when to save, to
evaluate, to stop) is `loop.py`'s and the same for every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import numpy as np

from tfos_job.inference.evaluation import Counts
from tfos_job.run.plan import TrainPlan


@dataclass(frozen=True)
class StepBlock:
    """The result of a block of steps.

    Attributes:
      steps: global steps done.
      images: images trained on.
      loss: mean over the block's images.
      top_1: fraction of the block's images, before each one's update.
      seconds: wall time.
      input_wait_s: time that workers waited for input, summed over the steps.
      update_s: time from a worker's last gradient to the end of all updates, summed over the steps.
      step_s: time that workers spent in steps, from asking for input to the last update, summed over the steps.
        Of a step of several workers together, this and the two above are the means over the workers.
      positions: for each worker that took part, the records of its stream consumed since the very start.
      worker_step_s: for each of them, the mean time of its steps; without the time in which it waits for others.
    """

    steps: int
    images: int
    loss: float
    top_1: float
    seconds: float
    input_wait_s: float
    update_s: float
    step_s: float
    positions: Mapping[int, int] = field(default_factory=dict)
    worker_step_s: Mapping[int, float] = field(default_factory=dict)


class Engine(Protocol):
    """Holds variables and input streams, and runs steps. All calls come from one thread; `start` is the first."""

    @property
    def steps_at_once(self) -> int:
        """Global steps that are done at the same time: one a worker, or one of all workers together."""

    def start(self, plan: TrainPlan, variables: Mapping[str, np.ndarray] | None) -> None:
        """Builds `plan`'s network on the cluster; `variables` are a checkpoint's, or None for fresh ones."""

    def run(self, num_steps: int) -> StepBlock:
        """Runs exactly that many global steps, over all workers together."""

    def measure_compute(self) -> float:
        """Seconds of a step's forward and backward passes, without the network; no variable changes."""

    def evaluate(self, shards: Sequence[str], ks: tuple[int, ...], should_stop: Callable[[], bool]) -> Counts | None:
        """Counts each record of `shards` once. No variable changes, not even the global step.

        None if it had to stop before the end: only `snapshot` may be called then.
        """

    def snapshot(self) -> dict[str, np.ndarray]:
        """All variables of network and optimizer, and what normalization needs, gathered here, by checkpoint name."""

    @property
    def num_parameters(self) -> tuple[int, int]:
        """Numbers in the network's weights: all of them, and those that are trained."""

    @property
    def step_bytes(self) -> tuple[int, ...]:
        """Bytes that each parameter server sends and receives in one worker's step, by where variables really are.

        Without parameter servers those of each worker.
        """

    @property
    def global_step(self) -> int:
        """The optimizer's own count of updates."""

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
