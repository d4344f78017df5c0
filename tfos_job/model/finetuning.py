"""Training that begins with somebody else's weights, and of which only a part may be trained: TF-Slim's flags.

A scope is the beginning of the name of a layer, and of its variables' paths: `fc` is `fc1/kernel`, `fc1/bias`,
`fc2/kernel` … Several are separated by commas.
"""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import keras

from tfos_job import storage
from tfos_job.errors import BadDataError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.model import checkpoints
from tfos_job.model.variables import MODEL_PREFIX

KERAS_SUFFIXES = (".h5", ".keras")
BACKBONE = "backbone"
"""The layer that a file of Keras's own weights is for, in networks that have one; else it is for all of the network."""

_RANDOM_STATE = "seed_generator_state"  # in a path, by Keras: it belongs to a run, not to what was learnt

_log = logging.getLogger(__name__)


def train_only(model: keras.Model, scopes: Sequence[str]) -> None:
    """Leaves all variables as they are but those in `scopes`; none named trains all.

    A batch normalisation that is not trained uses its moving statistics, as at prediction, and does not change them.

    Raises:
      SettingsError: nothing bears the name of a scope.
    """
    if not scopes:
        return
    layers = list(_leaves(model))
    for scope in scopes:
        if not any(layer.name.startswith(scope) and layer.trainable_variables for layer in layers):
            names = ", ".join(layer.name for layer in layers if layer.trainable_variables)
            raise SettingsError(
                f"no layer of {model.name} begins with {scope!r}",
                place="--trainable_scopes",
                next_step=f"It has {names}",
            )
    for layer in layers:
        layer.trainable = layer.name.startswith(tuple(scopes))


def _leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    for layer in model.layers:
        yield from _leaves(layer) if isinstance(layer, keras.Model) else (layer,)


def load_weights(model: keras.Model, path: str, exclude_scopes: Sequence[str] = ()) -> None:
    """Gives a network the weights of another training of it, or those of a file that Keras has written.

    What the checkpoint has beyond the network is passed over, and so are states of random numbers.

    Args:
      model: the network, built.
      path: a checkpoint's folder, a run's (its last checkpoint), or a file of Keras's (`.weights.h5`, and `.h5` as
        `keras.applications` hands them out: for a network's `backbone` where it has one).
      exclude_scopes: of what keeps its fresh weights.

    Raises:
      MissingInputError: nothing there.
      BadDataError: a damaged checkpoint or file.
      SettingsError: a variable is missing there or has another shape, and is not excluded.
    """
    if path.endswith(KERAS_SUFFIXES):
        _load_keras_file(model, path, exclude_scopes)
        return
    run = RunLayout(path)
    info = checkpoints.resolve(run, "last" if storage.is_dir(run.checkpoints_dir) else path)
    arrays = checkpoints.load(info)
    targets = {
        MODEL_PREFIX + v.path: v
        for v in model.variables
        if not v.path.startswith(tuple(exclude_scopes)) and _RANDOM_STATE not in v.path
    }
    problems = [f"{name} is not there" for name in sorted(targets.keys() - arrays.keys())]
    problems += [
        f"{name} has shape {arrays[name].shape}, the network's has {tuple(variable.shape)}"
        for name, variable in sorted(targets.items())
        if name in arrays and arrays[name].shape != tuple(variable.shape)
    ]
    if problems:
        raise SettingsError(
            f"it does not fit {model.name}: {'; '.join(problems[:5])}",
            place=info.path,
            next_step="Name what is to keep fresh weights in --checkpoint_exclude_scopes",
        )
    for name, variable in targets.items():
        variable.assign(arrays[name])
    _log.info("%d of %d variables from %s", len(targets), len(model.variables), info.path)


def _load_keras_file(model: keras.Model, path: str, exclude_scopes: Sequence[str]) -> None:
    has_backbone = any(layer.name == BACKBONE for layer in model.layers)
    target = model.get_layer(BACKBONE) if has_backbone else model
    kept = {v.path: v.numpy() for v in target.variables if exclude_scopes and v.path.startswith(tuple(exclude_scopes))}
    with tempfile.TemporaryDirectory(prefix="tfos_job-weights-") as folder:
        local = Path(folder) / path.rpartition("/")[2]
        local.write_bytes(storage.read_bytes(path))
        try:
            target.load_weights(str(local))
        except (ValueError, OSError, KeyError) as error:
            raise BadDataError(
                f"not weights of {target.name}: {error}",
                place=path,
                next_step="Give a file that Keras has written for this network",
            ) from error
    for variable in target.variables:
        if variable.path in kept:
            variable.assign(kept[variable.path])
