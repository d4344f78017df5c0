"""TensorFlowOnSpark's modules as this package uses them, on the driver and on executors. The only importer of TFoS.

TensorFlowOnSpark 2.2.5 is used for what it does well (a rendezvous of Spark tasks, roles, ports) and kept from what it
does badly: it stops the SparkContext and the process on any error, unpickles what anybody sends to its port, looks for
its own address at 8.8.8.8, counts GPUs by a wrong column of nvidia-smi, logs its keys, and leaves processes behind.
"""

from __future__ import annotations

import functools
import logging
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

from tfos_job.protocol.rendezvous import Node, Visitor


@functools.cache  # a program's other threads may import TensorFlow while a later attempt begins
def import_tfos() -> types.SimpleNamespace:
    """TFoS's modules, without the TensorFlow that its `compat` imports for functions that are not called here.

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


class ReservationClient:
    """What TFoS's tasks call a `reservation.Client`: it unpickles nothing, and asks again where it gets no answer."""

    def __init__(self, key: bytes, attempt: int, address: tuple[str, int]) -> None:
        host, port = address
        self._visitor = Visitor((host, port), key, attempt)

    def get_reservations(self) -> list[dict[str, Any]]:
        return [reservation(node) for node in self._visitor.nodes()]

    def register(self, reservation: dict[str, Any]) -> None:
        """Registers this node; what no other one needs, as the key of its manager, stays here."""
        self._visitor.register(Node(*(reservation[name] for name in Node.__struct_fields__)))

    def await_reservations(self) -> list[dict[str, Any]]:
        return [reservation(node) for node in self._visitor.all_nodes()]

    def close(self) -> None:
        self._visitor.close()


def reservation(node: Node) -> dict[str, Any]:
    """A node in TFoS's own form, as far as `TFCluster.run` and its tasks read it."""
    return {**{name: getattr(node, name) for name in Node.__struct_fields__}, "tb_port": 0}


def secure_reservations(tfos: types.SimpleNamespace, key: bytes, attempt: int) -> None:
    """Makes the nodes of this process speak to the driver's rendezvous of that attempt in our words, under its key."""
    tfos.reservation.Client = functools.partial(ReservationClient, key, attempt)


def own_run(tfos: types.SimpleNamespace, make_server: Callable[[int], Any]) -> Callable[..., Any]:
    """TFCluster.run with globals of its own, so that several clusters of a process know nothing of each other.

    TFoS keeps the error of a cluster in a global of its module, and every later run of the process would abort at once.

    Args:
      tfos: of `import_tfos`.
      make_server: makes the reservation server, for a number of nodes.
    """
    run = tfos.TFCluster.run
    own = {**run.__globals__, "tf_status": {}, "reservation": types.SimpleNamespace(Server=make_server)}
    return types.FunctionType(run.__code__, own, run.__name__, run.__defaults__, run.__closure__)
