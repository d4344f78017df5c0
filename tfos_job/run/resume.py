"""The settings of a run that is resumed: its own, and others only if they are asked for.

The `Bond` of each flag of `train` says how an existing run treats it. A flag that the command line leaves out has the
run's value. Another recipe than the run's fails, with the old and the new value, unless `--change_settings` is given.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.config import EXTENT, FLOAT32, LENGTHS, ORIGIN, RECIPE, RECIPES, Bond, TrainConfig, from_dict
from tfos_job.config.flags import own_first
from tfos_job.errors import BadDataError, MissingInputError, SettingsError
from tfos_job.layout import RunLayout
from tfos_job.run import checkpoints

# The run's variables depend on these, so they cannot change.
_IN_VARIABLES = {
    "model_name",
    "image_size",
    "normalization",
    "rescale_min",
    "rescale_max",
    "whitening_epsilon",
    "trainable_scopes",
}
# The number of batches in a step of all-reduce follows from these.
_REPLICAS = ("num_executors", "num_ps_tasks", "num_gpus")


@dataclass(frozen=True)
class Change:
    """A setting that differs between a run and the command."""

    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.name} {_word(self.old)} → {_word(self.new)}"


def settings(given: Mapping[str, Any]) -> TrainConfig:
    """The settings of a command: the flags that are given, else those of the run in `train_dir`, else the defaults.

    Args:
      given: values by flag; `train_dir` is among them.

    Raises:
      MissingInputError: no `dataset_dir`, and no run that has one.
      SettingsError: values that do not go together.
      StorageError: the run's settings could not be read.
    """
    run = RunLayout(given["train_dir"])
    stored = None if given.get("overwrite") else read(run)
    if stored is None and "dataset_dir" not in given:
        raise MissingInputError(
            "a new run needs a dataset"
            if given.get("overwrite")
            else "no run there to go on with: it has no config.json",
            place=run.root,
            next_step="Give --dataset_dir to begin one, or check --train_dir",
        )
    return TrainConfig(
        **(inherited(stored, given, has_begun=bool(checkpoints.candidates(run))) if stored else {}), **given
    )


def inherited(stored: TrainConfig, given: Mapping[str, Any], *, has_begun: bool) -> dict[str, Any]:
    """The settings that a command takes from its run, by name; none of them is `given`."""
    replaced = {*given, *(LENGTHS if any(name in given for name in LENGTHS) else ())}
    names = _names(RECIPE, EXTENT) if has_begun else _names(RECIPE, EXTENT, ORIGIN)
    return {name: getattr(stored, name) for name in names if name not in replaced}


def changes(stored: TrainConfig, config: TrainConfig, *bonds: Bond) -> list[Change]:
    """The settings of these bonds that differ in `config`."""
    pairs = {name: (getattr(stored, name), getattr(config, name)) for name in _names(*bonds)}
    if RECIPE in bonds and stored.replicas_of_step != config.replicas_of_step:
        # Not of the recipe by themselves: as many images are in a step of one worker, or of several of all-reduce.
        pairs |= {name: (getattr(stored, name), getattr(config, name)) for name in _REPLICAS}
    if "image_size" in pairs:  # compared as resolved: it may be given, or follow from the network
        pairs["image_size"] = stored.side, config.side
    return [Change(name, old, new) for name, (old, new) in pairs.items() if old != new]


def require_same_recipe(run: RunLayout, stored: TrainConfig, config: TrainConfig) -> list[Change]:
    """The changes of the recipe, which need `--change_settings`.

    Raises:
      SettingsError: there are some without it.
    """
    found = changes(stored, config, RECIPE)
    if found and not config.change_settings:
        of_recipe = RECIPES[config.recipe].settings if config.recipe in RECIPES else {}
        flags = dict.fromkeys("recipe" if of_recipe.get(c.name) == c.new else c.name for c in found)
        raise SettingsError(
            f"the run was made with another recipe: {listed(found)}",
            place=run.root,
            next_step=f"Leave out {', '.join(f'--{name}' for name in flags)} to go on with the run's own, "
            "or give another --train_dir"
            + ("" if _IN_VARIABLES & {c.name for c in found} else ", or --change_settings to go on with the new one"),
        )
    return found


def listed(found: Sequence[Change]) -> str:
    return ", ".join(map(str, found))


def with_origin(config: TrainConfig, stored: TrainConfig | None) -> TrainConfig:
    """`config` with the origin of its run, which has begun: a command cannot change that."""
    if stored is None:
        return config
    return dataclasses.replace(config, **{name: getattr(stored, name) for name in _names(ORIGIN)})


def read(run: RunLayout) -> TrainConfig | None:
    """The run's settings; None without any.

    Raises:
      BadDataError: they are damaged.
      SettingsError: they are of another version, which knows other settings.
    """
    try:
        values = storage.read_json(run.config)
    except MissingInputError:
        return None
    except ValueError as error:
        raise BadDataError(f"not JSON: {error}", place=run.config, next_step="Restore it, or --overwrite") from error
    try:
        # What was the only way when there was no such flag is not the default any more.
        return from_dict(TrainConfig, {"wire_dtype": FLOAT32, **values})
    except (SettingsError, TypeError) as error:
        raise SettingsError(
            f"not the settings of a run that this version can go on with: {error}",
            place=run.config,
            next_step="Go on with the version that made it, or begin another --train_dir",
        ) from error


def _names(*bonds: Bond) -> list[str]:
    return [field.name for field in own_first(TrainConfig) if field.metadata["bond"] in bonds]


def _word(value: Any) -> str:
    return "none" if value is None or value == "" else f"{value:g}" if isinstance(value, float) else str(value)
