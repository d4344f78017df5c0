"""The recipes of `train --recipe`: settings that belong together, each under a name.

docs/training.md shows them from here, and says what they have reached. A flag that is given is stronger than a recipe.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tfos_job.config.defaults import BRIGHTNESS, CONTRAST, COSINE, DEFAULT_MAX_NUMBER_OF_STEPS, EXPONENTIAL, LENGTHS
from tfos_job.config.nearest import suggestion
from tfos_job.errors import FlagError

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Recipe:
    """A recipe.

    Attributes:
      about: what it is for, in one line.
      settings: values of `train`'s flags, by name.
    """

    about: str
    settings: Mapping[str, Any]

    @property
    def flags(self) -> str:
        """The settings as they would be given on the command line."""
        return " ".join(f"--{name} {_word(value)}" for name, value in self.settings.items())


_HANZI = {
    "model_name": "hanzi_net",
    "learning_rate": 4e-3,
    "learning_rate_decay_type": COSINE,
    "label_smoothing": 0.1,
    "random_rotation": 15.0,
    "random_zoom": 0.15,
    "random_crop": 0.15,
    "random_shear": 15.0,
    "random_width_shift": 0.08,
    "random_height_shift": 0.08,
    "elastic_distortion": 0.02,
}
RECIPES = {
    "chinese_rec": Recipe(
        "network and flags of tensorflow-101's chinese_rec.py",
        {
            "model_name": "chinese_rec",
            "max_number_of_steps": DEFAULT_MAX_NUMBER_OF_STEPS,
            "batch_size": 128,
            "learning_rate": 2e-4,
            "learning_rate_decay_type": EXPONENTIAL,
            "learning_rate_decay_factor": 0.97,
            "decay_steps": 2000,
            "keep_prob": 0.8,
            "random_brightness": BRIGHTNESS,
            "random_contrast": CONTRAST,
            "eval_steps": 100,
            "save_steps": 500,
        },
    ),
    "hanzi": Recipe(
        "hanzi_net for some thousands of handwritten characters",
        {"epoch": 40, "batch_size": 64, "warmup_steps": 200, **_HANZI},
    ),
    "hwdb": Recipe(
        "hanzi_net for a million of them, such as CASIA's HWDB",
        {"epoch": 10, "batch_size": 128, "warmup_steps": 5000, **_HANZI},
    ),
}


def with_recipe(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings that are given, with those of the recipe that is among them; logs the recipe in full.

    Raises:
      FlagError: there is no such recipe.
    """
    name = given.get("recipe")
    if name is None:
        return dict(given)
    if name not in RECIPES:
        raise FlagError(f"there is no recipe {name!r}", place="--recipe", next_step=suggestion(name, RECIPES))
    log.info("Recipe %s: %s", name, RECIPES[name].flags)
    settings = RECIPES[name].settings
    replaced = {*given, *(LENGTHS if any(given.get(length) is not None for length in LENGTHS) else ())}
    changed = [key for key in settings if key in replaced and settings[key] != given.get(key)]
    if changed:
        log.info("Given otherwise than in the recipe: %s", ", ".join(f"--{key}" for key in changed))
    return {**{key: value for key, value in settings.items() if key not in replaced}, **given}


def _word(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)
