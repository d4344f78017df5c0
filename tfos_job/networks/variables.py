"""Conversion between a network's variables and the named arrays of a checkpoint.

A checkpoint holds one flat mapping of names to arrays. A network's are `model/` + the variable's path; the arrays that
training keeps beside them (`optimizer/…`, `global_step`) are ignored here.
"""

from __future__ import annotations

from collections.abc import Mapping

import keras
import numpy as np

from tfos_job.config import NO_NORMALIZATION
from tfos_job.errors import SettingsError
from tfos_job.formats.form import Form
from tfos_job.input.normalization import Normalization, restore
from tfos_job.networks import registry
from tfos_job.run import own_network
from tfos_job.run.checkpoint_files import OPTIMIZER_PREFIX, CheckpointInfo

MODEL_PREFIX = "model/"


def model_variables(model: keras.Model) -> dict[str, keras.Variable]:
    """All variables of `model`, dropout's random states included, by checkpoint name."""
    return {MODEL_PREFIX + variable.path: variable for variable in model.variables}


def assign_model(model: keras.Model, arrays: Mapping[str, np.ndarray], place: str = "") -> None:
    """Sets all variables of `model` from `arrays`, or none.

    Args:
      model: the network, built.
      arrays: by checkpoint name; names without the prefix `model/` are not looked at.
      place: where `arrays` come from, for the error.

    Raises:
      SettingsError: a variable is missing, left over or of another shape.
    """
    targets = model_variables(model)
    stored = {name for name in arrays if name.startswith(MODEL_PREFIX)}
    problems = [f"{name} is missing" for name in sorted(targets.keys() - stored)]
    problems += [f"{name} is not in the network" for name in sorted(stored - targets.keys())]
    problems += [
        f"{name} has shape {arrays[name].shape}, the network's has {tuple(targets[name].shape)}"
        for name in sorted(stored & targets.keys())
        if arrays[name].shape != tuple(targets[name].shape)
    ]
    if problems:
        raise SettingsError(
            f"the variables do not fit network {model.name}: {'; '.join(problems)}",
            place=place,
            next_step="Use the --model_name, classes and --image_size that the checkpoint was made with",
        )
    for name, variable in targets.items():
        variable.assign(arrays[name])


def restore_model(info: CheckpointInfo, arrays: Mapping[str, np.ndarray], model_name: str | None = None) -> keras.Model:
    """Builds the network that a checkpoint was made with and gives it the checkpoint's weights and normalization.

    Args:
      info: of the checkpoint.
      arrays: of the checkpoint, by name.
      model_name: the network as the user has named it; needed for one that is no network of this package's, since it is
        Python that is imported and called.

    Returns:
      A model from images float32 [B, S, S, C] in [0, 1], not normalized, to logits float32 [B, num_classes].

    Raises:
      SettingsError: the network of that name is not the one of the checkpoint any more, or nobody has named it.
    """
    own_network.require_named(info, model_name)
    model = registry.build(**info.model, seed=0)
    assign_model(model, arrays, place=info.path)
    return with_normalization(model, restore(info.normalization, arrays))


def form_of(info: CheckpointInfo) -> Form:
    """The form of the images that the network of a checkpoint was trained with.

    Raises:
      SettingsError: there is no such reader any more.
    """
    return info.form


class Normalize(keras.layers.Layer):
    """A `Normalization` as the first layer of a network. It has no variables: its statistics are not trained."""

    def __init__(self, normalization: Normalization) -> None:
        super().__init__(name="normalize")
        self._normalization = normalization

    def call(self, images: keras.KerasTensor) -> keras.KerasTensor:
        return self._normalization(images)


def with_normalization(model: keras.Model, normalization: Normalization) -> keras.Model:
    """The same network, with the same variables, for images that are not normalized yet."""
    if normalization.kind == NO_NORMALIZATION:
        return model
    images = keras.Input(model.input_shape[1:], name="images", dtype="float32")
    return keras.Model(images, model(Normalize(normalization)(images)), name=model.name)


def all_variables(model: keras.Model, optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    """All variables that a training resumes from: the network's and the optimizer's, which include the global step."""
    return model_variables(model) | _optimizer_variables(optimizer)


def _optimizer_variables(optimizer: keras.optimizers.Optimizer) -> dict[str, keras.Variable]:
    return {OPTIMIZER_PREFIX + variable.path: variable for variable in optimizer.variables}


def assign_all(
    model: keras.Model, optimizer: keras.optimizers.Optimizer, arrays: Mapping[str, np.ndarray], place: str = ""
) -> None:
    """Sets all variables of `all_variables`; `optimizer` must have been built.

    Raises:
      SettingsError: a variable is missing, left over or of another shape.
    """
    assign_model(model, arrays, place)
    targets = _optimizer_variables(optimizer)
    missing = sorted(targets.keys() - arrays.keys())
    if missing:
        raise SettingsError(
            f"the checkpoint has no {missing[0]}", place=place, next_step="Start a new run with another --train_dir"
        )
    for name, variable in targets.items():
        variable.assign(arrays[name])
