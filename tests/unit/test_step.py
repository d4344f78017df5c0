"""One training step, without a cluster: what travels, in which type, and what it does to the numbers."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.plan import PLAN
from tfos_job.config import BFLOAT16, FLOAT32
from tfos_job.networks import registry
from tfos_job.training.finetuning import train_only
from tfos_job.training.optimizer import FusedAdam, build_optimizer
from tfos_job.training.step import train_step

NUM_CLASSES, SIDE, BATCH_SIZE = 5, 16, 8
RATE = dataclasses.replace(PLAN.learning_rate, learning_rate=2e-4)


class Training:
    """A network, its optimizer, and the graph of a step; `loss` is the last one's."""

    def __init__(self, model_name: str, wire_dtype: str, scopes: tuple[str, ...] = ()) -> None:
        self.model = registry.build(model_name, num_classes=NUM_CLASSES, image_size=SIDE, keep_prob=0.8, seed=3)
        train_only(self.model, scopes)
        self.optimizer: FusedAdam = build_optimizer(RATE)
        self.optimizer.build(self.model.trainable_variables)
        step: Callable[..., tuple[tf.Tensor, ...]] = tf.function(
            lambda images, labels: train_step(self.model, self.optimizer, images, labels, 0.1, wire_dtype)
        )
        self.graph = step.get_concrete_function(*batch(0))  # type: ignore[attr-defined]

    def run(self, num_steps: int) -> list[float]:
        return [float(self.graph(*batch(number))[0]) for number in range(num_steps)]

    @property
    def device(self) -> str:
        return str(self.model.trainable_variables[0].value.device)


def batch(number: int) -> tuple[tf.Tensor, tf.Tensor]:
    draw = np.random.default_rng(number)
    labels = draw.integers(0, NUM_CLASSES, BATCH_SIZE)
    images = draw.random((BATCH_SIZE, SIDE, SIDE, 1)) * 0.2 + labels[:, None, None, None] / NUM_CLASSES
    return tf.constant(images, tf.float32), tf.constant(labels, tf.int64)


def rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(tf.cast(tf.cast(values, tf.bfloat16), tf.float32))


def crossing(training: Training, *, to_worker: bool) -> list[tuple[tuple[int, ...], str]]:
    """Shape and type of each tensor of several numbers that goes from the variables' device to the worker's, or back.

    Both are this process here: what the step does not place is the worker's, but for the access to a variable.
    """

    def is_at_variables(operation: tf.Operation) -> bool:
        return operation.device == training.device or operation.type in ("ReadVariableOp", "AssignVariableOp")

    found = {
        tensor.name: (tuple(tensor.shape), tensor.dtype.name)
        for operation in training.graph.graph.get_operations()
        for tensor in operation.inputs
        if is_at_variables(tensor.op) is to_worker is not is_at_variables(operation)
        if tensor.dtype != tf.resource and tensor.shape.num_elements() > 1
    }
    return sorted(found.values())


@pytest.mark.parametrize("wire_dtype", [FLOAT32, BFLOAT16])
def test_variables_and_gradients_cross_in_the_type_of_the_wire_and_states_as_they_are(wire_dtype: str) -> None:
    training = Training("hanzi_net", wire_dtype)
    weights = [(tuple(v.shape), wire_dtype) for v in training.model.trainable_variables]
    states = [(tuple(v.shape), v.dtype) for v in training.model.non_trainable_variables]
    assert crossing(training, to_worker=True) == sorted(weights + states)
    assert crossing(training, to_worker=False) == sorted(weights + states)


def test_a_step_reads_rounded_variables_and_applies_a_rounded_gradient_and_keeps_float32() -> None:
    plain, other = Training("hanzi_net", FLOAT32), Training("hanzi_net", BFLOAT16)
    for variable in plain.model.trainable_variables:
        variable.assign(rounded(variable.numpy()))
    # The same numbers in both passes, so the same losses and, but for their last rounding, the same gradients.
    assert other.run(1) == plain.run(1)
    for (name, theirs), ours in zip(slots(plain), [array for _, array in slots(other)], strict=True):
        gradient, exact = (moments / (1 - plain.optimizer.beta_1) for moments in (ours, theirs))
        np.testing.assert_allclose(gradient, rounded(gradient), rtol=1e-5, err_msg=name)
        np.testing.assert_allclose(gradient, exact, rtol=2.0**-7, atol=1e-6, err_msg=name)
    for variable in other.model.variables:
        if variable.dtype == "float32":
            assert (rounded(variable.numpy()) != variable.numpy()).any(), variable.path


def slots(training: Training) -> list[tuple[str, np.ndarray]]:
    """Adam's first moments: after one step they are a tenth of the gradients."""
    _, *variables = training.optimizer.variables
    return [(variable.path, variable.numpy()) for variable in variables[::2]]


@pytest.mark.parametrize("model_name", ["chinese_rec", "hanzi_net"])
def test_the_losses_are_near_those_of_float32(model_name: str) -> None:
    plain, other = Training(model_name, FLOAT32), Training(model_name, BFLOAT16)
    losses, others = plain.run(8), other.run(8)
    assert others == pytest.approx(losses, abs=0.1)
    assert others != losses
    assert losses[-1] < losses[0]
    for ours, theirs in zip(plain.model.non_trainable_variables, other.model.non_trainable_variables, strict=True):
        if "moving" in ours.path:
            np.testing.assert_allclose(theirs.numpy(), ours.numpy(), atol=0.1)
            assert np.abs(theirs.numpy() - moved_from(ours)).max() > 0.1
        else:
            np.testing.assert_array_equal(theirs.numpy(), ours.numpy())  # dropout has drawn as often


def moved_from(variable: keras.Variable) -> float:
    """The value that a moving statistic begins with."""
    return 0.0 if variable.path.endswith("moving_mean") else 1.0


def test_what_is_not_trained_is_read_as_it_is_and_not_written() -> None:
    training = Training("hanzi_net", BFLOAT16, scopes=("logits",))
    kept = {v.path: v.numpy() for v in training.model.non_trainable_variables if "random" not in v.path}
    assert len(kept) > 10
    writes = [op for op in training.graph.graph.get_operations() if op.type == "AssignVariableOp"]
    assert len(writes) == 1  # the state of the dropout
    training.run(2)
    for variable in training.model.non_trainable_variables:
        if variable.path in kept:
            np.testing.assert_array_equal(variable.numpy(), kept[variable.path])
