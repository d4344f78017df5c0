"""The coordinator's assignment: a training's plan, the entries of its checkpoints, the addresses of its cluster."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tfos_job.config import TrainConfig
from tfos_job.run.plan import TrainPlan
from tfos_job.run.specs import ModelSpec, NormalizationSpec
from tfos_job.run.training_data import TrainingData


@dataclass(frozen=True, kw_only=True)
class CheckpointMeta:
    """The entries of every checkpoint of a run beside its variables, under the names of `checkpoint.json`.

    Attributes:
      model: the network.
      characters: of the classes by id: text where each is a character, else a list.
      dataset_name: of the reader of the training split.
      charset_digest: of the classes.
      dataset_digest: of the training split.
      trainable_scopes: scopes that are trained; empty for all.
      order: `TrainingData.order`.
      normalization: of the images.
    """

    model: ModelSpec
    characters: str | list[str]
    dataset_name: str
    charset_digest: str
    dataset_digest: str
    trainable_scopes: tuple[str, ...]
    order: Mapping[str, int | str]
    normalization: NormalizationSpec


@dataclass(frozen=True, kw_only=True)
class RunAssignment:
    """The part that is about the run.

    Attributes:
      train_dir: the run's folder.
      lock_token: of the driver's lock on it; without the lock nothing is published.
      plan: what to train.
      checkpoint: folder of the checkpoint to start from; None for fresh variables.
      shards: all training and validation shards where they lie, to name the file of a damaged record.
      validation_split_name: of the plan's validation shards.
      meta: of every checkpoint.
    """

    train_dir: str
    lock_token: str
    plan: TrainPlan
    checkpoint: str | None
    shards: tuple[str, ...]
    validation_split_name: str | None
    meta: CheckpointMeta


@dataclass(frozen=True, kw_only=True)
class Assignment:
    """All of it, with the cluster of one attempt.

    Attributes:
      run: the part that is about the run.
      driver: address of the driver's switchboard.
      key: of the control line, hex.
      attempt: the attempt's number.
      cluster: `host:port` of every task of `chief`, `ps` and `worker`.
      scratch: the coordinator's own folder for temporary files, which it removes if the driver is gone.
    """

    run: RunAssignment
    driver: tuple[str, int]
    key: str
    attempt: int
    cluster: Mapping[str, Sequence[str]]
    scratch: str


def assignment_of(
    config: TrainConfig, data: TrainingData, plan: TrainPlan, *, checkpoint: str | None, lock_token: str
) -> RunAssignment:
    """The assignment of a run.

    Args:
      config: its flags.
      data: its dataset.
      plan: made of both.
      checkpoint: folder of the one to start from; None for fresh variables.
      lock_token: of the driver's lock.
    """
    return RunAssignment(
        train_dir=config.train_dir,
        lock_token=lock_token,
        plan=plan,
        checkpoint=checkpoint,
        shards=data.train.paths + (data.validation.paths if data.validation else ()),
        validation_split_name=config.validation_split_name,
        meta=CheckpointMeta(
            model=data.model,
            characters=data.charset.sequence,
            dataset_name=data.reader.name,
            charset_digest=data.charset.digest,
            dataset_digest=data.train.manifest.digest,
            trainable_scopes=config.scopes_to_train,
            order=data.order,
            normalization=plan.input.normalization,
        ),
    )
