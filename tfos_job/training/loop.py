"""Training, engine aside: the step, the plan, and the loop that decides when to save, to evaluate and to stop."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import keras
import numpy as np
import tensorflow as tf

from tfos_job.config import COSINE, EXPONENTIAL
from tfos_job.errors import DivergedError, JobError
from tfos_job.formats.form import Form
from tfos_job.inference.evaluation import Counts
from tfos_job.training.bottleneck import StepProfile, StepProfiler
from tfos_job.training.engine import Block, Engine, TrainPlan

EVALUATION_KS = (1, 3, 5)
_log = logging.getLogger(__name__)
# A block is the time between two looks at the clock, at the stop flag and at the results: long enough that waiting for
# its last step costs little, short enough that Ctrl-C is answered.
_BLOCK_S = 1.5
_MAX_BLOCK_STEPS = 200
_MEASUREMENT_SHARE = 0.01
_TRACING_S = 1.0


class FusedAdam(keras.optimizers.Adam):
    """Keras's Adam with its variables, but each update as one kernel on the device that holds the variable.

    Keras makes some ten small operations of an update, between which those of other workers may come, and counts steps
    by reading the count, adding one and writing it back, which loses steps that are done at the same time. Here an
    update is locked as a whole and no step is lost. It is faster, too (benchmarks/README.md). The numbers are Keras's
    up to rounding.
    """

    def apply(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable]) -> None:
        """One update. `build` must have been called with the same variables in the same order."""
        self.update(grads, trainable_variables)

    def update(self, grads: Sequence[tf.Tensor], trainable_variables: Sequence[keras.Variable]) -> tf.Operation:
        """`apply` in a graph; returns the operation that is done when all of the update is."""
        count, *slots = self.variables
        with tf.device(count.value.device):
            step = tf.cast(count.value + 1, tf.float32)
            scalars = {
                "beta1_power": tf.pow(self.beta_1, step),
                "beta2_power": tf.pow(self.beta_2, step),
                "lr": tf.cast(self.learning_rate, tf.float32),
            }
        updates = []
        for gradient, variable, m, v in zip(grads, trainable_variables, slots[::2], slots[1::2], strict=True):
            with tf.device(variable.value.device):
                update = tf.raw_ops.ResourceApplyAdam(
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
            updates.append(update)
        updates.append(count.value.assign_add(1, read_value=False))
        return tf.group(*updates)


class Schedule(keras.optimizers.schedules.LearningRateSchedule):
    """The learning rate of each step: a linear rise from 0, then a decay.

    `exponential` is the seed's: times `learning_rate_decay_factor` every `decay_steps`, at once (staircase), from the
    very first step on. `cosine` falls from where the rise ends to 0 at the last step.
    """

    def __init__(self, plan: TrainPlan) -> None:
        self._plan = plan

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        plan, step = self._plan, tf.cast(step, tf.float32)
        if plan.learning_rate_decay_type == EXPONENTIAL:
            factor = tf.pow(plan.learning_rate_decay_factor, tf.floor(step / plan.decay_steps))
        elif plan.learning_rate_decay_type == COSINE:
            falling = max(plan.total_steps - plan.warmup_steps, 1)
            done = tf.clip_by_value((step - plan.warmup_steps) / falling, 0.0, 1.0)
            factor = 0.5 + 0.5 * tf.cos(math.pi * done)
        else:
            factor = tf.ones_like(step)
        if plan.warmup_steps:
            factor *= tf.minimum((step + 1) / plan.warmup_steps, 1.0)
        return plan.learning_rate * factor


def build_optimizer(plan: TrainPlan) -> FusedAdam:
    """Adam, the seed's where the plan has the defaults."""
    return FusedAdam(Schedule(plan), name="adam")


def mean_loss(logits: tf.Tensor, labels: tf.Tensor, label_smoothing: float) -> tf.Tensor:
    """The mean cross-entropy, float32 [].

    Args:
      logits: float32 [B, C].
      labels: int64 [B].
      label_smoothing: ε; a label is then 1 − ε + ε/C of its class and ε/C of each other one (arXiv 1512.00567, 7).
    """
    losses = tf.nn.sparse_softmax_cross_entropy_with_logits(labels=labels, logits=logits)
    if label_smoothing:
        # The cross-entropy with a label that is spread over all classes alike.
        uniform = tf.reduce_logsumexp(logits, axis=-1) - tf.reduce_mean(logits, axis=-1)
        losses = (1 - label_smoothing) * losses + label_smoothing * uniform
    return tf.reduce_mean(losses)


def train_step(
    model: keras.Model, optimizer: FusedAdam, images: tf.Tensor, labels: tf.Tensor, label_smoothing: float = 0.0
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor, tf.Tensor]:
    """One update from one batch: the only place where precision, wire type and placement of a step are decided.

    Graph only. `compute_seconds` must do what is done here between reading the variables and handing out gradients.

    Args:
      images: float32 [B, S, S, C].
      labels: int64 [B].
      label_smoothing: see `mean_loss`.

    Returns:
      The mean loss and the number of right first guesses, both of the variables before the update; when all gradients
      were computed, and when all variables were updated (`tf.timestamp`, by the worker's clock).
    """
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = mean_loss(logits, labels, label_smoothing)
    gradients = tape.gradient(loss, model.trainable_variables)
    # Nothing waits for this timestamp: updates begin as their gradients come.
    computed = _timestamp_after(gradients)
    update = optimizer.update(gradients, model.trainable_variables)
    with tf.control_dependencies([update]):
        updated = tf.timestamp()
    num_correct = tf.math.count_nonzero(tf.argmax(logits, axis=-1) == labels)
    return loss, num_correct, computed, updated


def compute_seconds(model: keras.Model, batch_size: int, form: Form) -> tf.Tensor:
    """Times a step's forward and backward pass where this graph runs, with variables and images that are made up there.

    The pass is made twice, and the second is timed. Of the model's own variables none is read or changed.

    Returns:
      float64 [], in seconds.
    """
    seconds = tf.constant(0.0, tf.float64)
    images = tf.random.uniform([batch_size, *form.shape])
    labels = tf.zeros([batch_size], tf.int64)
    variables = [tf.random.normal(v.shape, stddev=0.01, dtype=v.dtype) for v in model.trainable_variables]
    others = [tf.ones(v.shape, v.dtype) for v in model.non_trainable_variables]
    ready = [images, *variables]
    for _ in range(2):
        begin = _timestamp_after(ready)
        with tf.control_dependencies([begin]):
            given, shown = [tf.identity(v) for v in variables], tf.identity(images)
        with tf.GradientTape() as tape:
            tape.watch(given)
            logits, _ = model.stateless_call(given, others, shown, training=True)
            loss = mean_loss(logits, labels, label_smoothing=0.0)
        ready = tape.gradient(loss, given)
        seconds = _timestamp_after(ready) - begin
    return seconds


def _timestamp_after(tensors: Sequence[tf.Tensor]) -> tf.Tensor:
    """The time when all of them are there; on a GPU, when they are computed and not when they are queued."""
    with tf.device("/device:CPU:0"):
        probe = tf.add_n([tf.cast(tf.reshape(tensor, [-1])[0], tf.float32) for tensor in tensors])
        with tf.control_dependencies([probe]):
            now = tf.timestamp()
        # What nothing but a control dependency asks for is not computed: TensorFlow's optimizer sees to that.
        return tf.where(tf.math.is_finite(probe), now, now)


class Listener(Protocol):
    """What the loop tells, and what it must be given: where its results go is not its business."""

    def on_block(self, step: int, block: Block, learning_rate: float, bound: StepProfile) -> None: ...

    def on_checkpoint(self, step: int, variables: Mapping[str, np.ndarray], positions: tuple[int, ...]) -> None: ...

    def on_evaluating(self, step: int, num_examples: int) -> None: ...

    def on_evaluation(self, step: int, counts: Counts) -> None: ...


@dataclass(frozen=True)
class Outcome:
    """Where training stopped. `images` and `seconds` are of the steps alone, without saving and evaluating.

    `bound` is None where no step was done.
    """

    step: int
    interrupted: bool
    images: int
    seconds: float
    positions: tuple[int, ...]
    bound: StepProfile | None


class Loop:
    """Runs an engine from `plan.start_step` to `plan.total_steps`, or until asked to stop.

    Saves every `save_steps` and `save_seconds`, and at the end; evaluates every `eval_steps`, and at the end. A
    checkpoint always precedes the evaluation of the same step, so that what was evaluated is on disk. Once it measures
    what a step computes: when that costs less than a hundredth of the time that the steps have taken, or at the end.
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
        self._account = StepProfiler(plan.num_workers)
        self._may_measure = True
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
            if self._measurement_is_cheap() and not self._should_stop():
                self._measure_compute()
        self._save()
        interrupted = self._step < self._plan.total_steps
        if not interrupted:
            interrupted = not self._evaluate()
        if not interrupted and self._account.bound and self._account.compute_s is None:
            self._measure_compute()
        return Outcome(
            self._step, interrupted, self._images, self._seconds, tuple(self._positions), self._account.bound
        )

    def _measure_compute(self) -> None:
        """A figure for the report: where it cannot be had, training goes on without."""
        try:
            self._account.compute_s = self._engine.measure_compute()
        except tf.errors.OpError as e:
            _log.warning("compute was not measured: %s", e)
            self._may_measure = False

    def _measurement_is_cheap(self) -> bool:
        bound = self._account.bound
        if bound is None or bound.compute_s is not None or not self._may_measure:
            return False
        return _MEASUREMENT_SHARE * self._seconds >= _TRACING_S + 2 * bound.step_s

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
        self._account.add(block)
        assert self._account.bound is not None
        self._listener.on_block(self._step, block, self._engine.learning_rate, self._account.bound)

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

    def _evaluate(self) -> bool:
        """False where it was to stop before the end: nothing is told of it then."""
        if not self._plan.validation_shards or self._step == self._evaluated_step:
            return True
        counts = Counts.zero(EVALUATION_KS)
        shards = self._plan.validation_shards
        for begin in range(0, len(shards), self._plan.num_workers):
            part = shards[begin : begin + self._plan.num_workers]
            counted = None if self._should_stop() else self._engine.evaluate(part, EVALUATION_KS, self._should_stop)
            if counted is None:
                return False
            counts += counted
            self._listener.on_evaluating(self._step, counts.num_examples)
        self._listener.on_evaluation(self._step, counts)
        self._evaluated_step = self._step
        return True
