"""What `train --dry_run` has found, in lines for people. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tfos_job.protocol.topology import counted
from tfos_job.run import resume
from tfos_job.run.placement import wire_text
from tfos_job.run.quantities import duration, images_of_step, size
from tfos_job.run.resume import Change

_WIDTH = 8


def lines(found: Mapping[str, Any]) -> list[str]:
    """The lines of `dry_run.forecast`."""
    rows = {
        "run": _run(found),
        "removes": ", ".join(found["removes"]),
        "changes": resume.listed([Change(**change) for change in found["changes"]]),
        "dataset": _dataset(found["dataset"]) if found["dataset"] else "removed, as that of a finished run is",
        "network": _network(found["network"]),
    }
    if found["length"]["steps"]:
        rows |= {
            "length": _length(found["length"]),
            "nodes": _nodes(found["nodes"]),
            "memory": _memory(found["memory_mib"]),
            "disk": _disk(found["disk_bytes"]),
            "wire": _wire(found["wire"]),
            "time": _time(found["time"]),
        }
    rows |= {
        "locked": f"by {found['locked_by']}: `train` would end with exit code 75" if found["locked_by"] else "",
        "unknown": "; ".join(found["unchecked"]),
    }
    head = "What `train` would do; nothing was started, locked or changed:"
    return [head, *(f"  {name:<{_WIDTH}} {text}" for name, text in rows.items() if text)]


def _run(found: Mapping[str, Any]) -> str:
    step, total = f"{found['step']:,}", f"{found['total_steps']:,}"
    origin = found["checkpoint"] or found["initial_weights"]
    begun = f"step {step} of {total}" + (f", from {origin}" if origin else ", with fresh weights")
    words = {
        "nothing": f"is finished: step {step} of {total}. Nothing to do",
        "finish": f"all {total} steps are done: only its report is missing",
        "resume": f"resumed at {begun}",
        "overwrite": f"removed, and begun anew at {begun}",
        "begin": f"begun at {begun}",
    }
    return f"{found['train_dir']}: {words[found['action']]}"


def _dataset(dataset: Mapping[str, Any]) -> str:
    text = (
        f"{dataset['dataset_dir']}, split {dataset['split_name']}: {dataset['num_records']:,} records of "
        f"{dataset['num_classes']:,} classes"
    )
    if dataset["num_empty_classes"]:
        text += f", of which {dataset['num_empty_classes']:,} have no record"
    if dataset["validation_split_name"] is not None:
        text += f"; validation {dataset['validation_split_name']}: {dataset['num_validation_records']:,} records"
    return text


def _network(network: Mapping[str, Any]) -> str:
    number = network["num_parameters"]
    parameters = (
        f"{number:,} parameters"
        if number is not None
        else "parameters unknown: your own is taken to be as large as inception_v3"
    )
    shape = f"{network['image_size']} × {network['image_size']} × {network['num_channels']}"
    return f"{network['model_name']}, {parameters}, images {shape}"


def _length(length: Mapping[str, Any]) -> str:
    of_step = images_of_step(length["replicas"], length["push_every"], length["batch_size"])
    return (
        f"{length['steps']:,} steps of {of_step} images: {length['images']:,} images, "
        f"{length['passes']:.3g} passes over the split"
    )


def _nodes(nodes: Mapping[str, Any]) -> str:
    servers = counted(nodes["num_ps_tasks"], "parameter server") if nodes["num_ps_tasks"] else "all-reduce"
    if nodes["num_ps_tasks_on_driver_host"]:
        servers += " on the driver's host"
    gpus = "a GPU" if nodes["num_gpus"] == 1 else f"{nodes['num_gpus']} GPUs"
    workers = counted(nodes["num_workers"], "worker") + (f" with {gpus}" if nodes["num_gpus"] else "")
    if nodes["num_gpus"] and nodes["num_workers"] > 1:
        workers += " each"
    records = nodes["records_per_worker"]
    most = f"{max(records):,}" if len(set(records)) == 1 else f"{min(records):,} to {max(records):,}"
    where = f" on {nodes['master']}" if nodes["master"] else ""
    return f"{servers}, {workers}{where}; {most} records a worker, {nodes['input_mode']}"


def _memory(memory: Mapping[str, int]) -> str:
    parts = [f"{role.replace('_', ' ')} {_mib(mib)}" for role, mib in memory.items() if role not in ("total", "host")]
    host = f"; this host has {_mib(memory['host'])}" if memory["host"] else ""
    return f"{', '.join(parts)}: up to {_mib(memory['total'])} together{host}"


def _disk(disk: Mapping[str, int | None]) -> str:
    size, cache = disk["checkpoint"], disk["cache_per_worker"]
    if size is None:
        text = "checkpoints of unknown size"
    else:
        number = (disk["num_checkpoints"] or 0) + 1
        text = f"up to {number} checkpoints of {_mib(size / (1 << 20))}: {_mib((disk['checkpoints'] or 0) / (1 << 20))}"
    if cache:
        text += f"; {_mib(cache / (1 << 20))} of shards on the disk of each worker"
    return text + (f"; {_mib(disk['free'] / (1 << 20))} are free" if disk["free"] is not None else "")


def _wire(wire: Mapping[str, Any]) -> str:
    if wire["servers"] is not None:
        return wire_text(wire["servers"])
    to, back = wire["bytes_to_worker"], wire["bytes_from_worker"]
    if to is None:
        return f"{wire['dtype']}; how many bytes a step is unknown"
    return f"{size(to)} of variables to the worker of each step, {size(back)} of gradients back, as {wire['dtype']}"


def _time(time: Mapping[str, Any]) -> str:
    if time["seconds"] is None:
        return f"unknown: {time['unknown']}"
    rate = f"{time['images_per_second']:,.0f} images/s"
    return f"{duration(time['seconds'])} of steps at the run's last {rate}; start and evaluations come on top"


def _mib(mib: float) -> str:
    return size(mib * (1 << 20))
