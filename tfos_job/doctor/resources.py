"""Checks of what the hosts have: disk, GPUs, ports, memory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from tfos_job.doctor.case import Case, by_fact
from tfos_job.doctor.diagnosis import OK, WARNING, Check, failed
from tfos_job.doctor.host_memory import MIB, Container
from tfos_job.doctor.probe import ProbeResult
from tfos_job.errors import ResourceError, SettingsError

# What train listens on beside the driver (the control line, TFoS's rendezvous, the coordinator) and on each node.
DRIVER_PORTS, NODE_PORTS = 3, 1
_GPU = re.compile(r"GPU (?P<index>\d+): .*\(UUID: (?P<uuid>[^)]+)\)")  # a line of `nvidia-smi -L`


def check_disk(case: Case) -> list[Check]:
    shared: dict[tuple[str, int], list[ProbeResult]] = defaultdict(list)
    for sight in case.all:
        if sight.disk:
            shared[sight.host, sight.disk.device].append(sight)
    checks, least_bytes = [], None
    for sights in shared.values():
        num_nodes = case.num_nodes(sights)
        if not num_nodes:
            continue  # the driver alone keeps no shards
        disk = next(sight.disk for sight in sights if sight.disk and sight in case.executors)
        needed_bytes = num_nodes * case.expected.min_free_bytes
        least_bytes = min(disk.free_bytes, disk.free_bytes if least_bytes is None else least_bytes)
        if disk.free_bytes < needed_bytes:
            checks.append(
                failed(
                    "disk",
                    ResourceError,
                    f"{_gb(disk.free_bytes)} free in {disk.path}, {_gb(needed_bytes)} needed for {num_nodes} node(s)",
                    where=[sight.name for sight in sights if sight in case.executors],
                    next_step="Free some, point TMPDIR to a larger disk, or ask for less (train: --cache_gb)",
                )
            )
    if checks or least_bytes is None:
        return checks
    return [Check(name="disk", state=OK, fact=f"{_gb(least_bytes)} free or more where nodes keep their files")]


def _gb(num_bytes: int) -> str:
    return f"{num_bytes / (1 << 30):.2f} GiB"


def check_gpu(case: Case) -> list[Check]:
    expected = case.expected
    listed = sum(len(sight.gpus_listed) for sight in case.executors)
    if not expected.num_gpus:
        fact = "none asked for" + (f"; {listed} there" if listed else "")
        return [Check(name="gpu", state=OK, fact=fact)]
    if not case.executors:
        return []  # another check says that nobody answered
    num_nodes = expected.num_executors if expected.num_gpu_nodes is None else expected.num_gpu_nodes
    if case.cluster.in_driver:
        return _local_gpus(case.executors[0], num_nodes * expected.num_gpus)
    without = [sight for sight in case.executors if len(sight.gpus_assigned or ()) < expected.num_gpus]
    checks: list[Check] = []
    if len(case.executors) - len(without) < min(num_nodes, len(case.executors)):
        checks += by_fact(
            without,
            lambda sight: f"Spark assigned {len(sight.gpus_assigned or ())} GPUs, {expected.num_gpus} wanted",
            lambda fact, where: failed(
                "gpu",
                ResourceError,
                fact,
                where=where,
                next_step="Set spark.executor.resource.gpu.amount, spark.task.resource.gpu.amount and "
                "spark.executor.resource.gpu.discoveryScript",
            ),
        )
    checks += by_fact(
        [sight for sight in case.executors if sight not in without],
        lambda sight: _unseen_gpu(sight, expected.num_gpus),
        lambda fact, where: (
            Check(name="gpu", state=WARNING, fact=fact, where=where)
            if expected.allow_cpu
            else failed(
                "gpu", ResourceError, fact, where=where, next_step="Check the driver and the devices of these hosts"
            )
        ),
    )
    checks += _shared_gpus(case.executors)
    return checks or [Check(name="gpu", state=OK, fact=f"{expected.num_gpus} assigned and visible on each executor")]


def _unseen_gpu(sight: ProbeResult, num_gpus: int) -> str:
    if len(sight.gpus_listed) >= num_gpus:
        return ""
    reason = sight.gpus_error or f"nvidia-smi lists {len(sight.gpus_listed)}"
    return f"Spark assigned GPU {','.join(sight.gpus_assigned or ())}, but {reason}"


def _shared_gpus(executors: Sequence[ProbeResult]) -> list[Check]:
    """One GPU for two executors: what comes of a discovery script that names all, where YARN isolates none."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for sight in executors:
        for gpu in sight.gpus_listed:
            match = _GPU.match(gpu)
            if match and {match["index"], match["uuid"]} & set(sight.gpus_assigned or ()):
                owners[sight.host, match["uuid"]].append(sight.name)
    step = "Let YARN isolate GPUs (yarn.nodemanager.resource-plugins), or run one executor a host"
    return [
        failed("gpu", SettingsError, f"all of them were assigned {uuid}", where=names, next_step=step)
        for (_, uuid), names in owners.items()
        if len(names) > 1
    ]


def _local_gpus(sight: ProbeResult, needed: int) -> list[Check]:
    if len(sight.gpus_listed) >= needed:
        return [Check(name="gpu", state=OK, fact=f"{len(sight.gpus_listed)} visible, {needed} needed")]
    reason = f" ({sight.gpus_error})" if sight.gpus_error else ""
    fact = f"{len(sight.gpus_listed)} visible, {needed} needed{reason}"
    return [failed("gpu", ResourceError, fact, where=[sight.name], next_step="Give --num_gpus 0, or fewer nodes")]


def check_tensorflow(case: Case) -> list[Check]:
    asked = [sight for sight in case.all if sight.tensorflow_gpus is not None]
    if not asked:
        return []
    wanted = case.expected.num_gpus

    def fact_of(sight: ProbeResult) -> str:
        if sight.tensorflow_error:
            return sight.tensorflow_error
        visible = len(sight.tensorflow_gpus or ())
        due = wanted if sight in case.executors and (sight.gpus_assigned or case.cluster.in_driver) else 0
        return f"TensorFlow sees {visible} GPUs, {due} wanted" if visible < due and not case.expected.allow_cpu else ""

    step = "Check CUDA and the driver against what this TensorFlow was built for"
    checks = by_fact(
        asked,
        fact_of,
        lambda fact, where: failed(
            "tensorflow",
            # One that cannot be imported, or has instructions that this processor lacks.
            SettingsError if "ends with" in fact or "SIGILL" in fact else ResourceError,
            fact,
            where=where,
            next_step=step,
        ),
    )
    gpus = sorted({gpu for sight in asked for gpu in sight.tensorflow_gpus or ()})
    fact = f"can be imported by {len(asked)} processes; GPUs: {', '.join(gpus) or 'none'}"
    return checks or [Check(name="tensorflow", state=OK, fact=fact)]


def check_ports(case: Case) -> list[Check]:
    expected = case.expected
    by_host: dict[str, list[ProbeResult]] = defaultdict(list)
    for sight in case.all:
        by_host[sight.host].append(sight)
    checks = []
    for host, sights in by_host.items():
        free = min(sight.num_free_ports for sight in sights)
        if expected.port_range is None:
            needed = 1  # of the system's own range, which is thousands
        else:
            needed = NODE_PORTS * case.num_nodes(sights)
            if case.driver in sights:
                needed += DRIVER_PORTS + NODE_PORTS * expected.num_driver_nodes
                free += case.cluster.num_held_ports
        if free < needed:
            checks.append(
                failed(
                    "ports",
                    ResourceError,
                    f"{free} free{_of_range(expected.port_range)}, {needed} needed",
                    where=[f"host {host}"],
                    next_step="Give a wider --port_range" if expected.port_range else "Look for what holds them",
                )
            )
    fact = f"enough can be bound on {len(by_host)} host(s){_of_range(expected.port_range)}"
    return checks or [Check(name="ports", state=OK, fact=fact)]


def _of_range(port_range: tuple[int, int] | None) -> str:
    return " of {}-{}".format(*port_range) if port_range else ""


def check_memory(case: Case) -> list[Check]:
    cluster = case.cluster
    checks = []
    on_yarn = cluster.master.startswith("yarn")
    if on_yarn and cluster.yarn_limit_mb is not None:
        for role, container in (("executor", cluster.executor), ("driver", cluster.driver)):
            if container and container.total_mb > cluster.yarn_limit_mb:
                checks.append(
                    failed(
                        "memory",
                        SettingsError,
                        f"{role} container of {_describe(container)}, and YARN gives {cluster.yarn_limit_mb} MiB at "
                        "most (yarn.scheduler.maximum-allocation-mb)",
                        next_step=f"Set spark.{role}.memory and spark.{role}.memoryOverhead lower",
                    )
                )
    if cluster.executor and not cluster.in_driver:
        checks += _memory_of_hosts(case, cluster.executor)
    if checks:
        return checks
    host_mb = min((sight.host_memory_bytes for sight in case.executors), default=0) // MIB
    fact = f"executors of {_describe(cluster.executor)}; " if cluster.executor and not cluster.in_driver else ""
    if on_yarn:
        limit = cluster.yarn_limit_mb
        fact += f"YARN gives up to {limit} MiB; " if limit else "yarn-site.xml does not say how large one may be; "
    return [Check(name="memory", state=OK, fact=f"{fact}hosts of {host_mb} MiB or more")] if host_mb else []


def _describe(container: Container) -> str:
    return f"{container.total_mb} MiB ({container.memory_mb} and {container.overhead_mb} overhead)"


def _memory_of_hosts(case: Case, container: Container) -> list[Check]:
    def limited(sight: ProbeResult) -> str:
        limit_bytes = sight.memory_limit_bytes
        if limit_bytes is None or limit_bytes >= container.total_mb * MIB:
            return ""
        return f"its control group ends at {limit_bytes // MIB} MiB, and Spark asks for {_describe(container)}"

    checks = by_fact(
        case.executors,
        limited,
        lambda fact, where: failed(
            "memory", SettingsError, fact, where=where, next_step="Set spark.executor.memory lower, or the limit higher"
        ),
    )
    by_host: dict[str, list[ProbeResult]] = defaultdict(list)
    for sight in case.executors:
        by_host[sight.host].append(sight)
    for host, sights in by_host.items():
        asked_mb, there_mb = len(sights) * container.total_mb, sights[0].host_memory_bytes // MIB
        if asked_mb > there_mb:
            fact = f"{len(sights)} executors of {_describe(container)} on a host of {there_mb} MiB"
            checks.append(Check(name="memory", state=WARNING, fact=fact, where=(f"host {host}",)))
    return checks
