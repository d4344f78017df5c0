"""Adam, and the learning rate of each step."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfos_job.config import COSINE, EXPONENTIAL
from tfos_job.run.plan import LearningRateSpec


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

    `exponential` is the seed's: times `decay_factor` every `decay_steps`, at once (staircase), from the very first step
    on. `cosine` falls from where the rise ends to 0 at the last step.
    """

    def __init__(self, spec: LearningRateSpec) -> None:
        self._spec = spec

    def __call__(self, step: tf.Tensor) -> tf.Tensor:
        spec, step = self._spec, tf.cast(step, tf.float32)
        if spec.decay_type == EXPONENTIAL:
            factor = tf.pow(spec.decay_factor, tf.floor(step / spec.decay_steps))
        elif spec.decay_type == COSINE:
            falling = max(spec.total_steps - spec.warmup_steps, 1)
            done = tf.clip_by_value((step - spec.warmup_steps) / falling, 0.0, 1.0)
            factor = 0.5 + 0.5 * tf.cos(math.pi * done)
        else:
            factor = tf.ones_like(step)
        if spec.warmup_steps:
            factor *= tf.minimum((step + 1) / spec.warmup_steps, 1.0)
        return spec.learning_rate * factor


def build_optimizer(learning_rate: LearningRateSpec) -> FusedAdam:
    """Adam; with the flags' defaults it is the seed's."""
    return FusedAdam(Schedule(learning_rate), name="adam")
