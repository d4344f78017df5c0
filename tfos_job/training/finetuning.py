"""Fine-tuning with TF-Slim's flags: weights of another training, and layers that stay as they are.

A scope is the beginning of the names of layers: `fc` is `fc1` and `fc2`, `mixed1` is not `mixed10`, since no number is
cut in two. Several are separated by commas.
"""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from tfos_job import storage
from tfos_job.config.defaults import KERAS_SUFFIXES
from tfos_job.errors import BadDataError, JobError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.networks.keras_file import require_own_numbers
from tfos_job.networks.variables import MODEL_PREFIX
from tfos_job.run import checkpoints
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.network_variables import RANDOM_STATE
from tfos_job.run.specs import InitialWeights, described_normalization, in_scopes

BACKBONE = "backbone"
"""The layer that a file of Keras's own weights is for, in networks that have one; else it is for all of the network."""
_NUM_NAMED = 5  # problems that an error names

_log = logging.getLogger(__name__)


def train_only(model: keras.Model, scopes: Sequence[str]) -> None:
    """Trains the variables in `scopes` alone; without scopes all of them.

    A batch normalisation that is not trained uses its moving statistics, as at prediction, and does not change them.

    Raises:
      SettingsError: no layer with something to train is in a scope.
    """
    if not scopes:
        return
    layers = list(leaves(model))
    _require_known(scopes, [layer.name for layer in layers if layer.trainable_variables], model, "trainable_scopes")
    for layer in layers:
        layer.trainable = in_scopes(layer.name, scopes)


def load_weights(model: keras.Model, weights: InitialWeights) -> None:
    """Gives a network the weights of another training of it, or those of a file that Keras has written.

    Variables that the network does not have are ignored, and so are states of random numbers.

    Args:
      model: the network, built.
      weights: their `path` is that of a checkpoint's folder, a run's (its last checkpoint), or a file of Keras's
        (`.weights.h5`, and `.h5` as `keras.applications` hands them out: for a network's `backbone` if it has one).

    Raises:
      MissingInputError: nothing there.
      BadDataError: a damaged checkpoint or file.
      SettingsError: a variable is missing there or has another shape, the images were normalized in another way or the
        classes were others, and what that is about is not excluded; or a scope names nothing.
    """
    path, exclude_scopes = weights.path, weights.exclude_scopes
    layers = list(leaves(model))
    _require_known(exclude_scopes, [x.name for x in layers if x.variables], model, "checkpoint_exclude_scopes")
    if path.endswith(KERAS_SUFFIXES):
        _load_keras_file(model, path, exclude_scopes)
        return
    run = RunLayout(path)
    info, arrays = checkpoints.read(run, "last" if storage.is_dir(run.checkpoints_dir) else path)
    _require_same_meaning(model, info, weights)
    _assign(model, info, arrays, exclude_scopes)


def _assign(
    model: keras.Model, info: CheckpointInfo, arrays: Mapping[str, np.ndarray], exclude_scopes: Sequence[str]
) -> None:
    targets = {
        MODEL_PREFIX + variable.path: variable
        for layer in leaves(model)
        if not in_scopes(layer.name, exclude_scopes)
        for variable in layer.variables
        if RANDOM_STATE not in variable.path
    }
    problems = [f"{name} is not there" for name in sorted(targets.keys() - arrays.keys())]
    problems += [
        f"{name} has shape {arrays[name].shape}, the network's has {tuple(variable.shape)}"
        for name, variable in sorted(targets.items())
        if name in arrays and arrays[name].shape != tuple(variable.shape)
    ]
    if problems:
        raise _unfit(model, info.path, "; ".join(problems[:_NUM_NAMED]))
    for name, variable in targets.items():
        variable.assign(arrays[name])
    _log.info("%d of %d variables from %s", len(targets), len(model.variables), info.path)


def _require_same_meaning(model: keras.Model, info: CheckpointInfo, weights: InitialWeights) -> None:
    """Fails for weights of fitting shapes that are for other images, or for other classes."""
    theirs = described_normalization(info.normalization)
    if theirs.meaning != weights.normalization:
        raise SettingsError(
            f"was trained with --normalization {theirs.meaning}, this training has {weights.normalization}",
            place=info.path,
            next_step=f"Give --normalization {theirs.kind}{' and its limits' if theirs.limits else ''}",
        )
    last = model.layers[-1].name
    if weights.charset_digest != info.charset_digest and not in_scopes(last, weights.exclude_scopes):
        raise _unfit(model, info.path, f"layer {last} is for other classes")


def _unfit(model: keras.Model, place: str, fact: str) -> SettingsError:
    return SettingsError(
        f"it does not fit {model.name}: {fact}",
        place=place,
        next_step="Name the layers that are to keep fresh weights in --checkpoint_exclude_scopes",
    )


def _load_keras_file(model: keras.Model, path: str, exclude_scopes: Sequence[str]) -> None:
    has_backbone = any(layer.name == BACKBONE for layer in model.layers)
    target = model.get_layer(BACKBONE) if has_backbone else model
    before = {variable.path: variable.numpy() for variable in target.variables}
    data = storage.read_bytes(path)
    with tempfile.TemporaryDirectory(prefix="tfos_job-weights-") as folder, warnings.catch_warnings():
        local = Path(folder) / path.rpartition("/")[2]
        local.write_bytes(data)
        # Layers that do not fit are skipped with a warning, as excluded ones may not fit; others are checked below.
        warnings.simplefilter("ignore")
        try:
            require_own_numbers(str(local), path)
            target.load_weights(str(local), skip_mismatch=True)
        except JobError:
            raise
        except Exception as error:  # whatever h5py, zipfile and Keras make of other files
            raise BadDataError(
                f"not weights of {target.name}: {error}",
                place=path,
                next_step="Give a file that Keras has written for this network",
            ) from error
    missing = []
    for layer in leaves(target):
        is_excluded = in_scopes(layer.name, exclude_scopes)
        for variable in layer.variables:
            if is_excluded:
                variable.assign(before[variable.path])
            elif variable.name == "kernel" and np.array_equal(variable.numpy(), before[variable.path]):
                missing.append(layer.name)  # a fresh kernel is random
    if missing:
        raise _unfit(target, path, f"it has no weights for {', '.join(missing[:_NUM_NAMED])}")


def leaves(model: keras.Model) -> Iterator[keras.layers.Layer]:
    """The layers of a network and of the networks that are layers of it."""
    for layer in model.layers:
        yield from leaves(layer) if isinstance(layer, keras.Model) else (layer,)


def _require_known(scopes: Sequence[str], names: Sequence[str], model: keras.Model, flag: str) -> None:
    for scope in scopes:
        if not any(in_scopes(name, [scope]) for name in names):
            raise SettingsError(
                f"no layer of {model.name} begins with {scope!r}",
                place=f"--{flag}",
                next_step=f"Names begin with {', '.join(dict.fromkeys(name.partition('_')[0] for name in names))}",
            )
