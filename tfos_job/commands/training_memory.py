"""The memory of each process of a training, from its settings and the size of its work. Pure."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tfos_job.commands import container_memory
from tfos_job.commands.command import Work
from tfos_job.commands.container_memory import ContainerMemory, Network, TooSmall
from tfos_job.config import PRELOADED, TrainConfig
from tfos_job.run.network_variables import known_variables
from tfos_job.run.placement import place
from tfos_job.run.specs import ModelSpec

if TYPE_CHECKING:
    from tfos_job.protocol.topology import Topology  # with numpy, which `--help` need not import

DRIVER, WORKER, PARAMETER_SERVER = "driver", "worker", "parameter_server"


def roles(config: TrainConfig, work: Work, topology: Topology) -> dict[str, ContainerMemory]:
    """The memory of a container with one of each role; parameter servers on the driver's host are part of it.

    Where memory has run out before, it is at least what was too little then, and a reserve.
    """
    found = _estimated(config, work, topology)
    for role, before in outgrown(work, topology).items():
        beside = container_memory.JVM_BESIDE_HEAP + (container_memory.DRIVER_PYTHON if role == DRIVER else 0)
        found[role] = container_memory.grown(found[role], before, beside=beside)
    return found


def outgrown(work: Work, topology: Topology) -> dict[str, TooSmall]:
    """The containers that were too small, by role."""
    if work.outgrown is None:
        return {}
    # By the roles of protocol/topology.py:
    names, peaks, sizes = work.outgrown.roles, work.outgrown.peak_bytes, work.outgrown.container_bytes
    on_driver_host = topology.num_driver_ps_tasks > 0
    found = {}
    if "worker" in names:
        found[WORKER] = TooSmall(peak_bytes=peaks.get("worker", 0), container_bytes=sizes.get("worker", 0))
    if "ps" in names and not on_driver_host:
        found[PARAMETER_SERVER] = TooSmall(peak_bytes=peaks.get("ps", 0), container_bytes=sizes.get("ps", 0))
    if "chief" in names or ("ps" in names and on_driver_host):
        servers = topology.num_driver_ps_tasks * peaks.get("ps", 0)
        is_known = "chief" in peaks and (servers or not on_driver_host)
        found[DRIVER] = TooSmall(peak_bytes=peaks["chief"] + servers if is_known else 0)
    return found


def _estimated(config: TrainConfig, work: Work, topology: Topology) -> dict[str, ContainerMemory]:
    """The memory that follows from what runs in a container."""
    on_driver_host = topology.num_driver_ps_tasks > 0
    whitened_values = config.whitened_values(work.network.num_channels)
    nodes = {"parameters": work.network.num_parameters, "num_workers": config.num_workers}
    found = {
        DRIVER: container_memory.training_driver(
            **nodes,
            num_ps_tasks=config.num_ps_tasks,
            ps_on_driver_host=on_driver_host,
            whitened_values=whitened_values,
        ),
        WORKER: _worker(config, work, whitened_values),
    }
    if topology.num_executor_ps_tasks:
        share = _largest_share(config, work.network)
        found[PARAMETER_SERVER] = container_memory.parameter_server(**nodes, share=share)
    return found


def _largest_share(config: TrainConfig, network: Network) -> float:
    """The share of the variables that the parameter server with the most has; an even one where they are not known."""
    model = ModelSpec(**dataclasses.asdict(network), keep_prob=config.keep_prob)
    variables = known_variables(model, config.scopes_to_train, config.wire_dtype)
    if variables is None:
        return 1 / config.num_ps_tasks
    step_bytes = place(variables, config.num_ps_tasks, config.ps_placement).step_bytes
    return max(step_bytes) / sum(step_bytes)


def containers(of_roles: Mapping[str, ContainerMemory]) -> tuple[ContainerMemory, ContainerMemory]:
    """The driver's container, and that of every executor, which may hold a worker or a parameter server."""
    nodes = [memory for role, memory in of_roles.items() if role != DRIVER]
    executor = ContainerMemory(max(node.heap for node in nodes), max(node.overhead for node in nodes))
    return of_roles[DRIVER], executor


def _worker(config: TrainConfig, work: Work, whitened_values: int) -> ContainerMemory:
    num_channels = work.network.num_channels
    is_preloaded = config.resolved_input_mode(work.worker_records, num_channels) == PRELOADED
    return container_memory.worker(
        network=work.network,
        batch_size=config.batch_size,
        shuffle_buffer=0 if is_preloaded else config.buffered_records(work.record_bytes),
        record_bytes=work.record_bytes,
        whitened_values=whitened_values,
        push_every=config.push_every,
        num_replicas=0 if config.num_ps_tasks else max(1, config.num_gpus),
        preloaded_bytes=config.preloaded_bytes(work.worker_records, num_channels) if is_preloaded else 0,
        on_gpu=config.num_gpus > 0,
    )
