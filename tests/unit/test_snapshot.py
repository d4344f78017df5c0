from __future__ import annotations

import keras
import numpy as np
import pytest
import tensorflow as tf

from tests.plan import PLAN
from tfos_job.networks import variables
from tfos_job.training.optimizer import FusedAdam, build_optimizer
from tfos_job.training.snapshot import Snapshot

DEVICE = "/device:CPU:0"


@pytest.fixture
def model() -> keras.Model:
    keras.utils.set_random_seed(1)
    layers = [keras.Input([4]), keras.layers.Dense(3), keras.layers.Dropout(0.5), keras.layers.BatchNormalization()]
    return keras.Sequential(layers)


@pytest.fixture
def optimizer(model: keras.Model) -> FusedAdam:
    optimizer = build_optimizer(PLAN.learning_rate)
    optimizer.build(model.trainable_variables)
    return optimizer


def test_a_snapshot_has_every_variable_as_it_was_at_that_moment(model: keras.Model, optimizer: FusedAdam) -> None:
    named = variables.all_variables(model, optimizer)
    snapshot = Snapshot(named, DEVICE)
    before = {name: variable.numpy().copy() for name, variable in named.items()}
    taken = snapshot.take()
    optimizer.apply([tf.ones_like(v) for v in model.trainable_variables], model.trainable_variables)
    model(tf.ones([2, 4]), training=True)  # the moving statistics and the seed of the dropout change, too
    for name, array in before.items():
        np.testing.assert_array_equal(taken[name], array, strict=True)
    later = snapshot.take()
    changed = {name.rpartition("/")[2] for name in before if not np.array_equal(before[name], later[name])}
    assert changed > {"kernel", "moving_mean", "iteration", "seed_generator_state"}


def test_what_was_taken_can_be_given_back(model: keras.Model, optimizer: FusedAdam) -> None:
    named = variables.all_variables(model, optimizer)
    taken = Snapshot(named, DEVICE).take()
    for variable in named.values():
        variable.assign(tf.zeros_like(variable))
    variables.assign_all(model, optimizer, taken)
    for name, array in Snapshot(named, DEVICE).take().items():
        np.testing.assert_array_equal(array, taken[name], strict=True)
