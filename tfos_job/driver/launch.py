"""The driver's side of a TFCluster: its Spark job, and how that ended."""

from __future__ import annotations

import logging
import queue
import re
import secrets
import threading
from collections.abc import Callable, Iterable
from typing import Any

from py4j.protocol import Py4JNetworkError
from pyspark import cloudpickle

from tfos_job import storage
from tfos_job.driver.reservations import ReservationServer
from tfos_job.driver.scheduler_backend import JVM_S, Fate, fates
from tfos_job.errors import JobError, NodeDiedError, ResourceError
from tfos_job.host.limits import within
from tfos_job.nodes import node, tfos_task
from tfos_job.nodes.tfos import import_tfos, own_run
from tfos_job.protocol.events import ExecutorAlive, LossExplained
from tfos_job.protocol.failures import EXECUTOR_LOST, Failure, Kind
from tfos_job.protocol.topology import Topology

log = logging.getLogger(__name__)

# The last line of a node that has lost its connection: to the driver, which it would have told why, or to others.
_DISCONNECTED = re.compile(r"(?:[\w.]+\.)?(?:NodeFailed|LineClosed|Connection\w*Error|BrokenPipeError|TimeoutError)\b")


class _NodeRDD:
    """The RDD that TFoS launches its nodes with; tells `job` how the Spark job ended."""

    def __init__(self, rdd: Any, job: NodeJob) -> None:
        self._rdd = rdd
        self._job = job

    def foreachPartition(self, function: Callable[[Iterable[int]], Any]) -> None:  # noqa: N802 - Spark's name
        self._job.run_spark_job(self._rdd, function)


class _LaunchContext:
    """The part of a SparkContext that TFCluster.run needs."""

    def __init__(self, sc: Any, job: NodeJob) -> None:
        self._sc = sc
        self._job = job
        self._jsc = sc._jsc

    def parallelize(self, values: Iterable[int], num_slices: int) -> _NodeRDD:
        return _NodeRDD(self._sc.parallelize(values, num_slices), self._job)


class NodeJob:
    """One TFCluster as one Spark job. Its event: a `Failure` if Spark or the rendezvous fails.

    Several may follow each other in a SparkContext: each has a job group and a rendezvous of its own, and after `close`
    nothing of it is heard any more.
    """

    def __init__(self, sc: Any, topology: Topology, args: node.NodeArgs, events: queue.Queue[Any]) -> None:
        """Takes the port of the rendezvous; starts nothing yet.

        Raises:
          ResourceError: there is no free port.
        """
        self._sc = sc
        self._topology = topology
        self._args = args
        self._events = events
        # Spark runs no job of a cancelled group, so that a name which comes again would stop a later cluster.
        self._group = f"tfcluster-{args.attempt}-{secrets.token_hex(4)}"
        self._reservations = ReservationServer(args.key, args.driver[0], args.port_range, attempt=args.attempt)
        self._lost_before: set[str] = set()
        self._is_closed = False
        self._ended = threading.Event()

    def start(self) -> None:
        """Returns at once; the nodes call the driver when they are there."""
        threading.Thread(target=self._launch, name=f"tfcluster-launch-{self._args.attempt}", daemon=True).start()

    def _launch(self) -> None:
        try:
            self._lost_before = {each.id for each in self._fates() if each.why_lost}
            self._run_cluster()
        except (Exception, SystemExit) as e:  # noqa: BLE001 - TFoS raises bare Exceptions, and exits
            # If Spark failed first, `run_spark_job` has reported that in better words.
            if not self._ended.is_set():
                self._fail(f"TFCluster did not start: {type(e).__name__}: {e}", ResourceError.exit_code)

    def _run_cluster(self) -> None:
        tfos = import_tfos()
        own_run(tfos, self._reservations.expect)(
            _LaunchContext(self._sc, self),
            node.main,
            self._args,
            num_executors=self._topology.num_spark_executors,
            num_ps=self._topology.num_executor_ps_tasks,
            input_mode=tfos.TFCluster.InputMode.TENSORFLOW,
            queues=[],
        )

    def run_spark_job(self, rdd: Any, function: Callable[[Iterable[int]], Any]) -> None:
        """Called by TFoS on a thread of its own."""
        args = self._args
        try:
            # The group is a property of this thread's jobs, so it must be set here.
            name = f"Attempt {args.attempt}: TFCluster of {self._topology.num_spark_executors} nodes"
            self._sc.setJobGroup(self._group, name, interruptOnCancel=True)
            task = cloudpickle.dumps(function)
            rdd.foreachPartition(tfos_task.wrapped(task, args.driver, args.key, args.attempt, args.port_range))
        except Exception as e:
            self._fail(*_spark_cause(e), detail=str(e))
            raise
        finally:
            self._ended.set()
            self.close_registration()  # TFCluster.run waits there for nodes that will not come

    def _fail(self, cause: str, exit_code: int, detail: str = "") -> None:
        if not self._is_closed:
            self._events.put(Failure(Kind.SPARK, cause, exit_code, detail=detail))

    def close_registration(self) -> None:
        """Closes the rendezvous, which nodes ask for each other's addresses before all are ready."""
        self._reservations.stop()

    def ask(self, container_id: str) -> LossExplained | ExecutorAlive | None:
        """What Spark knows of the executor in that container, or of any that was lost if `container_id` is empty.

        Executors that were lost before this cluster began do not count. None if Spark does not know yet: YARN tells it
        with its next heartbeat.
        """
        found = [each for each in self._fates() if each.id not in self._lost_before]
        fitting = [each for each in found if container_id in ("", each.container)]
        if why := next((each.why_lost for each in fitting if each.why_lost), ""):
            return LossExplained(why)
        return ExecutorAlive() if container_id and any(each.is_alive for each in fitting) else None

    def _fates(self) -> list[Fate]:
        """Of the executors so far; empty where Spark does not answer."""
        try:
            return fates(self._sc)
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
            log.debug("cannot ask Spark for its executors: %s", e)
            return []

    def wait(self, timeout_s: float) -> bool:
        """Waits for the end of the Spark job; False if it has not come within that time."""
        return self._ended.wait(timeout_s)

    def cancel(self) -> None:
        """Cancels the Spark job, also one that begins later.

        Never raises, so that Spark's error does not hide the one that ends the attempt.
        """
        try:
            within(JVM_S, lambda: self._sc._jsc.sc().cancelJobGroupAndFutureJobs(self._group), "cancel")
        except TimeoutError:
            log.warning("Spark's JVM does not answer: its job is not cancelled")
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
            log.debug("cannot cancel the Spark job: %s", e)

    def close(self, cancel_s: float) -> None:
        """Ends what is left of it, and waits that long for the end of a job that it cancels; reports nothing more."""
        self._is_closed = True
        self.close_registration()
        if not self._ended.is_set():
            self.cancel()
            self._ended.wait(cancel_s)


def _spark_cause(error: Exception) -> tuple[str, int]:
    """The line of Spark's exception that has the cause, and its exit code.

    Errors of this package are ignored: the node has reported them as a `Failure`, which comes first. If it could not,
    its line was lost, and another attempt may go well.
    """
    if isinstance(error, Py4JNetworkError | ConnectionError):
        return "Spark's JVM has ended", NodeDiedError.exit_code
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    lost = next((line for line in lines if EXECUTOR_LOST in line or "SparkException" in line), None)
    # A Python traceback ends with the exception; Scala's frames begin with "at".
    raised = [line for line in lines if re.match(r"[A-Za-z_][\w.]*(Error|Exception|Failed|Closed)\b", line)]
    if lost is None and raised:
        full = storage.full_disk(error)
        code = NodeDiedError.exit_code if _DISCONNECTED.match(raised[-1]) else JobError.exit_code
        return raised[-1], code if full is None else full.exit_code
    return lost or next(iter(lines), type(error).__name__), NodeDiedError.exit_code
