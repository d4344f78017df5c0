"""`pipeline`: a night, from new GNT files to a promoted model or a current one that is kept."""

from __future__ import annotations

import dataclasses
import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tfos_job.commands import correction, flag_text
from tfos_job.commands.command import Command, Context
from tfos_job.commands.convert import CONVERT
from tfos_job.commands.evaluate import EVALUATE
from tfos_job.commands.export import EXPORT
from tfos_job.commands.promotion import PROMOTE
from tfos_job.commands.train import TRAIN
from tfos_job.commands.verify import VERIFY
from tfos_job.config import LENGTHS, ORIGIN, RECIPE, RECIPES, PipelineConfig
from tfos_job.config.defaults import NAMED_CHECKPOINTS
from tfos_job.config.flags import to_dict
from tfos_job.config.nearest import suggestion
from tfos_job.config.process import ProcessConfig
from tfos_job.errors import FlagError, SettingsError

if TYPE_CHECKING:
    from tfos_job.pipeline.plan import Decision
    from tfos_job.pipeline.stages import Settings

_STAGES = {
    "convert": CONVERT,
    "verify": VERIFY,
    "train": TRAIN,
    "evaluate": EVALUATE,
    "export": EXPORT,
    "gate": PROMOTE,
}
_OWN = {
    "convert": {"gnt_dir", "image_dir", "tfrecord_dir", "labels", "labels_csv", "dataset_dir", "dataset_split_name"},
    "verify": {"dataset_dir", "dataset_split_name"},
    "train": {"dataset_dir", "dataset_split_name", "train_dir", "overwrite", "dry_run", "change_settings"},
    "evaluate": {"dataset_dir", "dataset_split_name", "train_dir"},
    "export": {"train_dir", "export_dir", "checkpoint", "weights", "labels", "image_size", "keep_versions"},
    "gate": {"registry_dir", "export_dir", "predictions"},
}
"""The flags of a stage that the pipeline sets itself, or that do not go with it."""
_PLACES = {
    "convert": {"gnt_dir": "-", "dataset_dir": "-"},
    "verify": {"dataset_dir": "-"},
    "train": {"dataset_dir": "-", "train_dir": "-"},
    "evaluate": {"dataset_dir": "-", "train_dir": "-"},
    "export": {"train_dir": "-", "export_dir": "-"},
    "gate": {"registry_dir": "-", "export_dir": "-", "predictions": "-"},
}
"""Values for what a stage needs beside its section, while that is checked."""


def configure(given: Mapping[str, Any]) -> PipelineConfig:
    """The configuration; the flags of each stage are those of its command, and go together.

    Raises:
      FlagError: a flag that a stage does not have, or a value that it does not accept.
      SettingsError: flags that do not go together, or that the pipeline sets itself.
    """
    config = PipelineConfig(**given)
    if config.recipe is not None and config.recipe not in RECIPES:
        raise FlagError(
            f"there is no recipe {config.recipe!r}", place="--recipe", next_step=suggestion(config.recipe, RECIPES)
        )
    for section in _STAGES:
        _require_fitting(section, config)
    return config


def _require_fitting(section: str, config: PipelineConfig) -> None:
    values = section_values(section, getattr(config, section))
    for name in sorted(_OWN[section] & values.keys()):
        raise SettingsError(
            f"{name} is set by the pipeline", place=f"--{section} {name}", next_step="Leave it out of this section"
        )
    if section == "train":
        _require_fitting_training(config, values)
        recipe = RECIPES.get(values.get("recipe") or config.recipe or "")
        replaced = {*values, *(LENGTHS if any(name in values for name in LENGTHS) else ())}
        settings = {} if recipe is None else recipe.settings
        values = {**{name: value for name, value in settings.items() if name not in replaced}, **values}
    if section == "evaluate" and values.get("checkpoint", "last") not in NAMED_CHECKPOINTS:
        raise SettingsError(
            "a path, and each run has checkpoints of its own",
            place="--evaluate checkpoint",
            next_step=f"Give {' or '.join(NAMED_CHECKPOINTS)}",
        )
    try:
        _STAGES[section].config(**{**values, **_PLACES[section]})
    except SettingsError as error:
        place = f"--{section}: {error.place}" if error.place else f"--{section}"
        raise type(error)(error.fact, place=place, next_step=error.next_step) from error


def _require_fitting_training(config: PipelineConfig, values: Mapping[str, Any]) -> None:
    if "recipe" in values and config.recipe is not None:
        raise SettingsError("given together with --recipe", place="--train recipe", next_step="Give one of them")
    if values.get("validation_split_name") == "frozen":
        raise SettingsError(
            "the frozen set, by which the best checkpoint would be chosen",
            place="--train validation_split_name",
            next_step="Leave it out: models are judged by files that none has seen",
        )


def section_values(section: str, words: Sequence[str]) -> dict[str, Any]:
    """The flags of a section by name.

    Args:
      section: its name.
      words: `NAME=VALUE` each, or NAME of a switch.

    Raises:
      FlagError: the section's command has no such flag, or it does not accept the value.
    """
    command = _STAGES[section]
    items = {item.name: item for item in dataclasses.fields(command.config)}
    found: dict[str, Any] = {}
    for word in words:
        name, equals, text = word.partition("=")
        if name not in items:
            raise FlagError(
                f"{name} is no flag of {command.name}",
                place=f"--{section} {word}",
                next_step=suggestion(name, items) if len(name) > 1 else correction.see_help(f"tfos-job {command.name}"),
            )
        is_switch = flag_text.is_switch(items[name])
        if is_switch == bool(equals):
            fact = "takes no value" if is_switch else "its value is missing"
            raise FlagError(fact, place=f"--{section} {word}", next_step=f"Write {name}{'' if is_switch else '=VALUE'}")
        try:
            found[name] = True if is_switch else flag_text.read(items[name], text)
        except FlagError as error:
            raise FlagError(error.fact, place=f"--{section} {word}", next_step=error.next_step) from error
    return found


def settings_of(config: PipelineConfig, process: ProcessConfig) -> Settings:
    """The settings of a run, with absolute paths."""
    from tfos_job import storage
    from tfos_job.pipeline.names import PipelineLayout
    from tfos_job.pipeline.stages import Settings

    flags = {section: tuple(f"--{word}" for word in getattr(config, section)) for section in _STAGES}
    train, gate = section_values("train", config.train), section_values("gate", config.gate)
    return Settings(
        run_id=config.run_id or datetime.now(UTC).date().isoformat(),
        layout=PipelineLayout(storage.absolute(config.work_dir).rstrip("/")),
        gnt_dir=storage.absolute(config.gnt_dir).rstrip("/"),
        eval_gnt_dir=storage.absolute(config.eval_gnt_dir).rstrip("/"),
        registry_dir=storage.absolute(config.registry_dir).rstrip("/"),
        flags={**flags, "freeze": flags["convert"], "promote": flags["gate"]},
        learned=_learned(train),
        own_start=not {"checkpoint_path", "restore"}.isdisjoint(train),
        recipe=config.recipe,
        master=process.master,
        from_scratch=config.from_scratch,
        promote_older=config.promote_older,
        accept_frozen_set=gate.get("accept_frozen_set", False) or gate.get("accept_charset", False),
        accept_charset=gate.get("accept_charset", False),
        process=_process(process),
    )


def _learned(train: Mapping[str, Any]) -> tuple[str, ...]:
    """The flags of `train` that decide what is learned: of others a change is no reason to train again."""
    bonds = {item.name: item.metadata["bond"] for item in dataclasses.fields(TRAIN.config)}
    names = [name for name in train if bonds[name] in (RECIPE, ORIGIN) or name in (*LENGTHS, "recipe")]
    return tuple(f"{name}={train[name]!r}" for name in sorted(names))


def _process(process: ProcessConfig) -> tuple[str, ...]:
    """The flags of every command, for the stages."""
    items = [item for item in dataclasses.fields(process) if item.name not in ("master", "config")]
    return tuple(
        word
        for item in items
        if getattr(process, item.name) != item.default
        for word in flag_text.write(item, getattr(process, item.name))
    )


def run(config: PipelineConfig, context: Context) -> None:
    from tfos_job.pipeline import night
    from tfos_job.pipeline.stage_runner import LocalStages

    settings = settings_of(config, context.process)
    if config.dry_run:
        _tell(night.Night(settings, to_dict(config)), context)
        return
    result = night.run(settings, to_dict(config), LocalStages())
    before = "has ended before: " if result["already_ended"] else ""
    context.say(f"run {result['run_id']} {before}{in_words(result)}")
    context.emit(result)


def in_words(result: Mapping[str, Any]) -> str:
    """The end of a run: `promoted 3: why`, or `kept the old one: why`."""
    if result["decision"] == "promoted":
        return f"promoted {result['version']}: {result['reason']}"
    kept = "kept the old one" if result["version"] is not None else "promoted nothing, and there is no model"
    return f"{kept}: {result['reason']}"


def _tell(one: Any, context: Context) -> None:
    """What a run would do, as a table and as JSON."""
    decisions: list[Decision] = one.foretell()
    if not decisions:
        context.say(f"run {one.own.run_id} has ended before: {one.own.end.decision}: {one.own.end.reason}")
    for line in table(decisions):
        context.say(line)
    stages = [
        {
            "stage": decision.stage,
            "runs": decision.runs,
            "why": decision.why,
            "of_run": decision.of_run,
            "command": list(decision.command) or None,
        }
        for decision in decisions
    ]
    context.emit({"run_id": one.own.run_id, "already_ended": not decisions, "stages": stages})


def table(decisions: Sequence[Decision]) -> list[str]:
    """A line for each stage, and below one that would run its command line."""
    lines = []
    for decision in decisions:
        lines.append(f"{decision.stage:<9}{'runs' if decision.runs else 'skipped':<9}{decision.why}")
        if decision.command:
            lines.append(f"{'':<9}{shlex.join(['tfos-job', *decision.command])}")
    return lines


PIPELINE = Command(
    name="pipeline",
    config=PipelineConfig,
    run=run,
    help="from new GNT files to a promoted model, or to a current one that is kept: one night",
    when_stopped="The same command goes on; servers have the model of before or the whole new one",
    on_spark=True,
    configure=configure,
    sections={name: command.name for name, command in _STAGES.items()},
    not_yet={"keep": "It removes nothing: take this line out, and have `clean` remove old runs and staged exports"},
)
