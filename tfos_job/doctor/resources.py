"""Checks of the hosts' resources: disk, GPUs, ports, memory."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from tfos_job.doctor.case import Case, by_fact
from tfos_job.doctor.diagnosis import OK, WARNING, Check, failed
from tfos_job.doctor.host_memory import MIB, Container
from tfos_job.doctor.probe import ProbeResult
from tfos_job.errors import ResourceError, SettingsError
from tfos_job.host import server_port
from tfos_job.host.memory import gib

# Ports that train opens on the driver's host (control server, TFoS's rendezvous, coordinator) and on each node.
DRIVER_PORTS, NODE_PORTS = 3, 1
_GPU = re.compile(r"GPU (?P<index>\d+): .*\(UUID: (?P<uuid>[^)]+)\)")  # a line of `nvidia-smi -L`


def check_disk(case: Case) -> list[Check]:
    shared: dict[tuple[str, int], list[ProbeResult]] = defaultdict(list)
    for result in case.all:
        if result.disk:
            shared[result.host, result.disk.device].append(result)
    checks, least_bytes = [], None
    for results in shared.values():
        num_nodes = case.num_nodes(results)
        if not num_nodes:
            continue  # the driver keeps no shards
        disk = next(result.disk for result in results if result.disk and result in case.executors)
        needed_bytes = num_nodes * case.expected.min_free_bytes
        least_bytes = min(disk.free_bytes, disk.free_bytes if least_bytes is None else least_bytes)
        if disk.free_bytes < needed_bytes:
            checks.append(
                failed(
                    "disk",
                    ResourceError,
                    f"{gib(disk.free_bytes)} free in {disk.path}, {gib(needed_bytes)} needed for {num_nodes} node(s)",
                    where=[result.name for result in results if result in case.executors],
                    next_step="Free some, point TMPDIR to a larger disk, or ask for less (train: --cache_gb)",
                )
            )
    if checks or least_bytes is None:
        return checks
    return [Check(name="disk", state=OK, fact=f"{gib(least_bytes)} free or more where nodes keep their files")]


def check_gpu(case: Case) -> list[Check]:
    expected = case.expected
    listed = sum(len(result.gpus_listed) for result in case.executors)
    if not expected.num_gpus:
        fact = "none asked for" + (f"; {listed} there" if listed else "")
        return [Check(name="gpu", state=OK, fact=fact)]
    if not case.executors:
        return []  # check_executors reports that none answered
    num_nodes = expected.num_executors if expected.num_gpu_nodes is None else expected.num_gpu_nodes
    if case.cluster.in_driver:
        return _local_gpus(case.executors[0], num_nodes * expected.num_gpus)
    without = [result for result in case.executors if len(result.gpus_assigned or ()) < expected.num_gpus]
    checks: list[Check] = []
    if len(case.executors) - len(without) < min(num_nodes, len(case.executors)):
        checks += by_fact(
            without,
            lambda result: f"Spark assigned {len(result.gpus_assigned or ())} GPUs, {expected.num_gpus} wanted",
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
        [result for result in case.executors if result not in without],
        lambda result: _unseen_gpu(result, expected.num_gpus),
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


def _unseen_gpu(result: ProbeResult, num_gpus: int) -> str:
    if len(result.gpus_listed) >= num_gpus:
        return ""
    reason = result.gpus_error or f"nvidia-smi lists {len(result.gpus_listed)}"
    return f"Spark assigned GPU {','.join(result.gpus_assigned or ())}, but {reason}"


def _shared_gpus(executors: Sequence[ProbeResult]) -> list[Check]:
    """Finds GPUs that two executors share: the discovery script lists all GPUs, and YARN does not isolate them."""
    owners: dict[tuple[str, str], list[str]] = defaultdict(list)
    for result in executors:
        for gpu in result.gpus_listed:
            match = _GPU.match(gpu)
            if match and {match["index"], match["uuid"]} & set(result.gpus_assigned or ()):
                owners[result.host, match["uuid"]].append(result.name)
    step = "Let YARN isolate GPUs (yarn.nodemanager.resource-plugins), or run one executor a host"
    return [
        failed("gpu", SettingsError, f"all of them were assigned {uuid}", where=names, next_step=step)
        for (_, uuid), names in owners.items()
        if len(names) > 1
    ]


def _local_gpus(result: ProbeResult, needed: int) -> list[Check]:
    if len(result.gpus_listed) >= needed:
        return [Check(name="gpu", state=OK, fact=f"{len(result.gpus_listed)} visible, {needed} needed")]
    reason = f" ({result.gpus_error})" if result.gpus_error else ""
    fact = f"{len(result.gpus_listed)} visible, {needed} needed{reason}"
    return [failed("gpu", ResourceError, fact, where=[result.name], next_step="Give --num_gpus 0, or fewer nodes")]


def check_tensorflow(case: Case) -> list[Check]:
    asked = [result for result in case.all if result.tensorflow_gpus is not None]
    if not asked:
        return []
    wanted = case.expected.num_gpus

    def fact_of(result: ProbeResult) -> str:
        if result.tensorflow_error:
            return result.tensorflow_error
        visible = len(result.tensorflow_gpus or ())
        due = wanted if result in case.executors and (result.gpus_assigned or case.cluster.in_driver) else 0
        return f"TensorFlow sees {visible} GPUs, {due} wanted" if visible < due and not case.expected.allow_cpu else ""

    step = "Check CUDA and the driver against what this TensorFlow was built for"
    checks = by_fact(
        asked,
        fact_of,
        lambda fact, where: failed(
            "tensorflow",
            # TensorFlow cannot be imported, or uses instructions that this processor lacks.
            SettingsError if "ends with" in fact or "SIGILL" in fact else ResourceError,
            fact,
            where=where,
            next_step=step,
        ),
    )
    gpus = sorted({gpu for result in asked for gpu in result.tensorflow_gpus or ()})
    fact = f"can be imported by {len(asked)} processes; GPUs: {', '.join(gpus) or 'none'}"
    return checks or [Check(name="tensorflow", state=OK, fact=fact)]


def check_ports(case: Case) -> list[Check]:
    expected = case.expected
    by_host: dict[str, list[ProbeResult]] = defaultdict(list)
    for result in case.all:
        by_host[result.host].append(result)
    checks = []
    for host, results in by_host.items():
        free = min(result.num_free_ports for result in results)
        if expected.port_range is None:
            needed = 1  # of the system's own range, which has thousands
        else:
            needed = NODE_PORTS * case.num_nodes(results)
            if case.driver in results:
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


def check_isolation(case: Case) -> list[Check]:
    """Whether the kernels keep strangers from TensorFlow's servers, which execute what they are sent."""
    is_required = case.expected.require_isolation

    def make(why: str, where: tuple[str, ...]) -> Check:
        fact = f"any host could use a TensorFlow server: {why}"
        if is_required:
            return failed("isolation", SettingsError, fact, where=where, next_step=server_port.NEXT_STEP)
        step = "Let a firewall close --port_range to other hosts"
        return Check(name="isolation", state=WARNING, fact=fact, where=where, next_step=step)

    checks = by_fact(case.all, lambda result: result.why_open, make)
    return checks or [Check(name="isolation", state=OK, fact="TensorFlow's servers can be closed to other hosts")]


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
    host_mb = min((result.host_memory_bytes for result in case.executors), default=0) // MIB
    fact = f"executors of {_describe(cluster.executor)}; " if cluster.executor and not cluster.in_driver else ""
    if on_yarn:
        limit = cluster.yarn_limit_mb
        fact += f"YARN gives up to {limit} MiB; " if limit else "yarn-site.xml does not say how large one may be; "
    return [Check(name="memory", state=OK, fact=f"{fact}hosts of {host_mb} MiB or more")] if host_mb else []


def _describe(container: Container) -> str:
    return f"{container.total_mb} MiB ({container.memory_mb} and {container.overhead_mb} overhead)"


def _memory_of_hosts(case: Case, container: Container) -> list[Check]:
    def limited(result: ProbeResult) -> str:
        limit_bytes = result.memory_limit_bytes
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
    for result in case.executors:
        by_host[result.host].append(result)
    for host, results in by_host.items():
        asked_mb, there_mb = len(results) * container.total_mb, results[0].host_memory_bytes // MIB
        if asked_mb > there_mb:
            fact = f"{len(results)} executors of {_describe(container)} on a host of {there_mb} MiB"
            checks.append(Check(name="memory", state=WARNING, fact=fact, where=(f"host {host}",)))
    return checks
