"""The driver's side of a TFCluster: its Spark job, and how that ended."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import re
import threading
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from py4j.protocol import Py4JNetworkError
from pyspark import cloudpickle

from tfos_job.errors import JobError, NodeDiedError, ResourceError
from tfos_job.host.limits import within
from tfos_job.nodes import node, tfos_task
from tfos_job.nodes.tfos import import_tfos, secure_reservations
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.topology import Topology

log = logging.getLogger(__name__)

JOB_GROUP = "tfcluster"
_JVM_S = 10.0  # an answer takes milliseconds; a JVM that is stopped or collects garbage takes its time


class _NodeRDD:
    """The RDD that TFoS launches its nodes with; tells `job` how the Spark job ended."""

    def __init__(self, rdd: Any, job: NodeJob) -> None:
        self._rdd = rdd
        self._job = job

    def foreachPartition(self, function: Callable[[Iterable[int]], Any]) -> None:  # noqa: N802 - Spark's name
        self._job.run_spark_job(self._rdd, function)


class _LaunchContext:
    """The part of a SparkContext that TFCluster.run needs. `stop` does nothing: TFoS stops the context on any error."""

    def __init__(self, sc: Any, job: NodeJob) -> None:
        self._sc = sc
        self._job = job
        self._jsc = sc._jsc

    def parallelize(self, values: Iterable[int], num_slices: int) -> _NodeRDD:
        return _NodeRDD(self._sc.parallelize(values, num_slices), self._job)

    def cancelAllJobs(self) -> None:  # noqa: N802 - Spark's name
        self._sc.cancelJobGroup(JOB_GROUP)

    def stop(self) -> None:
        pass


class NodeJob:
    """One TFCluster as one Spark job. Its event: a `Failure` if Spark or the rendezvous fails."""

    def __init__(
        self,
        sc: Any,
        topology: Topology,
        args: node.NodeArgs,
        events: queue.Queue[Any],
        start_timeout: int,
    ) -> None:
        self._sc = sc
        self._topology = topology
        self._args = args
        self._events = events
        self._start_timeout = start_timeout
        self._reservations: Any = None
        self._cancelled = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Returns at once; the nodes call the driver when they are there."""
        threading.Thread(target=self._launch, name="tfcluster-launch", daemon=True).start()

    def _launch(self) -> None:
        try:
            self._run_cluster()
        except (Exception, SystemExit) as e:  # noqa: BLE001 - TFoS raises bare Exceptions, and exits
            # If Spark failed first, `run_spark_job` has reported that in better words.
            if not self._ended.is_set():
                self._fail(f"TFCluster did not start: {type(e).__name__}: {e}", ResourceError.exit_code)

    def _run_cluster(self) -> None:
        tfos = import_tfos()
        secure_reservations(tfos, self._args.key, self._args.driver[0], self._args.port_range)
        tfos.TFCluster.tf_status.clear()  # A module global: after one failure every later run would abort at once.
        with _environment(tfos, self._args.driver):
            cluster = tfos.TFCluster.run(
                _LaunchContext(self._sc, self),
                node.main,
                self._args,
                num_executors=self._topology.num_spark_executors,
                num_ps=self._topology.num_executor_ps_tasks,
                input_mode=tfos.TFCluster.InputMode.TENSORFLOW,
                reservation_timeout=self._start_timeout,
                queues=[],
            )
            self._reservations = cluster.server

    def run_spark_job(self, rdd: Any, function: Callable[[Iterable[int]], Any]) -> None:
        """Called by TFoS on a thread of its own."""
        try:
            # The group is a property of this thread's jobs, so it must be set here.
            name = f"TFCluster of {self._topology.num_spark_executors} nodes"
            self._sc.setJobGroup(JOB_GROUP, name, interruptOnCancel=True)
            args = self._args
            rdd.foreachPartition(
                tfos_task.wrapped(cloudpickle.dumps(function), args.driver, args.key, args.attempt, args.port_range)
            )
        except Exception as e:
            self._fail(*_spark_cause(e), detail=str(e))
            raise
        finally:
            self._ended.set()

    def _fail(self, cause: str, exit_code: int, detail: str = "") -> None:
        if not self._cancelled:
            self._events.put(Failure(Kind.SPARK, cause, exit_code, detail=detail))

    def close_registration(self) -> None:
        """Stops the reservation server, which nodes ask for each other's addresses before all are ready."""
        if self._reservations is not None:
            self._reservations.stop()

    def loss_reason(self, container_id: str) -> str:
        """Spark's words for the end of the executor in that container, or of any executor if `container_id` is empty.

        Empty if Spark knows of none, or not yet: YARN tells it with its next heartbeat.
        """

        def ask() -> list[tuple[str, str]]:
            executors = self._sc._jsc.sc().statusStore().executorList(False)
            summaries = [executors.apply(i) for i in range(executors.size())]
            return [
                (_or_empty(summary.attributes().get("CONTAINER_ID")), _or_empty(summary.removeReason()))
                for summary in summaries
            ]

        try:
            reasons = within(_JVM_S, ask, "loss reason")
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
            log.debug("cannot ask Spark for its executors: %s", e)
            return ""
        return next((reason for of, reason in reasons if reason and container_id in ("", of)), "")

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the Spark job; False if it has not come within that time."""
        return self._ended.wait(timeout_s)

    def cancel(self) -> None:
        """Cancels the Spark job. Never raises, so that Spark's error does not hide the one that ends the attempt."""
        self._cancelled = True
        try:
            within(_JVM_S, lambda: self._sc.cancelJobGroup(JOB_GROUP), "cancel")
        except TimeoutError:
            log.warning("Spark's JVM does not answer: its job is not cancelled")
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
            log.debug("cannot cancel the Spark job: %s", e)


@contextlib.contextmanager
def _environment(tfos: types.SimpleNamespace, driver: tuple[str, int]) -> Iterator[None]:
    """Sets the address that TFoS's reservation server reads from the environment."""
    name = tfos.reservation.TFOS_SERVER_HOST
    before = os.environ.get(name)
    os.environ[name] = driver[0]
    original = tfos.util.get_ip_address
    tfos.util.get_ip_address = lambda: driver[0]  # os.getenv's default is evaluated all the same.
    try:
        yield
    finally:
        tfos.util.get_ip_address = original
        if before is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = before


def _or_empty(option: Any) -> str:
    """The string in a Scala Option."""
    return str(option.get()) if option.isDefined() else ""


def _spark_cause(error: Exception) -> tuple[str, int]:
    """The line of Spark's exception that has the cause, and its exit code.

    Errors of this package are ignored: the node has reported them as a `Failure`, which comes first.
    """
    if isinstance(error, Py4JNetworkError | ConnectionError):
        return "Spark's JVM has ended", NodeDiedError.exit_code
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lost = next((line for line in lines if "ExecutorLostFailure" in line or "SparkException" in line), None)
    # A Python traceback ends with the exception; Scala's frames begin with "at".
    raised = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Failed|Closed)\b", line)]
    if lost is None and raised:
        return raised[-1], JobError.exit_code
    return lost or next(iter(lines), type(error).__name__), NodeDiedError.exit_code
