"""The processes of a training as validated data: roles, slots, and each worker's shards. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from tfos_job.config import TrainConfig
from tfos_job.errors import SettingsError
from tfos_job.host.container import under_spark_submit
from tfos_job.staging.cache_plan import CachePlan

PS = "ps"
WORKER = "worker"
CHIEF = "chief"
EXECUTOR = "executor"
"""The role of a Spark task until TFoS gives it another one; its index is the partition."""


@dataclass(frozen=True, order=True)
class Task:
    """One TensorFlow task: a role (`ps`, `worker`, `chief`) and its index in that role."""

    role: str
    index: int

    def __str__(self) -> str:
        return f"{self.role}:{self.index}"


COORDINATOR = Task(CHIEF, 0)


@dataclass(frozen=True)
class Topology:
    """The nodes of a training. The coordinator runs on the driver's host and is none of them.

    Attributes:
      num_ps_tasks: parameter servers.
      num_workers: workers.
      ps_on_driver_host: the parameter servers are processes on the driver's host, not in executors of their own: all
        executors of an application are alike, so in one of them a parameter server would hold a worker's GPU.
    """

    num_ps_tasks: int
    num_workers: int
    ps_on_driver_host: bool = False

    @property
    def nodes(self) -> tuple[Task, ...]:
        """All tasks, in TFoS's order: parameter servers first."""
        return tuple(Task(PS, i) for i in range(self.num_ps_tasks)) + tuple(
            Task(WORKER, i) for i in range(self.num_workers)
        )

    def __str__(self) -> str:
        workers = counted(self.num_workers, "worker")
        return f"{counted(self.num_ps_tasks, 'parameter server')} and {workers}" if self.num_ps_tasks else workers

    @property
    def num_executor_ps_tasks(self) -> int:
        return 0 if self.ps_on_driver_host else self.num_ps_tasks

    @property
    def num_driver_ps_tasks(self) -> int:
        return self.num_ps_tasks - self.num_executor_ps_tasks

    @property
    def num_spark_executors(self) -> int:
        """Executors (or slots of a local master) that the nodes fill, one each."""
        return self.num_executor_ps_tasks + self.num_workers


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def topology_of(config: TrainConfig, master: str | None) -> Topology:
    """The nodes that a run's settings ask for.

    Args:
      config: of the run.
      master: Spark's master; None if spark-submit has set it.
    """
    place = config.ps_place
    if place == "auto":
        place = "driver" if config.num_gpus and not is_local(master) else "executor"
    return Topology(config.num_ps_tasks, config.num_workers, ps_on_driver_host=place == "driver")


@dataclass(frozen=True)
class Slots:
    """A master's offer: `executors` processes with `cores` task slots each."""

    executors: int
    cores: int


_LOCAL = re.compile(r"local(?:\[(\d+|\*)(?:,\s*(\d+))?\])?")
_LOCAL_CLUSTER = re.compile(r"local-cluster\[\s*(\d+)\s*,\s*(\d+)\s*,\s*(\d+)\s*\]")


def slots_of(master: str, cpu_count: int | None = None) -> Slots | None:
    """Slots of a local master; None if only the cluster manager knows them (YARN, Kubernetes, standalone)."""
    local = _LOCAL.fullmatch(master)
    if local:
        cores = local.group(1) or "1"
        return Slots(1, (cpu_count or os.cpu_count() or 1) if cores == "*" else int(cores))
    cluster = _LOCAL_CLUSTER.fullmatch(master)
    return Slots(int(cluster.group(1)), int(cluster.group(2))) if cluster else None


def is_local(master: str | None) -> bool:
    """True if all of Spark runs on this host; None is a master that spark-submit has set."""
    return master is not None and slots_of(master) is not None


def is_in_driver(master: str) -> bool:
    """True if the driver's JVM is the only executor, as on `local[N]`."""
    return _LOCAL.fullmatch(master) is not None


def task_failures_of(master: str) -> int:
    """How often a task may fail on `local[N]` or `local[N,F]`: F, whatever spark.task.maxFailures says."""
    local = _LOCAL.fullmatch(master)
    return int(local.group(2) or 1) if local else 1


def resolve_master(requested: str | None, num_nodes: int) -> str | None:
    """Returns the master to set; None if spark-submit has set one.

    Args:
      requested: `--master`.
      num_nodes: slots that must run at the same time.
    """
    if requested is not None:
        return requested
    if under_spark_submit():
        return None
    return local_master(num_nodes)


def local_master(num_nodes: int) -> str:
    """The master of a command that is given none: a slot for each core, or for each node if there are more."""
    return f"local[{max(os.cpu_count() or 1, num_nodes)}]"


def check_slots(topology: Topology, master: str, cpu_count: int | None = None) -> None:
    """Fails if the master can never hold the topology; TFoS would wait for the missing slots for ever.

    Raises:
      SettingsError: with the number of slots needed and offered.
    """
    slots = slots_of(master, cpu_count)
    if slots is None:
        return
    # In separate executors a node fills a whole executor, however many cores it has (TFoS wants one node an executor).
    separate = not is_in_driver(master)
    offered = slots.executors if separate else slots.cores
    needed = topology.num_spark_executors
    if offered < needed:
        example = f"local-cluster[{needed},{slots.cores},1024]" if separate else f"local[{needed}]"
        raise SettingsError(
            f"{offered} slot{'s' if offered != 1 else ''} for {needed} nodes "
            f"({topology.num_executor_ps_tasks} parameter servers and {topology.num_workers} workers)",
            place=f"--master {master}",
            next_step=f"Give --master '{example}' or fewer --num_executors",
        )


def assign_shards(shards: Sequence[tuple[str, int]], num_workers: int) -> tuple[tuple[tuple[str, int], ...], ...]:
    """Divides shard files among workers, so that each has about the same number of records.

    Args:
      shards: (path, number of records) of each shard file.
      num_workers: workers to divide among.

    Returns:
      For each worker its (path, records), in the order of `shards`; the same input always gives the same answer.

    Raises:
      SettingsError: fewer shards with records than workers.
    """
    filled = [(path, records) for path, records in shards if records > 0]
    if len(filled) < num_workers:
        raise SettingsError(
            f"{len(filled)} shard files with records cannot be divided among {num_workers} workers",
            next_step=f"Give --num_executors so that at most {len(filled)} are workers, or convert into more shards",
        )
    loads = [0] * num_workers
    owner: dict[str, int] = {}
    for path, records in sorted(filled, key=lambda item: (-item[1], item[0])):
        lightest = min(range(num_workers), key=lambda w: (loads[w], w))
        loads[lightest] += records
        owner[path] = lightest
    return tuple(tuple(item for item in filled if owner[item[0]] == w) for w in range(num_workers))


def largest_part(shards: Sequence[tuple[str, int]], num_workers: int) -> int:
    """Records of the worker that `assign_shards` gives the most; raises as it does."""
    return max(sum(records for _, records in part) for part in assign_shards(shards, num_workers))


# A worker's dataset is a graph made on the coordinator, the same for all workers; what differs among them lies in this
# file of the worker process's own working directory.
INPUT_FILE = "input.txt"


@dataclass(frozen=True)
class WorkerInput:
    """The input of one worker: its shards, its first record in its endless stream, and the copies that it needs."""

    worker: int
    seed: int
    start_record: int
    num_records: int
    shards: tuple[str, ...]
    cache_plan: CachePlan | None = None

    def to_text(self) -> str:
        """One value a line, as a graph can parse it: the four numbers, then the shards."""
        return "\n".join([*map(str, (self.worker, self.seed, self.start_record, self.num_records)), *self.shards])


def describe_missing(expected: Iterable[Task], present: Iterable[Task]) -> str:
    """`worker:1, ps:0`: the tasks that have not come."""
    return ", ".join(str(task) for task in sorted(set(expected) - set(present)))
