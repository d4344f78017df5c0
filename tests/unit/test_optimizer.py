from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf

from tfos_job.model.train import FusedAdam


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
