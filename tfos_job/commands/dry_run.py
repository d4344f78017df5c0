"""`train --dry_run`: what `train` would do, found out without Spark, TensorFlow, a lock or a change of any file.

What `train` refuses before it starts Spark is refused here, by the same functions. `dry_run_table.py` has the words.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from tfos_job import lock_file, storage
from tfos_job.commands import dry_run_costs
from tfos_job.config import NETWORKS, TrainConfig
from tfos_job.layout import RunLayout
from tfos_job.protocol.topology import Topology, check_slots, resolve_master, topology_of
from tfos_job.run import folder
from tfos_job.run.folder import FINISHED
from tfos_job.run.preparation import Preparation, done_without_data, prepare, with_absolute_paths

BEGIN, RESUME, OVERWRITE, FINISH, NOTHING = "begin", "resume", "overwrite", "finish", "nothing"
"""What is done with the run: it is begun, gone on with, begun anew, or finished but for its report or altogether."""


def forecast(config: TrainConfig, master: str | None) -> dict[str, Any]:
    """What `train` would do with these settings, as JSON values.

    Args:
      config: the run.
      master: `--master`; None unless it is given.

    Raises:
      JobError: `train` would raise it, too.
    """
    config = with_absolute_paths(config)
    master = resolve_master(master, config.num_executors)
    topology = topology_of(config, master)
    if master is not None:
        check_slots(topology, master)
    if done := done_without_data(config):
        return _finished(config, done)
    prepared = prepare(config, rehearses=False)
    num_parameters = _num_parameters(prepared)
    steps = max(0, prepared.data.total_steps - prepared.start.step)
    return {
        "dry_run": True,
        **_start(prepared),
        "dataset": _dataset(prepared),
        "network": {**dataclasses.asdict(prepared.data.model), "num_parameters": num_parameters},
        "length": {
            "steps": steps,
            "batch_size": config.batch_size,
            "push_every": config.push_every,
            "replicas": config.replicas_of_step,
            "images": steps * config.images_per_step,
            "passes": round(steps * config.images_per_step / prepared.data.train.manifest.num_records, 4),
        },
        "nodes": _nodes(prepared, topology, master),
        "memory_mib": dry_run_costs.memory_mib(prepared, topology, master),
        "disk_bytes": dry_run_costs.disk_bytes(prepared, num_parameters),
        "wire": dry_run_costs.wire(prepared, num_parameters),
        "time": dry_run_costs.time(prepared, steps),
        "locked_by": lock_file.held_by(prepared.run.lock),
        "unchecked": [] if prepared.is_built else ["whether the network can be built, which needs TensorFlow"],
    }


def _finished(config: TrainConfig, report: Mapping[str, Any]) -> dict[str, Any]:
    """Of a finished run whose dataset is gone: what its report says of it, and nothing of a dataset or of nodes."""
    gone = ("dataset", "nodes", "memory_mib", "disk_bytes", "wire", "time")
    return {
        "dry_run": True,
        "action": NOTHING,
        "train_dir": config.train_dir,
        "step": report["step"],
        "total_steps": report["total_steps"],
        "checkpoint": report["checkpoint"],
        "initial_weights": None,
        "removes": [],
        "changes": [],
        "network": {**report["model"], "num_parameters": report.get("num_parameters")},
        "length": {
            "steps": 0,
            "batch_size": config.batch_size,
            "push_every": config.push_every,
            "replicas": config.replicas_of_step,
            "images": 0,
            "passes": 0.0,
        },
        **dict.fromkeys(gone),
        "locked_by": lock_file.held_by(RunLayout(config.train_dir).lock),
        "unchecked": [],
    }


def _start(prepared: Preparation) -> dict[str, Any]:
    action, start = _action(prepared), prepared.start
    is_cleared = action == OVERWRITE
    return {
        "action": action,
        "train_dir": prepared.run.root,
        "step": start.step,
        "total_steps": prepared.data.total_steps,
        "checkpoint": start.checkpoint.path if start.checkpoint else None,
        "initial_weights": None if start.checkpoint else prepared.config.checkpoint_path,
        "removes": [path for path in folder.made_by(prepared.run) if storage.exists(path)] if is_cleared else [],
        "changes": [dataclasses.asdict(change) for change in prepared.changes],
    }


def _action(prepared: Preparation) -> str:
    if prepared.is_finished:
        report = prepared.folder.report
        return NOTHING if report is not None and report["state"] == FINISHED else FINISH
    if prepared.folder.clear and any(storage.exists(path) for path in folder.made_by(prepared.run)):
        return OVERWRITE
    return RESUME if prepared.folder.has_begun else BEGIN


def _dataset(prepared: Preparation) -> dict[str, Any]:
    config, data = prepared.config, prepared.data
    manifest, validation = data.train.manifest, data.validation
    return {
        "dataset_dir": config.dataset_dir,
        "split_name": config.dataset_split_name,
        "num_records": manifest.num_records,
        "num_classes": manifest.num_classes,
        "num_empty_classes": manifest.num_empty_classes,
        "validation_split_name": config.validation_split_name,
        "num_validation_records": validation.manifest.num_records if validation else None,
    }


def _num_parameters(prepared: Preparation) -> int | None:
    """The network's parameters: as the run's report has counted them, else computed; None for one of the user's own."""
    report, model = prepared.folder.report or {}, dataclasses.asdict(prepared.data.model)
    if report.get("model") == model and "num_parameters" in report:
        return int(report["num_parameters"])
    return dry_run_costs.network(prepared).num_parameters if prepared.config.model_name in NETWORKS else None


def _nodes(prepared: Preparation, topology: Topology, master: str | None) -> dict[str, Any]:
    return {
        "master": master,
        "num_workers": topology.num_workers,
        "num_ps_tasks": topology.num_ps_tasks,
        "num_ps_tasks_on_driver_host": topology.num_driver_ps_tasks,
        "num_executors": topology.num_spark_executors,
        "num_gpus": prepared.config.num_gpus,
        "input_mode": prepared.data.input_mode,
        "records_per_worker": list(prepared.data.part_sizes),
    }
