"""The preparation of a training: reads dataset and run, checks the flags against them, and decides the start.

`prepare` is for the driver, `check` for the submitting host; neither needs Spark.
"""

from __future__ import annotations

import dataclasses
import logging
from dataclasses import dataclass
from typing import Any

from tfos_job import storage
from tfos_job.config import NETWORKS, TrainConfig
from tfos_job.errors import MissingInputError
from tfos_job.host import calls
from tfos_job.layout import DatasetLayout, RunLayout
from tfos_job.protocol.topology import Topology
from tfos_job.run import checkpoints, folder, start, training_data
from tfos_job.run.checkpoint_files import CheckpointInfo
from tfos_job.run.folder import FINISHED, RunFolder
from tfos_job.run.json_values import to_json
from tfos_job.run.plan import initial_weights_of
from tfos_job.run.quantities import images_of_step
from tfos_job.run.resume import Change
from tfos_job.run.specs import RehearsalSpec
from tfos_job.run.start import Decision, Start
from tfos_job.run.training_data import TrainingData

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Preparation:
    """A training that can start.

    Attributes:
      config: its flags.
      folder: the run's, as it was found.
      data: its dataset.
      changes: settings that differ from the run's.
      is_built: it is known that the network can be built.
      start: the step, positions and checkpoint that it starts from.
    """

    config: TrainConfig
    folder: RunFolder
    data: TrainingData
    changes: list[Change]
    is_built: bool
    start: Start

    @property
    def run(self) -> RunLayout:
        return self.folder.run

    @property
    def subject(self) -> str:
        """What is trained on what, and how long, in words."""
        config, manifest, model = self.config, self.data.train.manifest, self.data.model
        passes = self.data.total_steps * config.images_per_step / manifest.num_records
        batches = images_of_step(config.replicas_of_step, config.push_every, config.batch_size)
        return (
            f"{config.model_name} on {config.dataset_dir} ({config.dataset_split_name}: {manifest.num_records:,} "
            f"records of {model.num_classes:,} classes), images {model.image_size} × {model.image_size} × "
            f"{model.num_channels}, {Topology(config.num_ps_tasks, config.num_workers)}, "
            f"{self.data.total_steps:,} steps ({passes:.3g} passes), batch {batches}, "
            f"learning rate {config.learning_rate:g} {config.learning_rate_decay_type}"
        )

    @property
    def is_finished(self) -> bool:
        """True if all steps are done and evaluated; the report may still be missing."""
        split_name = self.config.validation_split_name
        return self.start.step >= self.data.total_steps and (
            split_name is None or storage.exists(self.run.evaluation(self.start.step, split_name))
        )


def with_absolute_paths(config: TrainConfig) -> TrainConfig:
    return dataclasses.replace(
        config,
        dataset_dir=storage.absolute(config.dataset_dir),
        train_dir=storage.absolute(config.train_dir),
        checkpoint_path=storage.absolute(config.checkpoint_path) if config.checkpoint_path else None,
    )


def prepare(config: TrainConfig, *, rehearses: bool = True) -> Preparation:
    """Reads dataset and run, and decides what training starts from; changes nothing.

    Args:
      config: the run.
      rehearses: build the network once, if it is not known that it can be built.

    Raises:
      JobError: the training cannot start.
    """
    data, found, decision = _decided(config)
    if decision.may_not_build:
        _require_weights(config)
        if rehearses:
            _rehearse(config, data)
    info = _read_checkpoint(found, decision)
    begin = start.start_of(config, data, found, decision, info)
    return Preparation(
        config=config,
        folder=found,
        data=data,
        changes=decision.changes,
        is_built=rehearses or not decision.may_not_build,
        start=begin,
    )


def resumed(prepared: Preparation, checkpoint: CheckpointInfo | None, num_executors: int) -> Preparation:
    """The same training from a checkpoint of its own, with so many nodes. Pure.

    Args:
      prepared: the training, committed to its settings.
      checkpoint: the run's newest one that verifies; None if it has none.
      num_executors: nodes, of which the shards of each worker follow.
    """
    config, data = prepared.config, prepared.data
    if num_executors != config.num_executors:
        config = dataclasses.replace(config, num_executors=num_executors)
        data = training_data.training_data(config, data.charset, data.train, data.validation)
    committed = dataclasses.replace(
        prepared.folder, clear=False, checkpoints=(), committed_digest=data.train.manifest.digest
    )
    of_its_own = Decision(changes=[], restore=None, may_not_build=False)
    begin = start.start_of(config, data, committed, of_its_own, checkpoint)
    return dataclasses.replace(prepared, config=config, folder=committed, data=data, changes=[], start=begin)


def done_without_data(config: TrainConfig) -> dict[str, Any] | None:
    """The report of a finished run that a Python program has fed, so that its dataset is gone; None for any other."""
    run, dataset_dir = RunLayout(storage.absolute(config.train_dir)), storage.absolute(config.dataset_dir)
    split = DatasetLayout(dataset_dir).split(config.dataset_split_name)
    if config.overwrite or dataset_dir.rstrip("/") != run.fed_dataset or storage.exists(split.manifest):
        return None
    report = folder.read(run, overwrite=False).report
    return dict(report) if report is not None and folder.is_done(report, config) else None


def check(config: TrainConfig) -> dict[str, Any] | None:
    """Fails as `prepare` would, except for damaged checkpoints: it does not read them. Changes nothing.

    Returns:
      The run's report if it is finished already, else None.

    Raises:
      JobError: as `prepare` would.
    """
    if done := done_without_data(config):
        return done
    data, found, decision = _decided(config)
    # A user's own network may exist only on the cluster, through --py-files.
    if decision.may_not_build and config.model_name in NETWORKS:
        _require_weights(config)
        _rehearse(config, data)
    report = found.report
    is_finished = report is not None and report["state"] == FINISHED and report["step"] >= data.total_steps
    return dict(report) if report is not None and is_finished else None


def _decided(config: TrainConfig) -> tuple[TrainingData, RunFolder, Decision]:
    data = training_data.load(config)
    found = folder.read(RunLayout(config.train_dir), overwrite=config.overwrite)
    return data, found, start.decide(config, found)


def _read_checkpoint(found: RunFolder, decision: Decision) -> CheckpointInfo | None:
    if decision.restore is not None:
        return checkpoints.resolve(found.run, decision.restore)
    return checkpoints.latest(found.run) if found.has_begun else None


def _require_weights(config: TrainConfig) -> None:
    if config.checkpoint_path is not None and not storage.exists(config.checkpoint_path):
        raise MissingInputError("no weights there", place=f"--checkpoint_path {config.checkpoint_path}")


def _rehearse(config: TrainConfig, data: TrainingData) -> None:
    """Builds the network once, which takes some seconds.

    Raises:
      JobError: the error that the coordinator would raise after all nodes have started.
    """
    log.info("Building the network once, to see whether it can be")
    request = RehearsalSpec(
        model=data.model,
        trainable_scopes=config.scopes_to_train,
        initial_weights=initial_weights_of(config, data),
    )
    calls.call(
        "tfos_job.training.rehearsal",
        to_json(request),
        name="the process that builds the network",
        if_killed="If nobody killed it, it ran out of memory: give the driver more",
    )
