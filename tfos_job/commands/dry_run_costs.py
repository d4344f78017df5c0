"""What the run of `train --dry_run` will take: memory, disk, bytes on the wire and time."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tfos_job import storage
from tfos_job.commands import training_memory
from tfos_job.commands.command import Work
from tfos_job.commands.container_memory import Network
from tfos_job.config import FLOAT32, WIRE_BYTES, TrainConfig
from tfos_job.host.memory import host_bytes
from tfos_job.protocol.topology import Topology, is_local
from tfos_job.run import checkpoints, outgrown, placement
from tfos_job.run.network_variables import known_variables
from tfos_job.run.placement import PlacedVariable
from tfos_job.run.preparation import Preparation
from tfos_job.run.worker_inputs import worker_inputs

_COPIES_IN_CHECKPOINT = 3  # the weights, and Adam's two slots for each
_VALUE_BYTES = 4


def network(prepared: Preparation) -> Network:
    model = prepared.data.model
    return Network(
        model_name=model.model_name,
        image_size=model.image_size,
        num_channels=model.num_channels,
        num_classes=model.num_classes,
    )


def memory_mib(prepared: Preparation, topology: Topology, master: str | None) -> dict[str, int | None]:
    """MiB of a container with one of each role, of all of them together, and of this host if all of them are here."""
    data = prepared.data
    work = Work(
        network=network(prepared),
        worker_records=max(data.part_sizes),
        record_bytes=data.train.manifest.record_bytes,
        outgrown=outgrown.of_run(prepared.run, prepared.folder.report),
    )
    roles = training_memory.roles(prepared.config, work, topology)
    counts = {
        training_memory.WORKER: topology.num_workers,
        training_memory.PARAMETER_SERVER: topology.num_executor_ps_tasks,
    }
    total = sum(memory.total * counts.get(role, 1) for role, memory in roles.items())
    host = host_bytes() >> 20 if is_local(master) else None
    return {**{role: memory.total for role, memory in roles.items()}, "total": total, "host": host}


def disk_bytes(prepared: Preparation, num_parameters: int | None) -> dict[str, int | None]:
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
        "free": _free_bytes(prepared.run.root),
    }


def _free_bytes(folder: str) -> int | None:
    """What is free on the disk where the folder is or will be; None for one that is on no disk of this host."""
    local = storage.local_path(folder)
    if local is None:
        return None
    there = next(path for path in (Path(local), *Path(local).parents) if path.exists())
    return shutil.disk_usage(there).free


def _checkpoint_bytes(prepared: Preparation, num_parameters: int | None) -> int | None:
    """The size of the checkpoint that is there, else an upper limit from the network; None if that is unknown."""
    if prepared.start.checkpoint is not None:
        return prepared.start.checkpoint.size_bytes
    if num_parameters is None:
        return None
    whitened = prepared.config.whitened_values(prepared.data.model.num_channels)
    return _VALUE_BYTES * (_COPIES_IN_CHECKPOINT * num_parameters + whitened**2)


def wire(prepared: Preparation, num_parameters: int | None) -> dict[str, Any]:
    """Bytes that a worker gets in a step, the variables, and sends, the gradients; None if they are unknown.

    `servers` is `placement.wire`; None for a network of the user's own on parameter servers, since its variables are
    not known before it is built. How many of its parameters are trained is in the report of the run; moving statistics
    count as if they were.
    """
    config, report = prepared.config, prepared.folder.report or {}
    found: dict[str, Any] = {
        "dtype": config.wire_dtype,
        "bytes_to_worker": None,
        "bytes_from_worker": None,
        "servers": None,
    }
    variables = known_variables(prepared.data.model, config.scopes_to_train, config.wire_dtype)
    num_trained = report.get("num_trained", None if config.scopes_to_train else num_parameters)
    if not config.num_ps_tasks:
        return found | _on_the_ring(config, variables, num_trained)
    if variables is not None:
        servers = _servers(placement.place(variables, config.num_ps_tasks, config.ps_placement).step_bytes, config)
        read_bytes = sum(variable.read_bytes for variable in variables)
        sent_bytes = sum(servers["step_bytes"]) - read_bytes
        return found | {"bytes_to_worker": read_bytes, "bytes_from_worker": sent_bytes, "servers": servers}
    if num_parameters is None or num_trained is None:
        return found
    trained_bytes = num_trained * WIRE_BYTES[config.wire_dtype]
    others_bytes = (num_parameters - num_trained) * _VALUE_BYTES
    return found | {"bytes_to_worker": trained_bytes + others_bytes, "bytes_from_worker": trained_bytes}


def _on_the_ring(
    config: TrainConfig, variables: Sequence[PlacedVariable] | None, num_trained: int | None
) -> dict[str, Any]:
    """What `wire` tells of all-reduce: gradients alone, so it is enough to know how many numbers are trained."""
    if variables is not None:
        num_trained = sum(variable.size for variable in variables if variable.is_trained)
    if num_trained is None:
        return {}
    num_workers, num_replicas = config.num_workers, config.replicas_of_step
    step_bytes = placement.all_reduce_bytes(num_trained, config.wire_dtype, num_workers, num_replicas)
    one_way = max(step_bytes) // 2
    return {"bytes_to_worker": one_way, "bytes_from_worker": one_way, "servers": _servers(step_bytes, config)}


def _servers(step_bytes: Sequence[int], config: TrainConfig) -> dict[str, Any]:
    return placement.wire(
        step_bytes,
        wire_dtype=config.wire_dtype,
        ps_placement=config.ps_placement,
        num_ps_tasks=config.num_ps_tasks,
        num_workers=config.num_workers,
        link_gbit=config.link_gbit,
    )


def time(prepared: Preparation, steps: int) -> dict[str, Any]:
    """Seconds of the steps that are left, at the rate that this run last had with the same network and nodes."""
    config = prepared.config
    report = {"wire_dtype": FLOAT32, "push_every": 1, "replicas": 1, **(prepared.folder.report or {})}
    rate = report.get("images_per_second")
    same = {
        "model": dataclasses.asdict(prepared.data.model),
        "batch_size": config.batch_size,
        "num_workers": config.num_workers,
        "num_ps_tasks": config.num_ps_tasks,
        "wire_dtype": config.wire_dtype,
        "push_every": config.push_every,
        "replicas": config.replicas_of_step,
    }
    if not rate or any(report.get(name) != value for name, value in same.items()):
        other = "its last rate was that of another network, batch, wire or number of nodes"
        unknown = other if rate else "the run has made no step yet"
        return {"images_per_second": None, "seconds": None, "unknown": unknown}
    return {"images_per_second": rate, "seconds": round(steps * config.images_per_step / rate, 1), "unknown": None}
