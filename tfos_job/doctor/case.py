"""What a job needs and what the driver knows of the cluster; with the sights, all that a check looks at."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from tfos_job.doctor.diagnosis import Check
from tfos_job.doctor.host_memory import Container
from tfos_job.doctor.probe import ProbeResult


@dataclass(frozen=True, kw_only=True)
class Expected:
    """What a job needs.

    Attributes:
      num_executors: nodes that fill a Spark executor each (a slot each in local Spark).
      num_gpus: GPUs of each node that is to have any.
      num_gpu_nodes: how many those are; None for all.
      num_driver_nodes: parameter servers beside the driver.
      allow_cpu: whether a GPU that is assigned and not there is a warning.
      expected_hours: that the job will run.
      min_free_bytes: of the local disk, for each node.
      folder: where the job will write, to try it there; None for no trial.
      storage_timeout_s: for that trial.
      start_timeout: seconds to wait for executors.
      deep: whether to import TensorFlow on each of them.
    """

    num_executors: int
    num_gpus: int = 0
    num_gpu_nodes: int | None = None
    num_driver_nodes: int = 0
    allow_cpu: bool = False
    expected_hours: float = 24.0
    min_free_bytes: int = 1 << 30
    port_range: tuple[int, int] | None = None
    folder: str | None = None
    storage_timeout_s: float = 30.0
    start_timeout: int = 600
    deep: bool = False


@dataclass(frozen=True, kw_only=True)
class Cluster:
    """What the driver knows of the cluster.

    Attributes:
      spark_version: of the driver's JVM; empty where Spark has not started.
      num_slots: nodes that a local master can hold; None where only the cluster manager knows.
      in_driver: whether the driver's JVM is the only executor, as in `local[N]`.
      num_registered: executors that have come.
      num_held_ports: of the port range, that the examination itself holds on the driver's host.
      executor, driver: the containers that Spark asks for; None where there are none, or the settings say nonsense.
      yarn_limit_mb: the largest container; None where nobody says.
      problems: what went wrong on the way, as checks.
    """

    master: str
    spark_version: str = ""
    num_slots: int | None = None
    in_driver: bool = False
    num_registered: int = 0
    num_held_ports: int = 0
    executor: Container | None = None
    driver: Container | None = None
    yarn_limit_mb: int | None = None
    problems: tuple[Check, ...] = ()


@dataclass(frozen=True)
class Case:
    """All that a check looks at."""

    expected: Expected
    cluster: Cluster
    driver: ProbeResult
    executors: tuple[ProbeResult, ...]

    @property
    def all(self) -> tuple[ProbeResult, ...]:
        return (self.driver, *self.executors)

    def num_nodes(self, sights: Iterable[ProbeResult]) -> int:
        """Nodes that run at the executors among `sights`."""
        count = sum(sight in self.executors for sight in sights)
        return self.expected.num_executors if count and self.cluster.in_driver else count


def by_fact(
    sights: Iterable[ProbeResult], fact_of: Callable[[ProbeResult], str], make: Callable[[str, tuple[str, ...]], Check]
) -> list[Check]:
    """A check for each fact that is not empty, at all the places where it holds."""
    places: dict[str, list[str]] = defaultdict(list)
    for sight in sights:
        if fact := fact_of(sight):
            places[fact].append(sight.name)
    return [make(fact, tuple(where)) for fact, where in places.items()]
