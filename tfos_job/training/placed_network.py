"""A network and its optimizer on several parameter servers, each variable where `--ps_placement` wants it.

TensorFlow's strategy puts variables on one server after the other and knows no other way. But what is created beside
another variable lies beside it, so an anchor on each server is all that is needed: an optimizer's slots follow their
variable in the same way.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras.src.backend.common.name_scope import current_path  # a variable's path while it is created; not public

from tfos_job.config import WIRE_BYTES
from tfos_job.networks import registry
from tfos_job.networks.dense import is_divisible, kernels_in_parts
from tfos_job.networks.parts import Parts, divided
from tfos_job.networks.variables import assign_all, assign_model, model_variables
from tfos_job.run.placement import PlacedVariable, Placement, place
from tfos_job.run.plan import TrainPlan
from tfos_job.training.finetuning import leaves, load_weights, train_only
from tfos_job.training.optimizer import FusedAdam, build_optimizer


@dataclass(frozen=True, kw_only=True)
class PlacedNetwork:
    """A network whose variables lie on parameter servers, and its optimizer; `parts` are `Placement.parts`."""

    model: keras.Model
    optimizer: FusedAdam
    parts: Parts = field(default_factory=dict)


def build(
    strategy: tf.distribute.ParameterServerStrategy,
    num_ps_tasks: int,
    plan: TrainPlan,
    variables: Mapping[str, np.ndarray] | None,
) -> PlacedNetwork:
    """Builds `plan`'s network on the parameter servers and gives it its first values.

    Args:
      strategy: connected to the servers.
      num_ps_tasks: of them.
      plan: of the training.
      variables: a checkpoint's, whatever the placement was that it was made with; None for fresh ones.

    Raises:
      JobError: of the network or of the weights that it begins with.
    """
    if num_ps_tasks == 1:
        with strategy.scope():
            model, optimizer = begun(plan)
        give_first_values(model, optimizer, plan, variables)
        return PlacedNetwork(model=model, optimizer=optimizer)
    # First here, in one piece: for the shapes, and for the same first values as anywhere else.
    pattern = _model(plan)
    if variables is not None:
        assign_model(pattern, variables)
    elif plan.initial_weights is not None:
        load_weights(pattern, plan.initial_weights)
    placement = place(placed_variables(pattern, plan.wire_dtype), num_ps_tasks, plan.ps_placement)
    with strategy.scope(), _created_at(strategy, num_ps_tasks, placement), kernels_in_parts(placement.parts):
        model, optimizer = begun(plan)
    if variables is not None:
        assign_all(model, optimizer, divided(variables, placement.parts))
    else:
        values = {name: variable.numpy() for name, variable in model_variables(pattern).items()}
        assign_model(model, divided(values, placement.parts))
    return PlacedNetwork(model=model, optimizer=optimizer, parts=placement.parts)


def _model(plan: TrainPlan) -> keras.Model:
    model = registry.build(**vars(plan.model), seed=plan.seed)
    train_only(model, plan.trainable_scopes)
    return model


def begun(plan: TrainPlan) -> tuple[keras.Model, FusedAdam]:
    """`plan`'s network and optimizer, built, with variables that are new."""
    model, optimizer = _model(plan), build_optimizer(plan.learning_rate)
    optimizer.build(model.trainable_variables)
    return model, optimizer


def give_first_values(
    model: keras.Model, optimizer: FusedAdam, plan: TrainPlan, variables: Mapping[str, np.ndarray] | None
) -> None:
    """Gives whole variables the values of a checkpoint, or those that `plan` begins with where there is none."""
    if variables is not None:
        assign_all(model, optimizer, variables)
    elif plan.initial_weights is not None:
        load_weights(model, plan.initial_weights)


def placed_variables(model: keras.Model, wire_dtype: str) -> list[PlacedVariable]:
    """All variables of a network, as far as their places depend on them.

    Args:
      model: the network.
      wire_dtype: a key of `config.WIRE_BYTES`, for trained variables; others travel as they are.
    """
    # Such a layer's states stay as they are; states of random numbers change in any.
    frozen = {variable.path for layer in leaves(model) if not layer.trainable for variable in layer.weights}
    return [
        PlacedVariable(
            path=variable.path,
            shape=tuple(variable.shape),
            value_bytes=WIRE_BYTES[wire_dtype] if variable.trainable else tf.as_dtype(variable.dtype).size,
            is_changed=variable.path not in frozen,
            is_trained=variable.trainable,
            is_divisible=is_divisible(variable),
        )
        for variable in model.variables
    ]


@contextlib.contextmanager
def _created_at(
    strategy: tf.distribute.ParameterServerStrategy, num_ps_tasks: int, placement: Placement
) -> Iterator[None]:
    """Within it, variables are created on the server that the placement has for their path, others on the first."""
    anchors = {}
    for number in range(num_ps_tasks):  # one on each, since the strategy takes one server after the other
        anchor = tf.Variable(0.0, trainable=False, name=f"anchor{number}")
        anchors[server_of(anchor)] = anchor

    def create(next_creator: Any, **settings: Any) -> tf.Variable:
        if settings.get("colocate_with") is None:
            scope, name = current_path(), settings.get("name")
            settings["colocate_with"] = anchors[placement.owners.get(f"{scope}/{name}" if scope else str(name), 0)]
        return next_creator(**settings)

    with tf.variable_creator_scope(create):
        yield


def server_of(variable: tf.Variable) -> int:
    """The index of the parameter server that has the variable."""
    return int(tf.DeviceSpec.from_string(variable.device).task)


def step_bytes(model: keras.Model, num_ps_tasks: int, wire_dtype: str) -> tuple[int, ...]:
    """What each parameter server sends and receives in one worker's step, by where the variables really are."""
    found = [0] * num_ps_tasks
    for variable, described in zip(model.variables, placed_variables(model, wire_dtype), strict=True):
        found[server_of(variable.value)] += described.step_bytes
    return tuple(found)
