"""Training, engine aside: the step, the plan, and the loop that decides when to save, to evaluate and to stop."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from tfos_job.errors import DivergedError, JobError
from tfos_job.model.engine import Block, Engine, TrainPlan
from tfos_job.model.evaluate import Counts

EVALUATION_KS = (1, 3, 5)
# A block is the time between two looks at the clock, at the stop flag and at the results: long enough that waiting for
# its last step costs little, short enough that Ctrl-C is answered.
_BLOCK_S = 1.5
_MAX_BLOCK_STEPS = 200


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with its variables, but each update as one kernel on the device that holds the variable.

    Keras makes some ten small operations of an update, between which those of other workers may come, and counts steps
    by reading the count, adding one and writing it back, which loses steps that are done at the same time. Here an
    update is locked as a whole and no step is lost. It is faster, too (benchmarks/README.md). The numbers are Keras's
    up to rounding.
    """

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable]) -> None:
        """One update. `build` must have been called with the same variables in the same order."""
        count, *slots = self.variables
        with tf.device(count.value.device):
            step = tf.cast(count.value + 1, tf.float32)
            scalars = {
                "beta1_power": tf.pow(self.beta_1, step),
                "beta2_power": tf.pow(self.beta_2, step),
                "lr": tf.cast(self.learning_rate, tf.float32),
            }
        for gradient, variable, m, v in zip(grads, trainable_variables, slots[::2], slots[1::2], strict=True):
            with tf.device(variable.value.device):
                tf.raw_ops.ResourceApplyAdam(
                    var=variable.value.handle,
                    m=m.value.handle,
                    v=v.value.handle,
                    grad=gradient,
                    beta1=self.beta_1,
                    beta2=self.beta_2,
                    epsilon=self.epsilon,
                    use_locking=True,
                    **scalars,
                )
        count.value.assign_add(1)


def build_optimizer(plan: TrainPlan) -> keras.optimizers.Optimizer:
    """The seed's: Adam, its rate times `learning_rate_decay_factor` every `decay_steps`, at once (staircase)."""
    rate = keras.optimizers.schedules.ExponentialDecay(
        plan.learning_rate, plan.decay_steps, plan.learning_rate_decay_factor, staircase=True
    )
    return FusedAdam(rate, name="adam")


def train_step(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, images: tf.Tensor, labels: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """One update from one batch: the only place where precision, wire type and placement of a step are decided.

    Args:
      images: float32 [B, S, S, 1].
      labels: int64 [B].

    Returns:
      The mean loss and the number of right first guesses, both of the variables before the update.
    """
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
        loss = tf.reduce_mean(losses)
    gradients = tape.gradient(loss, model.trainable_variables)
    optimizer.apply(gradients, model.trainable_variables)
    num_correct = tf.math.count_nonzero(tf.argmax(logits, axis=-1) == labels)
    return loss, num_correct


class Listener(Protocol):
    """What the loop tells, and what it must be given: where its results go is not its business."""

    def on_block(self, step: int, block: Block, learning_rate: float) -> None: ...

    def on_checkpoint(self, step: int, variables: Mapping[str, np.ndarray], positions: tuple[int, ...]) -> None: ...

    def on_evaluating(self, step: int, num_examples: int) -> None: ...

    def on_evaluation(self, step: int, counts: Counts) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """Where training stopped. `images` and `seconds` are of the steps alone, without saving and evaluating."""

    step: int
    interrupted: bool
    images: int
    seconds: float
    positions: tuple[int, ...]


class Loop:
    """Runs an engine from `plan.start_step` to `plan.total_steps`, or until asked to stop.

    Saves every `save_steps` and `save_seconds`, and at the end; evaluates every `eval_steps`, and at the end. A
    checkpoint always precedes the evaluation of the same step, so that what was evaluated is on disk.
    """

    def __init__(
        self,
        engine: Engine,
        plan: TrainPlan,
        listener: Listener,
        should_stop: Callable[[], bool],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._engine = engine
        self._plan = plan
        self._listener = listener
        self._should_stop = should_stop
        self._clock = clock
        self._step = plan.start_step
        self._positions = list(plan.positions)
        self._block_steps = plan.num_workers
        self._saved_step = plan.start_step
        self._saved_time = clock()
        self._evaluated_step = -1
        self._images = 0
        self._seconds = 0.0

    def run(self) -> Outcome:
        """Raises DivergedError where the loss is no finite number; what was saved before stays."""
        while self._step < self._plan.total_steps and not self._should_stop():
            self._run_block()
            if self._save_is_due():
                self._save()
            if self._evaluation_is_due():
                self._evaluate()
        self._save()
        interrupted = self._step < self._plan.total_steps
        if not interrupted:
            self._evaluate()
        return Outcome(self._step, interrupted, self._images, self._seconds, tuple(self._positions))

    def _run_block(self) -> None:
        block = self._engine.run(self._steps_to_next_stop())
        self._step += block.steps
        self._images += block.images
        self._seconds += block.seconds
        for worker, position in block.positions.items():
            self._positions[worker] = max(self._positions[worker], position)
        if not math.isfinite(block.loss):
            raise DivergedError(
                f"the loss is {block.loss} within the {block.steps} steps before step {self._step}",
                next_step="Lower --learning_rate and train again; a checkpoint, where there is one, is from before",
            )
        # A multiple of the workers, so that none is idle at the end of a block.
        per_worker = _BLOCK_S / max(block.seconds, 1e-3) * block.steps / self._plan.num_workers
        self._block_steps = self._plan.num_workers * max(1, min(_MAX_BLOCK_STEPS, int(per_worker)))
        self._listener.on_block(self._step, block, self._engine.learning_rate)

    def _steps_to_next_stop(self) -> int:
        plan = self._plan
        stops = [plan.total_steps]
        stops += [(self._step // n + 1) * n for n in (plan.save_steps, plan.eval_steps) if n]
        return min(self._block_steps, min(stops) - self._step)

    def _save_is_due(self) -> bool:
        plan = self._plan
        by_steps = plan.save_steps is not None and self._step % plan.save_steps == 0
        by_time = plan.save_seconds is not None and self._clock() - self._saved_time >= plan.save_seconds
        # What is evaluated must be on disk, or `best` could name a step that nobody has.
        return by_steps or by_time or self._evaluation_is_due()

    def _evaluation_is_due(self) -> bool:
        return bool(self._plan.validation_shards and self._plan.eval_steps and self._step % self._plan.eval_steps == 0)

    def _save(self) -> None:
        if self._step == self._saved_step:
            return
        counted = self._engine.global_step
        if counted != self._step:
            raise JobError(f"{self._step} steps were run, the optimizer counts {counted}", next_step="Report this bug")
        self._listener.on_checkpoint(self._step, self._engine.snapshot(), tuple(self._positions))
        self._saved_step = self._step
        self._saved_time = self._clock()

    def _evaluate(self) -> None:
        if not self._plan.validation_shards or self._step == self._evaluated_step:
            return
        counts = Counts.zero(EVALUATION_KS)
        shards = self._plan.validation_shards
        for begin in range(0, len(shards), self._plan.num_workers):
            counts += self._engine.evaluate(shards[begin : begin + self._plan.num_workers], EVALUATION_KS)
            self._listener.on_evaluating(self._step, counts.num_examples)
        self._listener.on_evaluation(self._step, counts)
        self._evaluated_step = self._step
