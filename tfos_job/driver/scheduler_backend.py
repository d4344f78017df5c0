"""Spark's own view of its executors, and its requests to the cluster manager: the private part of Spark, by py4j.

What is `private[spark]` in Scala is public in the bytecode (4.3: CoarseGrainedSchedulerBackend and, for YARN,
YarnSchedulerBackend and YarnAllocator).
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from pyspark import SparkContext

from tfos_job.host.limits import within

JVM_S = 10.0
"""Seconds for an answer of Spark's JVM: it takes milliseconds, but the JVM may collect garbage, or ask YARN."""


@dataclass(frozen=True, kw_only=True)
class Executor:
    """An executor that Spark counts on.

    Attributes:
      id: of Spark.
      host: on YARN that of its NodeManager.
      container: of YARN; empty elsewhere.
      address: `host:port` of its block manager; empty until that has registered, too.
    """

    id: str
    host: str
    container: str = ""
    address: str = ""

    def __str__(self) -> str:
        return f"executor {self.id} on host {self.host}" + (f", container {self.container}" if self.container else "")


@dataclass(frozen=True, kw_only=True)
class Fate:
    """What became of an executor that Spark has, or had.

    Attributes:
      id: of Spark.
      container: of YARN; empty elsewhere.
      why_lost: Spark's words for its end; empty while it has none.
      is_alive: Spark still counts on it. Not so where the connection is gone, and YARN has not told why yet.
    """

    id: str
    container: str
    why_lost: str
    is_alive: bool


class Backend(Protocol):
    """What `Executors` needs of Spark. Any call may raise whatever py4j makes of a JVM that does not answer."""

    def executors(self) -> tuple[Executor, ...]:
        """Those that have registered, without those that are being removed."""

    def replace(self, executors: Collection[Executor]) -> None:
        """Kills executors; the cluster manager starts others in their place."""

    def leave_out(self, hosts: Collection[str]) -> None:
        """Asks YARN for no container on these hosts, and for containers on all others again."""


class SparkBackend:
    """The scheduler of a SparkContext with executors."""

    def __init__(self, sc: SparkContext) -> None:
        self._sc = sc
        self._context: Any = sc._jsc.sc()

    def executors(self) -> tuple[Executor, ...]:
        return within(JVM_S, self._executors, "executors")

    def _executors(self) -> tuple[Executor, ...]:
        backend = self._context.schedulerBackend()
        found = map(_of_summary, _summaries(self._context, active_only=True))
        return tuple(each for each in found if backend.isExecutorActive(each.id))

    def replace(self, executors: Collection[Executor]) -> None:
        within(JVM_S, lambda: self._replace(executors), "replace executors")

    def _replace(self, executors: Collection[Executor]) -> None:
        backend, java = self._context.schedulerBackend(), self._sc._jvm
        # The total that Spark asks for stays, so others come in their place; a task on them counts as failed.
        backend.killExecutors(self._seq([each.id for each in executors]), False, True, True)
        # Without this, one on a host that is cut off would be on Spark's list until its heartbeats are missed: YARN
        # tells Spark nothing of a container that it was told to release.
        reason = java.org.apache.spark.scheduler.ExecutorProcessLost("it is replaced", java.scala.Option.empty(), True)
        for each in executors:
            backend.removeExecutor(each.id, reason)

    def leave_out(self, hosts: Collection[str]) -> None:
        within(JVM_S, lambda: self._leave_out(sorted(hosts)), "leave out hosts")

    def _leave_out(self, hosts: Sequence[str]) -> None:
        backend, java = self._context.schedulerBackend(), self._sc._jvm
        if not backend.getClass().getName().rpartition(".")[2].startswith("Yarn"):
            return
        profiles = _companion(java.org.apache.spark.resource, "ResourceProfile")
        profile = profiles.getOrCreateDefaultProfile(self._context.conf())
        answer = _companion(java.scala.reflect, "ClassTag").apply(java.java.lang.Class.forName("java.lang.Object"))
        total = backend.totalExpectedExecutors()
        # The allocator looks at the hosts only when the total changes. One less ends none of those that run.
        for number in (total - 1, total):
            totals = java.java.util.HashMap()
            totals.put(profile, number)
            wanted = java.PythonUtils.toScalaMap(totals)
            request = backend.prepareRequestExecutors(wanted)
            request = request.copy(
                wanted,
                request.numLocalityAwareTasksPerResourceProfileId(),
                request.hostToLocalTaskCount(),
                self._seq(hosts).toSet(),
            )
            backend.amEndpoint().get().askSync(request, answer)

    def _seq(self, words: Sequence[str]) -> Any:
        java = self._sc._jvm
        found = java.java.util.ArrayList()
        for word in words:
            found.add(word)
        return java.PythonUtils.toSeq(found)


def fates(sc: SparkContext) -> list[Fate]:
    """What became of all executors so far, the driver's own among them; raises whatever py4j makes of the JVM."""

    def ask() -> list[Fate]:
        context: Any = sc._jsc.sc()
        backend = context.schedulerBackend()
        return [_fate(summary, backend) for summary in _summaries(context, active_only=False)]

    return within(JVM_S, ask, "executors")


def _fate(summary: Any, backend: Any) -> Fate:
    executor, why_lost = summary.id(), _or_empty(summary.removeReason())
    return Fate(
        id=executor,
        container=_container(summary),
        why_lost=why_lost,
        is_alive=not why_lost and executor != "driver" and backend.isExecutorActive(executor),
    )


def _summaries(context: Any, *, active_only: bool) -> Iterator[Any]:
    found = context.statusStore().executorList(active_only)
    return (found.apply(i) for i in range(found.size()))


def _companion(package: Any, name: str) -> Any:
    """The companion object of a Scala class."""
    return getattr(getattr(package, f"{name}$"), "MODULE$")


def _of_summary(summary: Any) -> Executor:
    address = summary.hostPort()  # the host alone at first
    host, colon, _ = address.rpartition(":")
    return Executor(
        id=summary.id(), host=host or address, container=_container(summary), address=address if colon else ""
    )


def _container(summary: Any) -> str:
    return _or_empty(summary.attributes().get("CONTAINER_ID"))


def _or_empty(option: Any) -> str:
    """The string in a Scala Option."""
    return str(option.get()) if option.isDefined() else ""
