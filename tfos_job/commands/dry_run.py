"""`train --dry_run`: what `train` would do, found out without Spark, TensorFlow, a lock or a change of any file.

What `train` refuses before it starts Spark is refused here, by the same functions. `dry_run_table.py` has the words.
"""

from __future__ import annotations

import dataclasses
from typing import Any

from tfos_job import lease, storage
from tfos_job.commands import training_memory
from tfos_job.commands.command import Work
from tfos_job.commands.container_memory import Network
from tfos_job.config import NETWORKS, PCA, ZCA, TrainConfig
from tfos_job.host import container
from tfos_job.protocol.topology import Topology, check_slots, local_master, topology_of
from tfos_job.run import checkpoints, folder
from tfos_job.run.folder import FINISHED
from tfos_job.run.preparation import Preparation, prepare, with_absolute_paths
from tfos_job.run.worker_inputs import worker_inputs

BEGIN, RESUME, OVERWRITE, FINISH, NOTHING = "begin", "resume", "overwrite", "finish", "nothing"
"""What is done with the run: it is begun, gone on with, begun anew, or finished but for its report or altogether."""
_COPIES_IN_CHECKPOINT = 3  # the weights, and Adam's two slots for each
_VALUE_BYTES = 4


def forecast(config: TrainConfig, master: str | None) -> dict[str, Any]:
    """What `train` would do with these settings, as JSON values.

    Args:
      config: the run.
      master: `--master`; None unless it is given.

    Raises:
      JobError: `train` would raise it, too.
    """
    config = with_absolute_paths(config)
    if master is None and not container.under_spark_submit():
        master = local_master(config.num_executors)
    topology = topology_of(config, master)
    if master is not None:
        check_slots(topology, master)
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
            "images": steps * config.batch_size,
            "passes": round(steps * config.batch_size / prepared.data.train.manifest.num_records, 4),
        },
        "nodes": _nodes(prepared, topology, master),
        "memory_mib": _memory(prepared, topology),
        "disk_bytes": _disk(prepared, num_parameters),
        "time": _time(prepared, steps),
        "locked_by": lease.held_by(prepared.run.lock),
        "unchecked": [] if prepared.is_built else ["whether the network can be built, which needs TensorFlow"],
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
        "num_empty_classes": sum(not count for count in manifest.class_counts),
        "validation_split_name": config.validation_split_name,
        "num_validation_records": validation.manifest.num_records if validation else None,
    }


def _num_parameters(prepared: Preparation) -> int | None:
    """The network's parameters: as the run's report has counted them, else computed; None for one of the user's own."""
    report, model = prepared.folder.report or {}, dataclasses.asdict(prepared.data.model)
    if report.get("model") == model and "num_parameters" in report:
        return int(report["num_parameters"])
    return _network(prepared).num_parameters if prepared.config.model_name in NETWORKS else None


def _network(prepared: Preparation) -> Network:
    model = prepared.data.model
    return Network(
        model_name=model.model_name,
        image_size=model.image_size,
        num_channels=model.num_channels,
        num_classes=model.num_classes,
    )


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


def _memory(prepared: Preparation, topology: Topology) -> dict[str, int]:
    """MiB of a container with one of each role, and of all of them together."""
    data = prepared.data
    work = Work(
        network=_network(prepared),
        worker_records=max(data.part_sizes),
        record_bytes=data.train.manifest.record_bytes,
    )
    roles = training_memory.roles(prepared.config, work, topology)
    counts = {
        training_memory.WORKER: topology.num_workers,
        training_memory.PARAMETER_SERVER: topology.num_executor_ps_tasks,
    }
    total = sum(memory.total * counts.get(role, 1) for role, memory in roles.items())
    return {role: memory.total for role, memory in roles.items()} | {"total": total}


def _disk(prepared: Preparation, num_parameters: int | None) -> dict[str, int | None]:
    config, data = prepared.config, prepared.data
    kept = checkpoints.KEEP_LAST + (1 if data.validation else 0)
    size = _checkpoint_bytes(prepared, num_parameters)
    caches = [
        min(sum(copy.size_bytes for copy in plan.shards), plan.cache_bytes or (1 << 63))
        + sum(copy.size_bytes for copy in plan.pinned)
        for worker in worker_inputs(config, data, prepared.start.positions)
        if (plan := worker.cache_plan) is not None
    ]
    return {
        "checkpoint": size,
        "num_checkpoints": kept,
        "checkpoints": None if size is None else size * (kept + 1),  # a new one is written before an old one goes
        "cache_per_worker": max(caches, default=0),
    }


def _checkpoint_bytes(prepared: Preparation, num_parameters: int | None) -> int | None:
    """The size of the checkpoint that is there, else an upper limit from the network; None if that is unknown."""
    if prepared.start.checkpoint is not None:
        return prepared.start.checkpoint.size_bytes
    if num_parameters is None:
        return None
    config, num_channels = prepared.config, prepared.data.model.num_channels
    whitened = config.side**2 * num_channels if config.normalization in (PCA, ZCA) else 0
    return _VALUE_BYTES * (_COPIES_IN_CHECKPOINT * num_parameters + whitened**2)


def _time(prepared: Preparation, steps: int) -> dict[str, Any]:
    """Seconds of the steps that are left, at the rate that this run last had with the same network and nodes."""
    report, config = prepared.folder.report or {}, prepared.config
    rate = report.get("images_per_second")
    same = {
        "model": dataclasses.asdict(prepared.data.model),
        "batch_size": config.batch_size,
        "num_workers": config.num_workers,
    }
    if not rate or any(report.get(name) != value for name, value in same.items()):
        other = "its last rate was that of another network, batch or number of workers"
        unknown = other if rate else "the run has made no step yet"
        return {"images_per_second": None, "seconds": None, "unknown": unknown}
    return {"images_per_second": rate, "seconds": round(steps * config.batch_size / rate, 1), "unknown": None}
