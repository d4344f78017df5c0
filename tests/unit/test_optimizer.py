from __future__ import annotations

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.plan import PLAN
from tfos_job.training.optimizer import FusedAdam, Schedule
from tfos_job.training.step import mean_loss


def test_fused_adam_is_keras_adam() -> None:
    """Twelve steps across two borders of the staircase, on weights, biases and a scalar."""
    generator = np.random.default_rng(0)
    shapes = [(7, 5), (5,), ()]
    starts = [generator.normal(size=shape).astype(np.float32) for shape in shapes]
    gradients = [[generator.normal(size=shape).astype(np.float32) for shape in shapes] for _ in range(12)]

    def train(kind: type[keras.optimizers.Adam]) -> list[np.ndarray]:
        schedule = keras.optimizers.schedules.ExponentialDecay(0.01, 5, 0.5, staircase=True)
        optimizer = kind(schedule, name="adam")
        variables = [keras.Variable(start, name=f"v{i}") for i, start in enumerate(starts)]
        optimizer.build(variables)
        step = tf.function(lambda step_gradients: optimizer.apply(step_gradients, variables))
        for step_gradients in gradients:
            step([tf.constant(gradient) for gradient in step_gradients])
        assert int(optimizer.iterations.numpy()) == 12
        return [np.asarray(v.numpy()) for v in [*variables, *optimizer.variables]]

    fused, expected = train(FusedAdam), train(keras.optimizers.Adam)
    for ours, theirs in zip(fused, expected, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    for start, end in zip(starts, fused, strict=False):
        assert np.abs(end - start).max() > 0.01


def rates(**settings: object) -> list[float]:
    schedule = Schedule(dataclasses.replace(PLAN.learning_rate, learning_rate=0.1, **settings))  # type: ignore[arg-type]
    return [float(schedule(tf.constant(step, tf.int64))) for step in range(20)]


def test_the_seeds_schedule_is_kerass_staircase() -> None:
    theirs = keras.optimizers.schedules.ExponentialDecay(0.1, 5, 0.5, staircase=True)
    expected = [float(theirs(step)) for step in range(20)]
    assert rates(decay_steps=5, decay_factor=0.5) == pytest.approx(expected)


def test_cosine_with_a_rise_is_kerass() -> None:
    """Keras begins its rise at 0, where a step does nothing; here the first step is one."""
    theirs = keras.optimizers.schedules.CosineDecay(0.0, 16, warmup_target=0.1, warmup_steps=4)
    found = rates(decay_type="cosine", warmup_steps=4)
    assert found[:4] == pytest.approx([0.025, 0.05, 0.075, 0.1])
    assert found[4:] == pytest.approx([float(theirs(step)) for step in range(4, 20)], abs=1e-6)
    assert found[-1] < 0.01 * max(found)


def test_a_fixed_rate_is_fixed() -> None:
    assert rates(decay_type="fixed", decay_factor=0.1) == pytest.approx([0.1] * 20)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.5])
def test_the_loss_is_the_cross_entropy_with_smooth_labels(label_smoothing: float) -> None:
    logits = tf.constant(np.random.default_rng(0).normal(0, 3, (6, 5)), tf.float32)
    labels = tf.constant([0, 1, 2, 3, 4, 0], tf.int64)
    smooth = tf.one_hot(labels, 5) * (1 - label_smoothing) + label_smoothing / 5
    expected = tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(smooth, logits))
    assert float(mean_loss(logits, labels, label_smoothing)) == pytest.approx(float(expected), rel=1e-5)
