"""The registry of networks by name, and a user's own. Imports a network, and TensorFlow, only to build it.

A network is a function `build(*, num_classes, image_size, num_channels, keep_prob, seed) -> keras.Model`. The model
takes images float32 [B, S, S, C] in [0, 1], normalised if `--normalization` is given, and returns logits float32
[B, num_classes]. Variable paths are part of the checkpoint format: name every layer. All random numbers must follow
from the seed.
"""

from __future__ import annotations

import importlib
import inspect
import traceback
from collections.abc import Callable
from typing import TYPE_CHECKING

from tfos_job.config import NETWORKS
from tfos_job.errors import SettingsError

if TYPE_CHECKING:
    import keras

_ARGUMENTS = {"num_classes", "image_size", "num_channels", "keep_prob", "seed"}


def build(
    model_name: str, *, num_classes: int, image_size: int, num_channels: int = 1, keep_prob: float, seed: int
) -> keras.Model:
    """Builds a network with fresh weights; the same arguments give the same weights.

    Args:
      model_name: a key of `config.NETWORKS`, or `package.module:function` for a user's own network.
      num_classes: width of the logits.
      image_size: S, in pixels.
      num_channels: C, 1 for grey or 3 for RGB.
      keep_prob: probability that dropout keeps a unit in training; 1: no dropout.
      seed: of initial weights and dropout.

    Raises:
      SettingsError: there is no such network, or the returned model does not fit these images and classes.
    """
    arguments = {
        "num_classes": num_classes,
        "image_size": image_size,
        "num_channels": num_channels,
        "keep_prob": keep_prob,
        "seed": seed,
    }
    if model_name in NETWORKS:
        model = _function(model_name)(**arguments)
    else:
        try:
            model = _function(model_name)(**arguments)
        except SettingsError:
            raise
        except Exception as error:  # the user's own code
            raise _refused(model_name, f"it cannot be built: {_where(error)}") from error
    expected = ((None, image_size, image_size, num_channels), (None, num_classes))
    found = getattr(model, "input_shape", None), getattr(model, "output_shape", None)
    if found != expected:
        raise _refused(model_name, f"takes {found[0]} and returns {found[1]}, expected {expected[0]} and {expected[1]}")
    paths = [variable.path for variable in model.variables]
    twice = sorted({path for path in paths if paths.count(path) > 1})
    if twice:
        raise _refused(model_name, f"two variables have the path {twice[0]}: give each layer a name of its own")
    return model


def _function(model_name: str) -> Callable[..., keras.Model]:
    name = f"tfos_job.networks.{model_name}:build" if model_name in NETWORKS else model_name
    module_name, _, function_name = name.partition(":")
    if not (module_name and function_name):
        known = ", ".join(sorted(NETWORKS))
        raise SettingsError(
            f"there is no network {model_name!r}",
            place="--model_name",
            next_step=f"Known: {known}; your own is package.module:function",
        )
    try:
        function = getattr(importlib.import_module(module_name), function_name)
        parameters = inspect.signature(function).parameters
    except Exception as error:  # any error of the user's module
        raise _refused(model_name, f"it cannot be imported: {_where(error)}") from error
    takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters.values())
    missing = sorted(_ARGUMENTS - set(parameters))
    if missing and not takes_any:
        raise _refused(model_name, f"the function does not take {', '.join(missing)}")
    found: Callable[..., keras.Model] = function
    return found


def _where(error: Exception) -> str:
    """Describes an error of the user's code, with its line."""
    frames = traceback.extract_tb(error.__traceback__)
    line = f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
    return f"{type(error).__name__}: {error}{line}"


def _refused(model_name: str, fact: str) -> SettingsError:
    return SettingsError(
        f"network {model_name}: {fact}",
        place="--model_name",
        next_step="tfos_job.networks.registry says what a network is; its module must be on PYTHONPATH",
    )
