"""The registry of networks: one name, one module. Imports a network, and with it TensorFlow, only to build it.

A network's module has one function, `build(*, num_classes, image_size, num_channels, keep_prob, seed) -> keras.Model`.
The model takes images float32 [B, S, S, C] in [0, 1] and returns logits float32 [B, num_classes]. Variable paths belong
to the checkpoint format: name every layer.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

from tfos_job.errors import SettingsError

if TYPE_CHECKING:
    import keras

MODELS: dict[str, str] = {
    "chinese_rec": "tfos_job.model.chinese_rec",
}


def build(
    model_name: str, *, num_classes: int, image_size: int, num_channels: int = 1, keep_prob: float, seed: int
) -> keras.Model:
    """Builds a network with fresh weights; the same arguments give the same weights.

    Args:
      model_name: a key of `MODELS`.
      num_classes: width of the logits.
      image_size: S, in pixels.
      num_channels: C, 1 for grey or 3 for RGB.
      keep_prob: probability that dropout keeps a unit in training; 1 leaves dropout out.
      seed: of initial weights and dropout.

    Raises:
      SettingsError: there is no such network.
    """
    if model_name not in MODELS:
        raise SettingsError(
            f"there is no network {model_name!r}", place="--model_name", next_step=f"Known: {', '.join(sorted(MODELS))}"
        )
    module = importlib.import_module(MODELS[model_name])
    return module.build(
        num_classes=num_classes, image_size=image_size, num_channels=num_channels, keep_prob=keep_prob, seed=seed
    )
