"""The start of a run: its step and input position, or the reason why it cannot start. Pure.

`decide` needs no checkpoint to be read, so the submitting host calls it as well; `start_of` takes the checkpoint that
the decision names.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tfos_job.config import EXTENT, NETWORKS, ORIGIN, RECIPE, TrainConfig
from tfos_job.errors import SettingsError, exit_code_class
from tfos_job.run import checkpoints, resume
from tfos_job.run.attempts import attempts_of
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.folder import FAILED, RunFolder
from tfos_job.run.resume import Change
from tfos_job.run.specs import described_normalization, normalization_of
from tfos_job.run.training_data import TrainingData

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The use that a command makes of a run's folder.

    Attributes:
      changes: settings that differ from the run's.
      restore: the checkpoint from elsewhere to begin with; None for the run's own newest one, or for fresh variables if
        it has none.
      may_not_build: building the network may fail: it is new to this run and not a plain registered one.
    """

    changes: list[Change]
    restore: str | None
    may_not_build: bool


@dataclass(frozen=True, kw_only=True)
class Start:
    """The start of a training.

    Attributes:
      checkpoint: the one it begins with; None for fresh variables.
      step: the global step.
      positions: records of its stream that each worker has consumed.
      records: numbers of records `seen_twice` and `skipped` in the current epoch because their order has changed; None
        if the dataset has changed.
    """

    checkpoint: CheckpointInfo | None
    step: int
    positions: tuple[int, ...]
    records: dict[str, int] | None


def decide(config: TrainConfig, folder: RunFolder) -> Decision:
    """Decides how to use the run in the folder, if there is one.

    Raises:
      JobError: the flags do not fit the run, or it has failed for good.
    """
    _refuse_repetition(folder)
    changes = _changes(config, folder)
    _refuse_to_clear_weights(config, folder)
    is_plain = config.model_name in NETWORKS and config.checkpoint_path is None and not config.scopes_to_train
    return Decision(
        changes=changes,
        restore=_restore(config, folder),
        may_not_build=not folder.has_begun and not is_plain,
    )


def start_of(
    config: TrainConfig, data: TrainingData, folder: RunFolder, decision: Decision, info: CheckpointInfo | None
) -> Start:
    """The step, positions and checkpoint that training starts from.

    Args:
      config: the flags.
      data: the dataset.
      folder: the run's.
      decision: by `decide`, about the same run.
      info: the checkpoint that `decision` names; None if the run has none that verifies.

    Raises:
      BadDataError: the run has checkpoints, and none verifies.
      SettingsError: flags or dataset do not fit the checkpoint.
    """
    if info is None:
        if folder.has_begun:
            raise checkpoints.none_verifies(folder.run, len(folder.checkpoints))
        return Start(checkpoint=None, step=0, positions=(0,) * config.num_workers, records=_records(0, 0))
    if decision.restore is not None and info.step >= data.total_steps:
        raise SettingsError(
            f"the checkpoint is of step {info.step}, and the run ends at step {data.total_steps}",
            place=f"--restore {decision.restore}",
            next_step="Give more --max_number_of_steps or --epoch: steps are counted from the checkpoint's own",
        )
    _require_same_identity(config, data, info, folder if decision.restore is None else None)
    positions, records = _positions(data, info)
    return Start(checkpoint=info, step=info.step, positions=positions, records=records)


# --- checks without a checkpoint ------------------------------------------------------------------------------------


def _refuse_repetition(folder: RunFolder) -> None:
    """Fails if the attempt before failed for good: YARN starts a second attempt after any failure.

    So it does if its driver has begun again itself, and given up; not if that has lost Spark, with its container.

    Raises:
      JobError: that of the attempt before.
    """
    if folder.report is None or not folder.is_next_attempt or folder.report["state"] != FAILED:
        return
    kind = exit_code_class(folder.report["exit_code"])
    gave_up = any(attempt.get("gave_up") for attempt in attempts_of(folder.report)[-1:])
    if not kind.retryable or gave_up:
        log.warning("The attempt before has failed for good: not run again")
        cause = folder.report["first_cause"]
        raise kind(cause["fact"], place=cause["place"], next_step=cause["next_step"])


def _changes(config: TrainConfig, folder: RunFolder) -> list[Change]:
    """Settings of the command that differ from the run's.

    Raises:
      SettingsError: without --change_settings, if the recipe differs from that of steps already done, or that is
        unknown.
    """
    stored = folder.settings
    if stored is None:
        if folder.has_begun and not config.change_settings:
            raise SettingsError(
                "the run has checkpoints, and its settings are gone",
                place=folder.run.config,
                next_step="Restore the file (attempts/ has the settings of each attempt), or give all settings and "
                "--change_settings",
            )
        return []
    if folder.has_begun:
        resume.require_same_recipe(folder.run, stored, config)
        for change in resume.changes(stored, config, ORIGIN):
            if change.new != TrainConfig.__dataclass_fields__[change.name].default:
                log.warning("--%s %s is ignored: the run has begun", change.name, change.new)
    return resume.changes(stored, config, RECIPE, EXTENT)


def _refuse_to_clear_weights(config: TrainConfig, folder: RunFolder) -> None:
    if folder.clear and f"{config.checkpoint_path}/".startswith(f"{config.train_dir.rstrip('/')}/"):
        raise SettingsError(
            f"{config.checkpoint_path} is in the folder that --overwrite clears",
            place="--checkpoint_path",
            next_step="Give another --train_dir, or leave out --overwrite",
        )


def _restore(config: TrainConfig, folder: RunFolder) -> str | None:
    """`Decision.restore`.

    Raises:
      SettingsError: --restore is given, and the run has checkpoints already.
    """
    if config.restore == "auto":
        return None
    if not folder.has_begun:
        return None if config.restore == "none" else config.restore
    # The same command again resumes the run that it began.
    is_repeated = config.restore != "none" and folder.settings is not None and folder.settings.restore == config.restore
    if folder.is_next_attempt or is_repeated:
        return None
    leave_out = ", or leave out --restore to resume" if config.restore == "none" else ""
    raise SettingsError(
        f"{folder.run.root} has checkpoints already",
        place=f"--restore {config.restore}",
        next_step=f"Give another --train_dir, or --overwrite{leave_out}",
    )


# --- the checkpoint ---------------------------------------------------------------------------------------------------


def _require_same_identity(
    config: TrainConfig, data: TrainingData, info: CheckpointInfo, folder: RunFolder | None
) -> None:
    """Fails if the checkpoint has another charset or network or, of the run itself, another dataset.

    `folder` is None for a checkpoint from elsewhere. With --change_settings a run may have been committed to another
    dataset or dropout since its last checkpoint.
    """
    digest = data.train.manifest.digest
    found = described_normalization(info.normalization)
    pairs = [
        ("charset", info.charset_digest[:12], data.charset.digest[:12]),
        ("normalization", str(found), str(normalization_of(config))),
        ("network", *(_describe(model, with_dropout=folder is None) for model in (info.model, asdict(data.model)))),
        ("trainable scopes", _listed(info.trainable_scopes), _listed(config.scopes_to_train)),
    ]
    if folder is not None and not config.change_settings and folder.committed_digest != digest:
        pairs.append(("dataset", info.dataset_digest[:12], digest[:12]))
    for name, old, new in pairs:
        if old != new:
            raise SettingsError(
                f"made with {name} {old}, asked to go on with {name} {new}",
                place=info.path,
                next_step="Give another --train_dir, or the settings and the dataset of this run",
            )


def _describe(model: Mapping[str, Any], *, with_dropout: bool) -> str:
    shape = " × ".join(str(model[name]) for name in ("image_size", "image_size", "num_channels"))
    text = f"{model['model_name']} of {model['num_classes']} classes, images {shape}"
    return f"{text}, keep_prob {model['keep_prob']}" if with_dropout else text


def _listed(scopes: Sequence[str]) -> str:
    return ", ".join(scopes) or "all"


def _positions(data: TrainingData, info: CheckpointInfo) -> tuple[tuple[int, ...], dict[str, int] | None]:
    """The position of each worker's stream, and `Start.records`.

    If the order or the division of the shards has changed, training resumes at the start of the current epoch: the
    epoch of all records that the workers have read together.
    """
    read = tuple(info.input_position.get("records_read", ()))
    is_same_data = info.dataset_digest == data.train.manifest.digest
    if is_same_data and info.input_position.get("order") == data.order:
        return read, _records(0, 0)
    epoch = sum(read) // data.train.manifest.num_records
    records = None
    if is_same_data and read:
        # Workers are asynchronous, so they may be in different epochs.
        ahead = [n - epoch * part for n, part in zip(read, data.train.part_sizes(len(read)), strict=True)]
        records = _records(sum(n for n in ahead if n > 0), -sum(n for n in ahead if n < 0))
    log.warning(
        "Other workers, seed, input mode, buffer, cache or data than at step %d: epoch %d begins again; %s",
        info.step,
        epoch,
        "{seen_twice} records are seen twice, {skipped} skipped".format(**records) if records else "other records",
    )
    return tuple(epoch * part for part in data.part_sizes), records


def _records(seen_twice: int, skipped: int) -> dict[str, int]:
    """`Start.records`."""
    return {"seen_twice": seen_twice, "skipped": skipped}
