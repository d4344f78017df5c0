"""The input of all checks: a job's requirements, the driver's view of the cluster, and the probe results."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tfos_job.doctor.diagnosis import Check
from tfos_job.doctor.host_memory import Container
from tfos_job.doctor.probe import ProbeResult


@dataclass(frozen=True, kw_only=True)
class Expected:
    """The requirements of a job.

    Attributes:
      num_executors: nodes that occupy a Spark executor each (a slot each in local Spark).
      num_gpus: GPUs of each GPU node.
      num_gpu_nodes: number of GPU nodes; None: all nodes.
      num_driver_nodes: parameter servers on the driver's host.
      allow_cpu: True if a missing GPU is a warning, not a failure.
      expected_hours: expected duration of the job.
      min_free_bytes: required free space on the local disk of each node.
      require_isolation: True if it is a failure, not a warning, that strangers could connect to TensorFlow's servers.
      folder: folder for the job's output, for the storage trial; None: no trial.
      storage_timeout_s: time limit of the storage trial.
      start_timeout: seconds to wait for executors.
      deep: True to import TensorFlow on each executor.
    """

    num_executors: int
    num_gpus: int = 0
    num_gpu_nodes: int | None = None
    num_driver_nodes: int = 0
    allow_cpu: bool = False
    expected_hours: float = 24.0
    min_free_bytes: int = 1 << 30
    port_range: tuple[int, int] | None = None
    require_isolation: bool = False
    folder: str | None = None
    storage_timeout_s: float = 30.0
    start_timeout: float = 600
    deep: bool = False


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """The driver's view of the cluster.

    Attributes:
      spark_version: of the driver's JVM; empty if Spark has not started.
      num_slots: nodes that a local master can run; None if only the cluster manager knows.
      in_driver: True if the driver's JVM is the only executor, as in `local[N]`.
      num_registered: executors that have registered.
      missing: which executors are missing, and what their queue lacks; empty if none is.
      num_held_ports: ports of the range that the examination itself holds on the driver's host.
      executor, driver: the containers that Spark requests; None without containers, or if the settings are invalid.
      yarn_limit_mb: the largest container of YARN; None if it is unknown.
      problems: failures of the examination itself, as checks.
    """

    master: str
    spark_version: str = ""
    num_slots: int | None = None
    in_driver: bool = False
    num_registered: int = 0
    missing: str = ""
    num_held_ports: int = 0
    executor: Container | None = None
    driver: Container | None = None
    yarn_limit_mb: int | None = None
    problems: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Case:
    """The input of a check."""

    expected: Expected
    cluster: Cluster
    driver: ProbeResult
    executors: tuple[ProbeResult, ...]

    @property
    def all(self) -> tuple[ProbeResult, ...]:
        return (self.driver, *self.executors)

    def num_nodes(self, results: Iterable[ProbeResult]) -> int:
        """Returns the number of nodes on the executors among `results`."""
        count = sum(result in self.executors for result in results)
        return self.expected.num_executors if count and self.cluster.in_driver else count


def by_fact(
    results: Iterable[ProbeResult], fact_of: Callable[[ProbeResult], str], make: Callable[[str, tuple[str, ...]], Check]
) -> list[Check]:
    """Makes a check for each fact that is not empty, with all the places where it holds."""
    places: dict[str, list[str]] = defaultdict(list)
    for result in results:
        if fact := fact_of(result):
            places[fact].append(result.name)
    return [make(fact, tuple(where)) for fact, where in places.items()]
