"""The stages of a run: what each one's outcome follows from, and its command line. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field

from tfos_job.pipeline.names import FROZEN_SPLIT, TRAIN_SPLIT, PipelineLayout
from tfos_job.pipeline.record import RunRecord

CONVERT, FREEZE, VERIFY, TRAIN, EVALUATE, EXPORT, PROMOTE = STAGES = (
    "convert",
    "freeze",
    "verify",
    "train",
    "evaluate",
    "export",
    "promote",
)
"""In their order. `freeze` is `convert` of the frozen set."""
COMMANDS = {name: name for name in STAGES} | {FREEZE: "convert"}
_ON_SPARK = (CONVERT, FREEZE, VERIFY, TRAIN)
Words = tuple[str, ...]
Known = Mapping[str, Mapping[str, str]]
"""Outputs of stages, by stage and name; a stage that is still to be done has none."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a run is to do.

    Attributes:
      run_id: its name.
      layout: of `--work_dir`.
      gnt_dir, eval_gnt_dir, registry_dir: absolute paths.
      flags: of each stage, as words of a command line. `freeze` has those of `convert`.
      learned: those of `train` that decide what is learned.
      own_start: whether those of `train` say with which weights it begins.
      recipe, master: None if they are not given.
      from_scratch, promote_older: as the flags of `pipeline`.
      accept_frozen_set, accept_charset: as those of `promote`.
      process: words for every command, such as `--log_format=json`.
    """

    run_id: str
    layout: PipelineLayout
    gnt_dir: str
    eval_gnt_dir: str
    registry_dir: str
    flags: Mapping[str, Words] = field(default_factory=dict)
    learned: Words = ()
    own_start: bool = False
    recipe: str | None = None
    master: str | None = None
    from_scratch: bool = False
    promote_older: bool = False
    accept_frozen_set: bool = False
    accept_charset: bool = False
    process: Words = ()


@dataclass(frozen=True, kw_only=True)
class Promoted:
    """The current model of the registry, why it was promoted, its checkpoint, and the digests of its data."""

    version: int
    reason: str
    checkpoint: str
    has_checkpoint: bool
    charset: str
    frozen: str


@dataclass(frozen=True, kw_only=True)
class Found:
    """What is there.

    Attributes:
      files: digests of the lists of files below `gnt_dir` and `eval_gnt_dir`, by the stage that converts them.
      datasets: digests of the splits, by that stage, as far as they are there.
      charset: digest of the dataset's classes; None if there is no dataset.
      promoted: None if no model was promoted.
    """

    files: Mapping[str, str]
    datasets: Mapping[str, str] = field(default_factory=dict)
    charset: str | None = None
    promoted: Promoted | None = None


def digest(*words: str) -> str:
    """SHA-256 (hex) of some words."""
    return hashlib.sha256(json.dumps(words).encode()).hexdigest()


# --- what the outcome of a stage follows from ------------------------------------------------------------------------


def inputs_of(stage: str, settings: Settings, found: Found, known: Known) -> dict[str, str] | None:
    """The inputs of a stage by name; None if they are not known before a stage that is still to be done."""
    flags = {"flags": digest(*settings.flags.get(stage, ()))}
    if stage == CONVERT:
        return {"files": found.files[CONVERT], **flags}
    if stage == FREEZE:
        charset = found.charset or known.get(CONVERT, {}).get("charset")
        return None if charset is None else {"files": found.files[FREEZE], "charset": charset, **flags}
    needed = _NEEDED[stage]
    if any(name not in known for name, _ in needed.values()):
        return None
    if stage == TRAIN:
        flags = {"flags": digest(settings.recipe or "", str(settings.from_scratch), *settings.learned)}
    return {name: known[of][output] for name, (of, output) in needed.items()} | flags


_NEEDED = {
    VERIFY: {"dataset": (CONVERT, "digest"), "frozen set": (FREEZE, "digest")},
    TRAIN: {"dataset": (CONVERT, "digest")},
    EVALUATE: {"checkpoint": (TRAIN, "checkpoint"), "frozen set": (FREEZE, "digest")},
    EXPORT: {"checkpoint": (EVALUATE, "checkpoint")},
    PROMOTE: {"model": (EXPORT, "digest"), "predictions": (EVALUATE, "predictions"), "frozen set": (FREEZE, "digest")},
}
"""Of each stage the inputs that are outputs of others, by their names: the stage and the output."""


# --- the command lines -----------------------------------------------------------------------------------------------


def train_dir(settings: Settings, known: Known) -> str:
    """The folder of the training: this run's, unless another one's is taken."""
    return known.get(TRAIN, {}).get("train_dir") or settings.layout.run(settings.run_id)


def command_of(stage: str, settings: Settings, found: Found, known: Known, own: RunRecord) -> Words:
    """The command line of a stage, without the program; a path that is not known yet has `…` in it."""
    flags, dataset = settings.flags.get(stage, ()), f"--dataset_dir={settings.layout.dataset.root}"
    trained = train_dir(settings, known)
    evaluation = known.get(EVALUATE, {})
    words: Words
    if stage in (CONVERT, FREEZE):
        folder, split = (settings.gnt_dir, TRAIN_SPLIT) if stage == CONVERT else (settings.eval_gnt_dir, FROZEN_SPLIT)
        words = (f"--gnt_dir={folder}", dataset, f"--dataset_split_name={split}")
        if stage == FREEZE and settings.accept_frozen_set and "--prune" not in flags:
            words += ("--prune",)  # files that are gone are gone from the new frozen set
    elif stage == VERIFY:
        words = (dataset,)
    elif stage == TRAIN:
        words = (dataset, f"--dataset_split_name={TRAIN_SPLIT}", f"--train_dir={trained}")
        words += (f"--recipe={settings.recipe}",) if settings.recipe else ()
        words += _start_of(settings, found, own) + _other_data(settings, found, known, own)
    elif stage == EVALUATE:
        words = (dataset, f"--dataset_split_name={FROZEN_SPLIT}", f"--train_dir={trained}")
    elif stage == EXPORT:
        checkpoint = evaluation.get("checkpoint", f"{trained}/checkpoints/step-…")
        staged = settings.layout.staged(settings.run_id)
        words = (f"--train_dir={trained}", f"--export_dir={staged}", f"--checkpoint={checkpoint}")
    else:
        export = known.get(EXPORT, {}).get("path") or f"{settings.layout.staged(settings.run_id)}/…"
        predictions = evaluation.get("predictions") or f"{trained}/evaluation/step-…-{FROZEN_SPLIT}.npz"
        words = (
            f"--registry_dir={settings.registry_dir}",
            f"--export_dir={export}",
            f"--predictions={predictions}",
        )
    return (COMMANDS[stage], *words, *flags, *_process(stage, settings))


def _process(stage: str, settings: Settings) -> Words:
    on_spark = stage in _ON_SPARK or any(word.startswith("--num_executors=") for word in settings.flags.get(stage, ()))
    master = (f"--master={settings.master}",) if settings.master and on_spark and stage != EXPORT else ()
    return master + settings.process


_START = "--checkpoint_path="


def _start_of(settings: Settings, found: Found, own: RunRecord) -> Words:
    """With which weights training begins: those that it has begun with, else those of the promoted model."""
    before = own.stages.get(TRAIN)
    if before is not None and before.command:
        return tuple(
            word for word in before.command if word.startswith(_START) and word not in settings.flags.get(TRAIN, ())
        )
    promoted = found.promoted
    if promoted is None or settings.from_scratch or settings.own_start or not promoted.has_checkpoint:
        return ()
    if found.charset is not None and found.charset != promoted.charset:
        return ()  # the last layer has other classes
    return (f"{_START}{promoted.checkpoint}",)


def _other_data(settings: Settings, found: Found, known: Known, own: RunRecord) -> Words:
    """What `train` needs to go on where another run has changed the dataset meanwhile."""
    before, now = own.stages.get(TRAIN), inputs_of(TRAIN, settings, found, known)
    if before is None or now is None or before.inputs.get("flags") != now["flags"]:
        return ()
    return ("--change_settings",) if before.inputs.get("dataset") not in (None, now["dataset"]) else ()
