"""The small interface that a training engine hides behind, and what passes through it.

An engine holds the variables and the input streams and runs steps. Everything around the steps (when to save, to
evaluate, to stop) is `loop.py`'s and the same for every engine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from tfos_job.config import EXPONENTIAL
from tfos_job.formats.form import Form
from tfos_job.inference.evaluation import Counts


@dataclass(frozen=True, kw_only=True)
class TrainPlan:
    """All that the loop and an engine need to know, as JSON values.

    Attributes:
      model: arguments of `zoo.build` but the seed.
      start_step: the global step of the variables training starts from.
      positions: records of its stream that each worker had consumed by then.
      input_mode, staged, window: of `input_pipeline.training_dataset`.
      antialias: of `form.Form`.
      augmentation: fields of `augment.Augmentation`.
      initial_weights: of a training that starts with no checkpoint of its own: arguments of `finetuning.load_weights`
        but the network; empty for fresh weights.
      trainable_scopes: of `finetuning.train_only`.
      learning_rate_decay_type, warmup_steps, total_steps: of `train.Schedule`, with the three beside them.
      label_smoothing: of `train.mean_loss`.
      validation_shards: of the validation split; empty for none.
      normalization: of `normalization.of_plan`; empty for none.
    """

    model: Mapping[str, Any]
    seed: int
    batch_size: int
    num_workers: int
    input_mode: str
    staged: bool
    window: int
    shuffle_buffer: int
    augmentation: Mapping[str, Any]
    learning_rate: float
    learning_rate_decay_factor: float
    decay_steps: int
    learning_rate_decay_type: str = EXPONENTIAL
    warmup_steps: int = 0
    label_smoothing: float = 0.0
    initial_weights: Mapping[str, Any] = field(default_factory=dict)
    trainable_scopes: tuple[str, ...] = ()
    start_step: int
    total_steps: int
    positions: tuple[int, ...]
    save_steps: int | None
    save_seconds: int | None
    eval_steps: int
    validation_shards: tuple[str, ...]
    antialias: bool = False
    normalization: Mapping[str, Any] = field(default_factory=dict)

    @property
    def form(self) -> Form:
        """What records are decoded to; a network that does not say is for grey images."""
        return Form(
            image_size=self.model["image_size"],
            num_channels=self.model.get("num_channels", 1),
            antialias=self.antialias,
        )


@dataclass(frozen=True)
class StepBlock:
    """What a run of steps came to.

    Attributes:
      steps: global steps done.
      images: images trained on.
      loss: mean over the block's images.
      top_1: fraction of the block's images, before each one's update.
      seconds: wall time.
      input_wait_s: time that workers waited for input, summed over the steps.
      update_s: time from a worker's last gradient to the end of all updates, summed over the steps.
      step_s: time that workers spent in steps, from asking for input to the last update, summed over the steps.
      positions: for each worker that took part, the records of its stream consumed since the very start.
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


class Engine(Protocol):
    """Start, run a block of steps, evaluate, snapshot. Calls come from one thread, in that order of life."""

    def start(self, plan: TrainPlan, variables: Mapping[str, np.ndarray] | None) -> None:
        """Builds `plan`'s network on the cluster; `variables` are a checkpoint's, or None for fresh ones."""

    def run(self, num_steps: int) -> StepBlock:
        """Runs exactly that many global steps, over all workers together."""

    def measure_compute(self) -> float:
        """Seconds of a step's forward and backward pass without parameter servers; no variable changes."""

    def evaluate(self, shards: Sequence[str], ks: tuple[int, ...], should_stop: Callable[[], bool]) -> Counts | None:
        """Counts each record of `shards` once. No variable changes, the global step least of all.

        None where it was to stop before the end: the engine is good for a `snapshot` then, and nothing else.
        """

    def snapshot(self) -> dict[str, np.ndarray]:
        """All variables of network and optimizer, and what normalization needs, gathered here, by checkpoint name."""

    @property
    def global_step(self) -> int:
        """The optimizer's own count of updates."""

    @property
    def learning_rate(self) -> float:
        """The rate of the next step."""
