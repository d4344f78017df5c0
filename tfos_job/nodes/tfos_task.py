"""The Spark task of a TFCluster on an executor: TFoS's own, in an environment that suits it."""

from __future__ import annotations

import multiprocessing
import os
import shutil
import types
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pyspark import cloudpickle

from tfos_job.errors import JobError
from tfos_job.host import container, server_port
from tfos_job.host.ports import PortRange
from tfos_job.nodes import node
from tfos_job.nodes.tfos import import_tfos, secure_reservations
from tfos_job.protocol.line import own_address

_SPARK_KEY = "_SPARK_AUTH_SECRET"  # of a standalone cluster's executors
_TFOS_NODE_PORT = "TENSORFLOW_PORT"  # TFoS announces this port instead of looking for one


def wrapped(
    pickled_task: bytes, driver: tuple[str, int], key: bytes, attempt: int, port_range: PortRange | None
) -> Callable[[Iterable[int]], None]:
    """TFoS's Spark task in an environment that suits it. The returned function runs on an executor.

    The task is in bytes, since unpickling it imports TFoS, which only `import_tfos` does rightly.
    """

    def run(partition: Iterable[int]) -> None:
        os.environ.pop(_SPARK_KEY, None)  # no process of this one needs it
        tfos = import_tfos()
        secure_reservations(tfos, key, attempt)
        address = own_address(driver)
        _tame(tfos, address)
        try:
            # TFoS would bind a port of its own choice without listening, so another process could take it.
            held = server_port.hold(address, port_range)
        except JobError as e:
            raise node.report_without_role(driver, key, attempt, e) from e
        scratch = container.make_scratch(attempt)
        # multiprocessing's sockets go here, where they are removed even if this process is killed.
        sockets = container.socket_dir(scratch)
        multiprocessing.current_process()._config["tempdir"] = sockets  # type: ignore[attr-defined]
        with held:
            os.environ[_TFOS_NODE_PORT] = str(held.port)
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
    # That file is not read here, and in local mode it would be in the user's own folder.
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
