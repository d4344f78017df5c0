"""One training step, without a cluster: what travels, in which type, and what it does to the numbers."""

from __future__ import annotations

import dataclasses
import math
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.plan import PLAN
from tfos_job.config import BFLOAT16, FLOAT32
from tfos_job.networks import registry
from tfos_job.training.exchange import Wire
from tfos_job.training.finetuning import train_only
from tfos_job.training.optimizer import FusedAdam, build_optimizer
from tfos_job.training.step import MoreBatches, StepResult, train_step

NUM_CLASSES, SIDE, NUM_IMAGES = 5, 16, 8  # images of a step
RATE = 2e-4
_Crossing = list[tuple[tuple[int, ...], str]]  # shape and type of each tensor


class Training:
    """A network, its optimizer, and the graph of a step, on images that are bright by their classes."""

    def __init__(
        self,
        model_name: str,
        wire_dtype: str = FLOAT32,
        scopes: tuple[str, ...] = (),
        *,
        keep_prob: float = 0.8,
        push_every: int = 1,
        num_images: int = NUM_IMAGES,
        learning_rate: float = RATE,
    ) -> None:
        self.model = registry.build(model_name, num_classes=NUM_CLASSES, image_size=SIDE, keep_prob=keep_prob, seed=3)
        train_only(self.model, scopes)
        spec = dataclasses.replace(PLAN.learning_rate, learning_rate=learning_rate)
        self.optimizer: FusedAdam = build_optimizer(spec)
        self.optimizer.build(self.model.trainable_variables)
        batches = iter(tf.data.Dataset.from_tensor_slices(drawn()).batch(num_images // push_every, drop_remainder=True))
        more = MoreBatches(push_every - 1, lambda _: (*next(batches), tf.constant(0.5, tf.float64)))

        def step() -> StepResult:
            images, labels = next(batches)
            return train_step(self.model, self.optimizer, images, labels, 0.1, Wire(wire_dtype), more)

        self.graph = tf.function(step).get_concrete_function()

    def run(self, num_steps: int) -> list[float]:
        return [float(self.graph().loss) for _ in range(num_steps)]

    @property
    def device(self) -> str:
        return str(self.model.trainable_variables[0].value.device)

    @property
    def values(self) -> dict[str, np.ndarray]:
        return {v.path: v.numpy() for v in [*self.model.variables, *self.optimizer.variables]}


def drawn() -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, NUM_CLASSES, 16 * NUM_IMAGES)
    images = draw.random((len(labels), SIDE, SIDE, 1)) * 0.2 + labels[:, None, None, None] / NUM_CLASSES
    return images.astype(np.float32), labels


def rounded(values: np.ndarray) -> np.ndarray:
    return np.asarray(tf.cast(tf.cast(values, tf.bfloat16), tf.float32))


def crossing(training: Training, *, to_worker: bool) -> _Crossing:
    """Shape and type of each tensor of several numbers that goes from the variables' device to the worker's, or back.

    Both are this process here: what the step does not place is the worker's, but for the access to a variable.
    """

    def is_at_variables(operation: tf.Operation) -> bool:
        if operation.type == "IteratorGetNext":
            return False
        return operation.device == training.device or operation.type in ("ReadVariableOp", "AssignVariableOp")

    found = {
        tensor.name: (tuple(tensor.shape), tensor.dtype.name)
        for operation in training.graph.graph.get_operations()
        for tensor in operation.inputs
        if is_at_variables(tensor.op) is to_worker is not is_at_variables(operation)
        if tensor.dtype != tf.resource and tensor.shape.num_elements() > 1
    }
    return sorted(found.values())


def in_messages(tensors: _Crossing) -> _Crossing:
    """Tensors of 64 KiB or more by themselves, all others of a type as one vector."""
    sizes: Counter[str] = Counter()
    alone = []
    for shape, dtype in tensors:
        if math.prod(shape) * tf.as_dtype(dtype).size >= 1 << 16:
            alone.append((shape, dtype))
        else:
            sizes[dtype] += math.prod(shape)
    return alone + [((size,), dtype) for dtype, size in sizes.items()]


@pytest.mark.parametrize(("wire_dtype", "push_every"), [(FLOAT32, 1), (BFLOAT16, 1), (BFLOAT16, 4)])
def test_variables_and_gradients_cross_once_in_the_type_of_the_wire_and_states_as_they_are(
    wire_dtype: str, push_every: int
) -> None:
    training = Training("hanzi_net", wire_dtype, push_every=push_every)
    weights = [(tuple(v.shape), wire_dtype) for v in training.model.trainable_variables]
    states = [(tuple(v.shape), v.dtype) for v in training.model.non_trainable_variables]
    assert crossing(training, to_worker=True) == sorted(in_messages(weights + states))
    assert crossing(training, to_worker=False) == sorted(in_messages(weights) + in_messages(states))
    assert len(weights + states) > 3 * len(in_messages(weights + states))


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


def test_several_batches_of_a_step_are_one_batch_of_all_their_images() -> None:
    one, several = (Training("chinese_rec", keep_prob=1.0, push_every=number) for number in (1, 4))
    assert several.run(4) == pytest.approx(one.run(4), rel=1e-5)
    for path, expected in one.values.items():
        # Where a gradient is next to nothing, its last digits decide about Adam's step, which is RATE at most.
        np.testing.assert_allclose(several.values[path], expected, atol=RATE / 4, rtol=1e-4, err_msg=path)
    assert int(several.optimizer.iterations.numpy()) == 4


def test_the_states_go_on_from_batch_to_batch() -> None:
    """As they do from step to step while the variables, but for nothing, stay."""
    steps, batches = (
        Training("hanzi_net", push_every=number, num_images=12 if number > 1 else 4, learning_rate=1e-30)
        for number in (1, 3)
    )
    losses, found = steps.run(3), batches.graph()
    assert float(found.loss) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(found.input_wait_s) == 2 * 0.5  # the first batch is not the step's own
    assert float(found.computed) <= float(found.updated)
    # However many batches, the graph has the network three times.
    assert [op.type for op in batches.graph.graph.get_operations()].count("While") == 1
    for variable in batches.model.non_trainable_variables:
        np.testing.assert_allclose(variable.numpy(), steps.values[variable.path], rtol=1e-4, atol=1e-6)
