"""The Spark job of a TFCluster: its driver's side, and the wrapping of its tasks. The only importer of TFoS.

TensorFlowOnSpark 2.2.5 is used for what it does well (a rendezvous of Spark tasks, roles, ports) and kept from what it
does badly: it stops the SparkContext and the process on any error, unpickles what anybody sends to its port, looks for
its own address at 8.8.8.8, counts GPUs by a wrong column of nvidia-smi, logs its keys, and leaves processes behind.
"""

from __future__ import annotations

import contextlib
import logging
import multiprocessing
import os
import pickle
import queue
import re
import shutil
import socket
import sys
import threading
import types
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

from py4j.protocol import Py4JNetworkError
from pyspark import cloudpickle

from tfos_job.errors import JobError, NodeDiedError, ResourceError
from tfos_job.host import container, ports
from tfos_job.host.limits import within
from tfos_job.host.ports import PortRange
from tfos_job.nodes import node
from tfos_job.protocol.failures import Failure, Kind
from tfos_job.protocol.frames import seal, unseal
from tfos_job.protocol.line import own_address
from tfos_job.protocol.topology import Topology

log = logging.getLogger(__name__)

JOB_GROUP = "tfcluster"
_RESERVATION_CONTEXT = b"reservation"
_REQUEST_LIMIT_S = 1.0
_ANSWER_LIMIT_S = 60.0
_JVM_S = 10.0  # an answer takes milliseconds; a JVM that is stopped or collects garbage takes its time
_TFOS_NODE_PORT = "TENSORFLOW_PORT"  # TFoS announces this port instead of looking for one


def _import_tfos() -> types.SimpleNamespace:
    """TFoS's modules, without the TensorFlow that its `compat` imports for functions nobody calls here.

    TensorFlow takes seconds and hundreds of megabytes, in the driver and in every supervisor; where it is loaded
    already it stays as it is.
    """
    absent = "tensorflow" not in sys.modules
    if absent:
        sys.modules["tensorflow"] = types.ModuleType("tensorflow")
    root_handlers, root_level = logging.root.handlers[:], logging.root.level
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # pkg_resources announces its end at every import.
            from tensorflowonspark import TFCluster, TFManager, TFSparkNode, gpu_info, reservation, util
    finally:
        if absent:
            del sys.modules["tensorflow"]
        # TFoS calls logging.basicConfig(level=INFO) for the whole process.
        logging.root.handlers[:], logging.root.level = root_handlers, root_level
    # At INFO it logs every node's authkey; what it logs as an error arrives here as a Failure.
    logging.getLogger("tensorflowonspark").setLevel(logging.CRITICAL)
    return types.SimpleNamespace(
        TFCluster=TFCluster,
        TFManager=TFManager,
        TFSparkNode=TFSparkNode,
        gpu_info=gpu_info,
        reservation=reservation,
        util=util,
    )


def _secure_reservations(
    tfos: types.SimpleNamespace, key: bytes, host: str, port_range: PortRange | None = None
) -> None:
    """Makes TFoS's rendezvous listen on `host` alone, and unpickle a message only after its HMAC was verified.

    TFoS serves all its connections in one thread, so nobody may take longer over a message than a moment.
    """

    def send(_: Any, sock: socket.socket, message: Any) -> None:
        sock.sendall(seal(key, _RESERVATION_CONTEXT, pickle.dumps(message)))

    def receive(end: Any, sock: socket.socket) -> Any:
        limit_s = _REQUEST_LIMIT_S if isinstance(end, tfos.reservation.Server) else _ANSWER_LIMIT_S
        return pickle.loads(unseal(key, _RESERVATION_CONTEXT, sock, limit_s))

    def listen(_: Any) -> socket.socket:
        return ports.listen(host, port_range)

    tfos.reservation.Server.start_listening_socket = listen
    tfos.reservation.MessageSocket.send = send
    tfos.reservation.MessageSocket.receive = receive


def _on_executor(
    pickled_task: bytes, driver: tuple[str, int], key: bytes, port_range: PortRange | None
) -> Callable[[Iterable[int]], None]:
    """TFoS's Spark task in an environment that suits it. The returned function runs on an executor.

    The task is in bytes, since unpickling it imports TFoS, which only `_import_tfos` does rightly.
    """

    def run(partition: Iterable[int]) -> None:
        tfos = _import_tfos()
        _secure_reservations(tfos, key, driver[0])
        address = own_address(driver)
        _tame(tfos, address)
        try:
            # The port that TFoS would choose itself it would not hold: bound, but open to everybody who asks for it.
            held = ports.listen(address, port_range)
        except JobError as e:
            raise node.report_without_role(driver, key, e) from e
        scratch = container.make_scratch()
        # multiprocessing's sockets go here, where they are removed even if this process is killed.
        sockets = container.socket_dir(scratch)
        multiprocessing.current_process()._config["tempdir"] = sockets  # type: ignore[attr-defined]
        with held:
            os.environ[_TFOS_NODE_PORT] = str(held.getsockname()[1])
            node.context = node.NodeContext(held, (scratch, sockets))
            try:
                cloudpickle.loads(pickled_task)(partition)
            finally:
                manager = tfos.TFSparkNode.TFSparkNode.mgr
                if manager is not None:
                    manager.shutdown()  # Spark ends its workers by os._exit, which would leave this process behind.
                for folder in (scratch, sockets):
                    shutil.rmtree(folder, ignore_errors=True)

    return run


def _tame(tfos: types.SimpleNamespace, address: str) -> None:
    """Switches off, on an executor, what TFoS should not do."""
    tfos.util.get_ip_address = lambda: address
    # Nobody here reads that file, and in local mode it would land in the user's own folder.
    tfos.util.write_executor_id = lambda _: None
    # Without this TFoS takes a GPU by its own count where Spark has assigned none.
    tfos.gpu_info.is_gpu_available = lambda: False
    # Spark uses a Python worker again: an earlier cluster may have left its manager in it.
    tfos.TFSparkNode.TFSparkNode.mgr = None
    # A parameter server's manager would listen on a port of every interface, for a driver that asks nothing of it.
    start = tfos.TFManager.start
    if start.__module__ != __name__:

        def start_locally(authkey: bytes, queues: Sequence[str], mode: str = "local") -> Any:
            return start(authkey, queues)

        tfos.TFManager.start = start_locally


class _NodeRDD:
    """The RDD that TFoS launches its nodes with; tells `job` how the Spark job ended."""

    def __init__(self, rdd: Any, job: NodeJob) -> None:
        self._rdd = rdd
        self._job = job

    def foreachPartition(self, function: Callable[[Iterable[int]], Any]) -> None:  # noqa: N802 - Spark's name
        self._job.run_spark_job(self._rdd, function)


class _Context:
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
            # Where Spark failed first, `run_spark_job` has said so in better words.
            if not self._ended.is_set():
                self._fail(f"TFCluster did not start: {type(e).__name__}: {e}", ResourceError.exit_code)

    def _run_cluster(self) -> None:
        tfos = _import_tfos()
        _secure_reservations(tfos, self._args.key, self._args.driver[0], self._args.port_range)
        tfos.TFCluster.tf_status.clear()  # A module global: after one failure every later run would abort at once.
        with _environment(tfos, self._args.driver):
            cluster = tfos.TFCluster.run(
                _Context(self._sc, self),
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
            rdd.foreachPartition(_on_executor(cloudpickle.dumps(function), args.driver, args.key, args.port_range))
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
        """Whether the Spark job has ended within that time."""
        return self._ended.wait(timeout_s)

    def cancel(self) -> None:
        """Never raises: the error that ends the attempt must not be hidden by Spark's own."""
        self._cancelled = True
        try:
            within(_JVM_S, lambda: self._sc.cancelJobGroup(JOB_GROUP), "cancel")
        except TimeoutError:
            log.warning("Spark's JVM does not answer: its job is not cancelled")
        except Exception as e:  # noqa: BLE001 - whatever py4j makes of a JVM that is gone
            log.debug("cannot cancel the Spark job: %s", e)


@contextlib.contextmanager
def _environment(tfos: types.SimpleNamespace, driver: tuple[str, int]) -> Iterator[None]:
    """TFoS's reservation server asks the environment for its own address."""
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
    """The telling line of Spark's exception, and the exit code that it stands for.

    An error of this package is not looked for: the node has told it to the driver as a `Failure`, which comes first.
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
